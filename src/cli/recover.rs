//! `vmgate recover`: finishes the moves that a crash left behind.

use std::path::PathBuf;

use clap::Args;
use vmgate_execute::{PermitDesk as _, RecoveredRun, recover};
use vmgate_ledger::LedgerUrl;
use vmgate_verdict::ExitCode;

use super::{
    Failure, hook::DestinationPermits, options::GlobalOptions, orders::KnownOrders, output, session::Session,
};

#[derive(Debug, Args)]
pub(super) struct Recover {
    /// Name or UUID of the VM whose hosts are given by --from and --to
    #[arg(requires_all = ["from", "to"])]
    vm: Option<String>,
    /// libvirt URI of the source of that VM's move, as it was given to `vmgate migrate`
    #[arg(long, value_name = "URI", requires = "vm")]
    from: Option<String>,
    /// libvirt URI of the destination of that VM's move
    #[arg(long, value_name = "URI", requires = "vm")]
    to: Option<String>,
    /// Change file that was executed, unchanged; may be repeated. Only its commands are run, and only its hosts are asked:
    /// those in the ledger are not believed. Files in the folders under `changes` in vmgate.yaml are found without this
    #[arg(long, value_name = "FILE")]
    change: Vec<PathBuf>,
    /// Also finish moves that began on another machine: only if vmgate no longer runs there
    #[arg(long)]
    elsewhere: bool,
}

impl Recover {
    pub(super) fn run(&self, shared: &GlobalOptions) -> Result<ExitCode, Failure> {
        let session = Session::open(shared)?;
        let place = session.ledger_for_moves()?;
        let named = self.vm.as_deref().zip(self.from.as_deref()).zip(self.to.as_deref());
        let named = named.map(|((vm, from), to)| (vm, from, to));
        let orders = KnownOrders::read(&session, &self.change, named)?;
        if matches!(&place, LedgerUrl::File(path) if !path.exists()) {
            output::to_stdout(|out| writeln!(out, "nothing to recover: there is no ledger {place}"))?;
            return Ok(ExitCode::Go);
        }
        let ledger = session.open_ledger(place)?;
        let recovered = recover(&ledger, session.timeout(), self.elsewhere, &|run| orders.of(run));
        let recovered = recovered.map_err(Failure::failed)?;
        for one in recovered.iter().filter(|one| !one.result.has_moved()) {
            // What the run sent to the destination would let the VM in later, on a verdict that nobody looks at then.
            if let Some(order) = &one.order {
                DestinationPermits::of(&order.to, &session)?.withdraw_all(&order.vm);
            }
        }
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
