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

use super::{Hosts, RecoveryResult, VmLocation, driver as process, journal::Journal, recover::finish_run};

/// Identity of this process, as the ledger records drivers.
pub fn current_driver() -> Driver {
    process::this_process()
}

/// Finishes a move of a change that another runner began. If it began nothing, the result is the VM's location.
pub fn take_over(
    ledger: &Ledger,
    change: Digest,
    vm: &str,
    hosts: &Hosts,
    timeout: Duration,
) -> Result<RecoveryResult, LedgerError> {
    let open = ledger.open_runs()?;
    if let Some(open) = open.iter().find(|open| is_of(&open.run, change, vm, hosts)) {
        let journal = Journal { ledger, run: &open.run, by_recovery: true };
        return Ok(match (open.run.from.parse(), open.run.to.parse()) {
            (Ok(from), Ok(to)) => finish_run(&journal, open, &Hosts::new(from, to, timeout)),
            _ => RecoveryResult::UnusableUris("the host URIs in the ledger cannot be parsed".to_owned()),
        });
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
    let begun = ledger.records(&Selection { kinds: vec![EntryKind::RunStarted], ..Selection::default() })?;
    Ok(begun
        .iter()
        .any(|record| matches!(&record.entry, Entry::RunStarted(run) if is_of(run, change, vm, hosts))))
}

fn is_of(run: &RunStarted, change: Digest, vm: &str, hosts: &Hosts) -> bool {
    run.change_digest == Some(change) && run.from == hosts.source.uri().to_string() && run.vm.is(vm)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use vmgate_judge::change::MovePlan;
    use vmgate_ledger::test_ledger::TestLedger;
    use vmgate_verdict::NameAndUuid;

    use super::*;

    /// A host of libvirt's test driver that runs these VMs.
    fn host(folder: &Path, name: &str, vms: &[&str]) -> String {
        let domain = |vm: &&str| {
            format!(
                "<domain type='test'><name>{vm}</name><memory>1024</memory><os><type>hvm</type></os></domain>"
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
        let hosts = Hosts::new(from.parse().unwrap(), to.parse().unwrap(), timeout);
        let (ledger, change) = (TestLedger::in_file().ledger(), Digest::of(b"change"));
        let named = |name: &str| NameAndUuid { name: Some(name.to_owned()), uuid: None };
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
