//! `vmgate report`: a saved verdict, written again in other formats.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, options::Shared, output};
use vmgate_verdict::ExitCode;

#[derive(Debug, Args)]
pub(super) struct Report {
    /// Verdict as --output json or yaml wrote it
    file: PathBuf,
    #[command(flatten)]
    reports: output::Reports,
}

impl Report {
    /// Ends with the code of the verdict, so that a pipeline may look at it again.
    pub(super) fn run(&self, shared: &Shared) -> Result<ExitCode, Failure> {
        let verdicts = output::read_verdicts(&self.file)?;
        self.reports.open()?.write(&verdicts, shared)
    }
}
