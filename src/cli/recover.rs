//! `vmgate recover`: ends the moves that a crash left behind.

use clap::Args;

use super::{Failure, options::Shared, output, session::Session};
use crate::{
    execute::{Fate, Recovered, recover},
    ledger::Ledger,
    verdict::ExitCode,
};

#[derive(Debug, Args)]
pub(super) struct Recover {
    /// Also end moves that began on another machine: only when vmgate no longer runs there
    #[arg(long)]
    elsewhere: bool,
}

impl Recover {
    pub(super) fn run(&self, shared: &Shared) -> Result<ExitCode, Failure> {
        let session = Session::open(shared)?;
        let path = session.ledger_for_moves()?;
        if !path.exists() {
            output::to_stdout(|out| {
                writeln!(out, "nothing to recover: there is no ledger {}", path.display())
            })?;
            return Ok(ExitCode::Go);
        }
        let ledger = Ledger::open(&path).map_err(Failure::failed)?;
        let recovered = recover(&ledger, session.timeout(), self.elsewhere).map_err(Failure::failed)?;
        output::to_stdout(|out| {
            if recovered.is_empty() {
                writeln!(out, "nothing to recover: every move in the ledger has ended")?;
            }
            recovered.iter().try_for_each(|one| writeln!(out, "{}", words(one)))
        })?;
        Ok(ExitCode::worst(recovered.iter().map(|one| one.fate.exit())))
    }
}

fn words(one: &Recovered) -> String {
    let (vm, run) = (&one.vm, &one.run);
    match &one.fate {
        Fate::Driven(by) => format!("{vm}: left alone, run {run} is driven by {by}"),
        Fate::Ended { host, moved: true } => {
            format!(
                "{vm}: runs on {host}, where it was to go; what was prepared is undone (run {run} has ended)"
            )
        }
        Fate::Ended { host, moved: false } => {
            format!("{vm}: runs on {host}, where it was; what was prepared is undone (run {run} has ended)")
        }
        Fate::Isolated { host, cut_off } => format!(
            "{vm}: runs on {host}, where it was to go and does not work as before; {cut_off} (run {run} has ended)"
        ),
        Fate::NotRestored { host, left } => format!(
            "{vm}: runs on {host}, but this could not be undone: {}. Do it by hand, or run `vmgate recover` again (run \
             {run} stays open)",
            left.join("; ")
        ),
        Fate::Stopped(seen) => {
            format!("{vm}: does not run: {seen}. Start it where it is defined, once (run {run} has ended)")
        }
        Fate::Unclear(seen) => format!(
            "{vm}: somebody must look: {seen}. Nothing was started or stopped; run `vmgate recover` again when both hosts \
             answer (run {run} stays open)"
        ),
        Fate::Unusable(why) => {
            format!("{vm}: the ledger's URIs cannot be used: {why} (run {run} stays open)")
        }
    }
}
