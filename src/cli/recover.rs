//! `vmgate recover`: finishes the moves that a crash left behind.

use clap::Args;
use vmgate_execute::{RecoveredRun, recover};
use vmgate_ledger::LedgerUrl;
use vmgate_verdict::ExitCode;

use super::{Failure, options::GlobalOptions, output, session::Session};

#[derive(Debug, Args)]
pub(super) struct Recover {
    /// Also finish moves that began on another machine: only if vmgate no longer runs there
    #[arg(long)]
    elsewhere: bool,
}

impl Recover {
    pub(super) fn run(&self, shared: &GlobalOptions) -> Result<ExitCode, Failure> {
        let session = Session::open(shared)?;
        let place = session.ledger_for_moves()?;
        if matches!(&place, LedgerUrl::File(path) if !path.exists()) {
            output::to_stdout(|out| writeln!(out, "nothing to recover: there is no ledger {place}"))?;
            return Ok(ExitCode::Go);
        }
        let ledger = session.open_ledger(place)?;
        let recovered = recover(&ledger, session.timeout(), self.elsewhere).map_err(Failure::failed)?;
        output::to_stdout(|out| {
            if recovered.is_empty() {
                writeln!(out, "nothing to recover: every move in the ledger has ended")?;
            }
            recovered.iter().try_for_each(|one| writeln!(out, "{}", words(one)))
        })?;
        Ok(ExitCode::worst(recovered.iter().map(|one| one.result.exit())))
    }
}

fn words(one: &RecoveredRun) -> String {
    let stands = if one.result.is_end() { "has ended" } else { "stays open" };
    format!("{}: {} (run {} {stands})", one.vm, one.result, one.run)
}
