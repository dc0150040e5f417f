//! `vmgate rehearse`: moves an empty copy of a VM there and back, and records the result in the ledger.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use clap::Args;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use vmgate_collect::CollectRequest;
use vmgate_execute::{HostConnection, HostFiles, Hosts, NotRehearsed, RehearsalOrder, rehearsal_started};
use vmgate_facts::{Fact, Facts, Rehearsal, text::ShownCommand};
use vmgate_ledger::{
    Entry,
    entry::{HypervisorPair, Rehearsal as Recorded},
};
use vmgate_libvirt::LibvirtErrorKind;
use vmgate_probe::host::HostQuestions;
use vmgate_verdict::{ExitCode, NameAndUuid};

use super::{Failure, collect, hook, options::GlobalOptions, output, session::Session};

/// Longest wait for a file of a host.
const FILE_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct Rehearse {
    /// Name or UUID of the VM. Nothing of it is touched: an empty copy, with its machine type, CPU and devices, is started
    /// paused at the source, moved to the destination and back, and removed
    vm: String,
    /// Source: a name of vmgate.yaml or the inventory, hv1, root@hv1 or a libvirt URI [default: the host of the site that runs
    /// the VM, which is found out]
    #[arg(long, value_name = "HOST")]
    from: Option<String>,
    /// Destination, in the same ways
    #[arg(long, value_name = "HOST")]
    to: String,
    /// Address at the destination for the migration traffic [default: as vmgate.yaml or the inventory says, else libvirt's choice]
    #[arg(long, value_name = "ADDRESS")]
    migrate_address: Option<IpAddr>,
}

impl Rehearse {
    pub(super) fn run(&self, shared: &GlobalOptions) -> Result<ExitCode, Failure> {
        let session = Session::open(shared)?;
        super::migrate::moved_by_libvirt(&self.vm, &session.policy()?.catalogues)?;
        let to = session.host_named(&self.to)?;
        let from = match &self.from {
            Some(from) => session.host_named(from)?,
            None => session.source_of(&self.vm)?,
        };
        let address = match self.migrate_address {
            Some(address) => Some(address),
            None => session.migrate_address(&to)?,
        };
        let hosts = session.hosts(&from, &to);
        let ledger = session.open_ledger(session.ledger_for_moves()?)?;
        let started =
            rehearsal_started(&self.vm, &hosts, &hook::operator()).map_err(|error| failure(&error))?;
        ledger.append(&started).map_err(Failure::failed)?;
        let rehearsed = order(&hosts, &self.vm, address, &session)?;
        let rehearsed = rehearsed.map_err(|error| failure(&error))?;
        ledger.append(&entry(&self.vm, &rehearsed)).map_err(Failure::failed)?;
        output::to_stdout(|out| {
            let lines = lines(&self.vm, &hosts, &rehearsed);
            lines.iter().try_for_each(|line| writeln!(out, "{}", output::in_columns("", line)))
        })?;
        Ok(if rehearsed.failure.is_none() { ExitCode::Go } else { ExitCode::RuleViolated })
    }
}

/// Rehearses a move that is checked, and adds the result to its facts and to the ledger, if one is named. Why nothing could be
/// rehearsed is a fact too.
pub(super) fn add(request: &CollectRequest, session: &Session, facts: &mut Facts) -> Result<(), Failure> {
    let hosts = session.hosts(&request.from, collect::destination(request)?);
    let address = request.migrate_address.as_ref().and_then(|address| address.parse().ok());
    let ledger = session.ledger()?;
    if let Some(ledger) = &ledger {
        match rehearsal_started(&request.vm, &hosts, &hook::operator()) {
            Ok(started) => ledger.append(&started).map_err(Failure::failed)?,
            Err(why) => {
                facts.rehearsal = Fact::Unknown(why.into());
                return Ok(());
            }
        };
    }
    match order(&hosts, &request.vm, address, session)? {
        Ok(rehearsed) => {
            if let Some(ledger) = &ledger {
                ledger.append(&entry(&request.vm, &rehearsed)).map_err(Failure::failed)?;
            }
            rehearsed.add_to(facts);
        }
        Err(why @ NotRehearsed::NotRemoved { .. }) => return Err(failure(&why)),
        Err(why) => facts.rehearsal = Fact::Unknown(why.into()),
    }
    Ok(())
}

/// Rehearses the move of a VM. Ctrl-C ends it, and the twin is removed.
fn order(
    hosts: &Hosts,
    vm: &str,
    migrate_address: Option<IpAddr>,
    session: &Session,
) -> Result<Result<Rehearsal, NotRehearsed>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(|error| Failure::failed(format!("Ctrl-C could not be caught: {error}")))?;
    }
    let by = hook::operator();
    let order = RehearsalOrder { vm, migrate_address, by: &by, files: &Files(session) };
    Ok(hosts.rehearse(&order, &stop))
}

/// Entry of the ledger.
fn entry(name: &str, rehearsed: &Rehearsal) -> Entry {
    Entry::Rehearsal(Recorded {
        vm: NameAndUuid { name: Some(name.to_owned()), uuid: Some(rehearsed.vm.clone()) },
        pair: HypervisorPair {
            source_version: rehearsed.source_version,
            destination_version: rehearsed.destination_version,
            machine_type: rehearsed.machine_type.clone(),
        },
        there_and_back: rehearsed.failure.is_none() && rehearsed.return_failure.is_none(),
        passed: rehearsed.failure.is_none(),
        by: hook::operator(),
        note: None,
        twin: Some(rehearsed.clone()),
    })
}

/// Result for people.
fn lines(vm: &str, hosts: &Hosts, rehearsed: &Rehearsal) -> Vec<String> {
    let host = |host: &HostConnection, version| format!("{} (QEMU {version})", host.name());
    let from = host(&hosts.source, &rehearsed.source_version);
    let to = host(&hosts.destination, &rehearsed.destination_version);
    let seconds = rehearsed.total_seconds;
    let mut lines = Vec::new();
    match (&rehearsed.failure, &rehearsed.return_failure) {
        (Some(why), _) => {
            lines.push(format!("{vm}: its empty copy, booted on {from}, did not arrive at {to}: {why}"));
            lines.push(
                "a VM of this machine type and these devices that was booted on this source cannot make the move. One that came \
                 there by migration may be able to: its devices are as the QEMU set them up with which it was booted"
                    .to_owned(),
            );
        }
        (None, Some(why)) => {
            lines.push(format!("{vm}: its empty copy, booted on {from}, arrived at {to} in {seconds:.1} s"));
            lines.push(format!("the way back failed: {why}"));
        }
        (None, None) => {
            lines.push(format!(
                "{vm}: its empty copy, booted on {from}, moved to {to} and back in {seconds:.1} s"
            ));
        }
    }
    if !rehearsed.not_rehearsed.is_empty() {
        lines.push(format!("not rehearsed: {}", rehearsed.not_rehearsed.join(", ")));
    }
    lines
}

fn failure(error: &NotRehearsed) -> Failure {
    match error {
        NotRehearsed::Host(host) if matches!(host.kind, LibvirtErrorKind::NoSuchVm(_)) => {
            Failure::usage(error)
        }
        NotRehearsed::NotRemoved { .. } => {
            Failure { exit: ExitCode::OperatorNeeded, text: error.to_string() }
        }
        _ => Failure::failed(error),
    }
}

/// Files of hosts, read through a shell and by the probe there.
struct Files<'a>(&'a Session<'a>);

impl HostFiles for Files<'_> {
    fn log(&self, host: &HostConnection, domain: &str) -> Option<String> {
        let file = format!("/var/log/libvirt/qemu/{domain}.log");
        let script = ShownCommand::new("tail -c 32768").value(&file);
        let shell = self.0.shell(host.uri()).ok()?;
        let text = shell.read(&script.to_string(), FILE_LIMIT).ok()?;
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    fn build(&self, host: &HostConnection, program: &str) -> Option<String> {
        let way = self.0.way(host.uri()).ok()?;
        let questions = HostQuestions { programs: vec![program.to_owned()], ..HostQuestions::default() };
        let answer = way.probe_host(&questions, FILE_LIMIT).ok()?;
        answer.probe.program_builds.known()?.iter().map(|build| build.build.clone()).next()
    }
}
