//! `vmgate report`: writes a saved verdict in other formats.

use std::path::PathBuf;

use clap::Args;
use vmgate_verdict::ExitCode;

use super::{Failure, options::GlobalOptions, output};

#[derive(Debug, Args)]
pub(super) struct Report {
    /// Verdict, written by --output json or yaml
    file: PathBuf,
    #[command(flatten)]
    reports: output::Reports,
}

impl Report {
    /// Returns the exit code of the verdict, so that a pipeline can use it again.
    pub(super) fn run(&self, shared: &GlobalOptions) -> Result<ExitCode, Failure> {
        let verdicts = output::read_verdicts(&self.file)?;
        self.reports.open()?.write(&verdicts, shared)
    }
}
