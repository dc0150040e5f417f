//! `vmgate rules`: what the rules are, what they can name, and whether they hold what they promise.

use clap::{Args, Subcommand};

use super::{Failure, options::Shared, output, session::Session};
use crate::verdict::ExitCode;

#[derive(Debug, Args)]
pub(super) struct Rules {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the rules by step
    List,
}

impl Rules {
    pub(super) fn run(&self, shared: &Shared) -> Result<ExitCode, Failure> {
        let session = Session::open(shared)?;
        match &self.what {
            What::List => print(
                &session
                    .policy()?
                    .pack
                    .rules()
                    .iter()
                    .map(|r| format!("{} {}\n", r.id, r.title))
                    .collect::<String>(),
            ),
        }
    }
}

fn print(text: &str) -> Result<ExitCode, Failure> {
    output::to_stdout(|out| out.write_all(text.as_bytes()))?;
    Ok(ExitCode::Go)
}
