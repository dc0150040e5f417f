//! Takes over the move of another runner and finishes it, whether that runner's process is gone or only hangs.
//!
//! The other runner was expelled from the ledger before, so that it takes no further step. It may still have one migration
//! job at the hypervisor (libvirt runs one for a domain): that job is ended here before anything else is done.

use std::time::Duration;

use vmgate_attest::Digest;
use vmgate_ledger::{
    Entry, Ledger, LedgerError, Selection,
    entry::{Driver, EntryKind, RunStarted},
};

use super::{
    Hosts, RecoveryResult, RunOrder, VmLocation, driver as process,
    recover::{DoorOf, finish_run},
};

/// Identity of this process, as the ledger records drivers.
pub fn current_driver() -> Driver {
    process::this_process()
}

/// Finishes a move of a change that another runner began, with the plan and the hosts of this runner's own change file. If
/// nothing was begun, the result is the VM's location.
pub fn take_over(
    ledger: &Ledger,
    change: Digest,
    order: &RunOrder,
    timeout: Duration,
    door_of: DoorOf,
) -> Result<RecoveryResult, LedgerError> {
    let (vm, hosts) = (order.vm.as_str(), &order.hosts(timeout));
    let open = ledger.open_runs()?;
    if let Some(open) = open.iter().find(|open| is_of(&open.run, change, vm, hosts)) {
        return Ok(finish_run(ledger, open, order, hosts, door_of));
    }
    let seen = VmLocation::settle(vm, hosts);
    let ended =
        |line: &super::HostConnection, moved| RecoveryResult::Ended { host: line.name().to_owned(), moved };
    Ok(if seen.only_on_destination() {
        ended(&hosts.destination, true)
    } else if seen.only_on_source() {
        ended(&hosts.source, false)
    } else {
        RecoveryResult::Unclear(seen)
    })
}

/// True if a VM that was left on its source has moved since: an expelled runner that hung just before libvirt's migrate
/// call may still make that call when it continues.
pub fn has_moved(ledger: &Ledger, change: Digest, vm: &str, hosts: &Hosts) -> Result<bool, LedgerError> {
    if !VmLocation::look(vm, hosts).only_on_destination() {
        return Ok(false);
    }
    let Some(uuid) = hosts.destination.vm(vm).ok().and_then(|vm| vm.name_and_uuid().1) else {
        return Ok(false);
    };
    let (kinds, of_vm) = (vec![EntryKind::RunStarted], Some(uuid.to_string()));
    let begun = ledger.records(&Selection { kinds, vm: of_vm, ..Selection::default() })?;
    Ok(begun
        .iter()
        .any(|record| matches!(&record.entry, Entry::RunStarted(run) if is_of(run, change, vm, hosts))))
}

fn is_of(run: &RunStarted, change: Digest, vm: &str, hosts: &Hosts) -> bool {
    // The other runner's own configuration may reach the same host by another URI.
    let is_source = || {
        run.from == hosts.source.uri().to_string()
            || run.source.uuid.as_ref().is_some_and(|uuid| hosts.source.uuid().is_ok_and(|own| own == *uuid))
    };
    run.change_digest == Some(change) && is_source() && run.is_of(vm)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use vmgate_judge::change::MovePlan;
    use vmgate_ledger::test_ledger::TestLedger;
    use vmgate_verdict::NameAndUuid;

    use super::*;

    const UUID: &str = "11111111-2222-3333-4444-555555555555";

    /// A host of libvirt's test driver that runs these VMs.
    fn host(folder: &Path, name: &str, vms: &[&str]) -> String {
        let domain = |vm: &&str| {
            format!(
                "<domain type='test'><name>{vm}</name><uuid>{UUID}</uuid><memory>1024</memory><os><type>hvm</type></os></domain>"
            )
        };
        let file = folder.join(name);
        fs::write(&file, format!("<node>{}</node>", vms.iter().map(domain).collect::<String>())).unwrap();
        format!("test://{}", file.display())
    }

    fn has_moved_between(source: &[&str], destination: &[&str], begun: bool) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (host(folder.path(), "from", source), host(folder.path(), "to", destination));
        let timeout = Duration::from_secs(10);
        let uri = |text: &str| vmgate_facts::Uri::from_operator(text).unwrap();
        let hosts = Hosts::new(uri(&from), uri(&to), timeout);
        let (ledger, change) = (TestLedger::in_file().ledger(), Digest::of(b"change"));
        let named =
            |name: &str| NameAndUuid { name: Some(name.to_owned()), uuid: Some(UUID.parse().unwrap()) };
        let run = RunStarted {
            run: "r1".to_owned(),
            vm: named("web"),
            source: named("from"),
            destination: named("to"),
            from,
            to,
            change: None,
            change_digest: Some(if begun { change } else { Digest::of(b"another") }),
            plan: MovePlan::default(),
            driver: current_driver(),
            monitor: None,
            trial: false,
        };
        ledger.append(&Entry::RunStarted(run)).unwrap();
        has_moved(&ledger, change, "web", &hosts).unwrap()
    }

    #[test]
    fn a_vm_at_its_destination_was_moved_only_by_a_run_of_the_change_and_only_if_it_is_nowhere_else() {
        assert!(has_moved_between(&["other"], &["web"], true));
        assert!(!has_moved_between(&["other"], &["web"], false), "somebody else's VM of that name");
        assert!(!has_moved_between(&["web"], &["web"], true), "it runs twice");
        assert!(!has_moved_between(&["web"], &["other"], true));
    }
}
