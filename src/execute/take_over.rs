//! Another runner's move: what it began is ended, whether its process is gone or only stands still.
//!
//! That runner was expelled from the ledger before, so that it takes no further step. What it may still have at the
//! hypervisor is one migration job, which libvirt runs one of for a domain: it is ended here before anything else is done.

use std::time::Duration;

use super::{Fate, Hosts, Whereabouts, driver as process, journal::Journal, recover::bring_to_an_end};
use crate::{
    ledger::{Ledger, LedgerError, entry::Driver},
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
    let is_it = |run: &crate::ledger::entry::RunStarted| {
        run.change_digest == Some(change)
            && run.from == hosts.source.uri().to_string()
            && [&run.vm.name, &run.vm.uuid].into_iter().flatten().any(|name| name == vm)
    };
    let open = ledger.open_runs()?;
    if let Some(open) = open.iter().find(|open| is_it(&open.run)) {
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
