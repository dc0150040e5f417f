//! `vmgate rules`: what the rules are, what they can name, and whether they hold what they promise.

use clap::{Args, Subcommand};

use super::{Failure, options::Shared, output, session::Session};
use crate::{
    rule::{self, Pack},
    verdict::{self, ExitCode},
};

#[derive(Debug, Args)]
pub(super) struct Rules {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the rules by step
    List,
    /// Explain a rule: why, what to do, and the parameters that hold
    Show {
        /// Id of the rule
        id: String,
    },
    /// Look for rules whose text does not serve the reader
    Lint,
    /// Run the tests beside the rules
    Test {
        /// Only rules whose id contains this
        #[arg(long, value_name = "PATTERN")]
        run: Option<String>,
        /// Show what was expected beside what came
        #[arg(long)]
        diff: bool,
    },
    /// Print a JSON Schema
    Schema {
        /// Name of the schema; all names are listed if not given
        name: Option<String>,
    },
    /// List the facts that a rule can name
    Facts {
        /// Only below this path, such as guest.tcp
        path: Option<String>,
    },
    /// Print the reference of all rules as Markdown
    Reference,
}

impl Rules {
    pub(super) fn run(&self, shared: &Shared) -> Result<ExitCode, Failure> {
        let session = Session::open(shared)?;
        match &self.what {
            What::List => print(&rule::list(&session.policy()?.pack)),
            What::Show { id } => show(&session.policy()?.pack, id),
            What::Lint => verdict_of(&rule::lint::lint(&session.policy()?.pack)),
            What::Test { run, diff } => test(&session, run.as_deref(), *diff),
            What::Schema { name } => schema(name.as_deref()),
            What::Facts { path } => facts(path.as_deref()),
            What::Reference => print(&rule::reference(&session.policy()?.pack)),
        }
    }
}

fn print(text: &str) -> Result<ExitCode, Failure> {
    output::to_stdout(|out| out.write_all(text.as_bytes()))?;
    Ok(ExitCode::Go)
}
