//! `vmgate report`: a saved verdict, written again in other formats.

use std::{fs, path::PathBuf};

use clap::Args;

use super::{Failure, options::Shared, output};
use crate::verdict::{self, ExitCode};

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
        let name = self.file.display().to_string();
        let bytes = fs::read(&self.file)
            .map_err(|error| Failure::usage(format!("{name}: cannot be read: {error}")))?;
        let verdicts = verdict::read(&name, &bytes).map_err(Failure::usage)?;
        self.reports.open()?.write(&verdicts, shared)
    }
}
