//! `vmgate recover`: finishes the moves that a crash left behind.

use std::{
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use vmgate_execute::{ClearedTwins, HostConnection, PermitDesk as _, RecoveredRun, clear_twins, recover};
use vmgate_facts::Uri;
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
    /// Source of that VM's move, as it was given to `vmgate migrate`
    #[arg(long, value_name = "HOST", requires = "vm")]
    from: Option<String>,
    /// Destination of that VM's move, as it was given
    #[arg(long, value_name = "HOST", requires = "vm")]
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
        let mut twins = TwinHosts::new(session.timeout(), self.elsewhere);
        if let Some((from, to)) = orders.named_hosts() {
            twins.clear(from, to);
        }
        if matches!(&place, LedgerUrl::File(path) if !path.exists()) {
            return twins.report(|out| writeln!(out, "nothing to recover: there is no ledger {place}"));
        }
        let ledger = session.open_ledger(place)?;
        let recovered =
            recover(&ledger, session.timeout(), self.elsewhere, &|run| orders.of(run), &|order| {
                session.door_of(order)
            });
        let recovered = recovered.map_err(Failure::failed)?;
        for one in recovered.iter().filter(|one| !one.result.has_moved()) {
            // What the run sent to the destination would let the VM in later, on a verdict that nobody looks at then.
            if let Some(order) = &one.order {
                DestinationPermits::of(&order.to, &session)?.withdraw_all(&order.vm);
            }
        }
        for begun in ledger.rehearsals_begun(Timestamp::now() - TWIN_AGE).map_err(Failure::failed)? {
            if let (Ok(from), Ok(to)) = (orders.recorded(&begun.from), orders.recorded(&begun.to)) {
                twins.clear(&from, &to);
            }
        }
        let cleared = twins.report(|out| {
            if recovered.is_empty() {
                writeln!(out, "nothing to recover: every move in the ledger has ended")?;
            }
            recovered.iter().try_for_each(|one| writeln!(out, "{}", output::in_columns("", &words(one))))
        })?;
        Ok(ExitCode::worst(recovered.iter().map(|one| one.result.exit()).chain([cleared])))
    }
}

fn words(one: &RecoveredRun) -> String {
    let stands = if one.result.is_end() { "has ended" } else { "stays open" };
    format!("{}: {} (run {} {stands})", one.vm, one.result, one.run)
}

/// Time for which hosts are asked for a twin after its rehearsal began.
const TWIN_AGE: SignedDuration = SignedDuration::from_hours(24 * 7);

/// Hosts that were asked for twins that a rehearsal left behind, each once.
struct TwinHosts {
    timeout: Duration,
    elsewhere: bool,
    asked: Vec<Uri>,
    removed: Vec<String>,
    silent: Vec<String>,
}

impl TwinHosts {
    fn new(timeout: Duration, elsewhere: bool) -> Self {
        Self { timeout, elsewhere, asked: Vec::new(), removed: Vec::new(), silent: Vec::new() }
    }

    fn clear(&mut self, from: &Uri, to: &Uri) {
        for uri in [from, to] {
            // A rehearsal is of libvirt's VMs.
            if self.asked.contains(uri) || !uri.names_libvirt() {
                continue;
            }
            self.asked.push(uri.clone());
            match clear_twins(&HostConnection::new(uri.clone(), self.timeout), self.elsewhere) {
                Ok(ClearedTwins { host, twins }) => {
                    self.removed.extend(twins.iter().map(|twin| {
                        format!("{host}: removed {twin}, the empty copy of a VM for a rehearsal")
                    }));
                }
                Err(error) => self.silent.push(format!("the empty copy of a VM may be left behind: {error}")),
            }
        }
    }

    /// Prints what was removed, and then the rest.
    fn report(&self, rest: impl Fn(&mut dyn Write) -> io::Result<()>) -> Result<ExitCode, Failure> {
        output::to_stdout(|out| {
            let lines = self.removed.iter().chain(&self.silent);
            lines.map(|line| output::in_columns("", line)).try_for_each(|line| writeln!(out, "{line}"))?;
            rest(out)
        })?;
        Ok(if self.silent.is_empty() { ExitCode::Go } else { ExitCode::OperatorNeeded })
    }
}
