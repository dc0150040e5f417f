//! Another runner's move: what it began is ended, whether its process is gone or only stands still.
//!
//! That runner was expelled from the ledger before, so that it takes no further step. What it may still have at the
//! hypervisor is one migration job, which libvirt runs one of for a domain: it is ended here before anything else is done.

use std::time::Duration;

use super::{Fate, Hosts, Whereabouts, driver as process, journal::Journal, recover::bring_to_an_end};
use crate::{
    ledger::{
        Entry, Ledger, LedgerError, Selection,
        entry::{Driver, Kind, RunStarted},
    },
    verdict::Digest,
};

/// The process that this is.
pub fn driver() -> Driver {
    process::myself()
}

/// Ends what another runner began of a move of a change. Where it began nothing, the hosts say where the VM is.
pub fn take_over(
    ledger: &Ledger,
    change: Digest,
    vm: &str,
    hosts: &Hosts,
    timeout: Duration,
) -> Result<Fate, LedgerError> {
    let open = ledger.open_runs()?;
    if let Some(open) = open.iter().find(|open| is_of(&open.run, change, vm, hosts)) {
        let journal = Journal { ledger, run: &open.run, recovers: true };
        return Ok(match (open.run.from.parse(), open.run.to.parse()) {
            (Ok(from), Ok(to)) => bring_to_an_end(&journal, open, &Hosts::new(from, to, timeout)),
            _ => Fate::Unusable("the URIs in the ledger cannot be read".to_owned()),
        });
    }
    let seen = Whereabouts::settle(vm, hosts);
    let ended = |line: &super::Line, moved| Fate::Ended { host: line.name().to_owned(), moved };
    Ok(if seen.only_on_destination() {
        ended(&hosts.destination, true)
    } else if seen.only_on_source() {
        ended(&hosts.source, false)
    } else {
        Fate::Unclear(seen)
    })
}

/// Whether a VM that was left where it was has moved since: a runner that was counted out while it stood still before
/// libvirt's call goes on with that call for a moment, which may be the last of it.
pub fn has_moved(ledger: &Ledger, change: Digest, vm: &str, hosts: &Hosts) -> Result<bool, LedgerError> {
    if !Whereabouts::look(vm, hosts).only_on_destination() {
        return Ok(false);
    }
    let begun = ledger.records(&Selection { kinds: vec![Kind::RunStarted], ..Selection::default() })?;
    Ok(begun
        .iter()
        .any(|record| matches!(&record.entry, Entry::RunStarted(run) if is_of(run, change, vm, hosts))))
}

fn is_of(run: &RunStarted, change: Digest, vm: &str, hosts: &Hosts) -> bool {
    run.change_digest == Some(change)
        && run.from == hosts.source.uri().to_string()
        && [&run.vm.name, &run.vm.uuid].into_iter().flatten().any(|name| name == vm)
}
