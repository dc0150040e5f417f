//! Twins whose process is gone: killed, or on a machine that went down.

use std::time::Duration;

use jiff::Timestamp;
use vmgate_facts::text::plain;
use vmgate_ledger::{Entry, entry::RehearsalStarted};
use vmgate_libvirt::{Hypervisor, LibvirtError};

use super::{HostConnection, Hosts, NotRehearsed, Twin};
use crate::driver::{self, DriverState};

/// Age from which a twin counts as left behind though its process cannot be looked for from here: no rehearsal takes as long.
const FORGOTTEN: Duration = Duration::from_mins(10);

/// Twins that were removed from a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClearedTwins {
    /// Name of the host.
    pub host: String,
    /// Names of their domains, each with who made it and when.
    pub twins: Vec<String>,
}

/// Removes twins that were left behind on a host. `elsewhere` includes those whose process ran on another machine, where it
/// cannot be looked for.
pub fn clear_twins(host: &HostConnection, elsewhere: bool) -> Result<ClearedTwins, LibvirtError> {
    Ok(ClearedTwins { host: host.name().to_owned(), twins: clear_host(host, elsewhere)? })
}

/// Entry of the ledger before a rehearsal starts: a recovery then knows which hosts to ask. There is none for hosts that cannot
/// be reached, where nothing can be left behind.
pub fn rehearsal_started(vm: &str, hosts: &Hosts, by: &str) -> Result<Entry, NotRehearsed> {
    hosts.connect();
    hosts.source.hypervisor()?;
    hosts.destination.hypervisor()?;
    let driver = driver::this_process();
    Ok(Entry::RehearsalStarted(RehearsalStarted {
        run: format!("rehearsal-{}-{}", Timestamp::now(), driver.pid),
        name: vm.to_owned(),
        from: hosts.source.uri().to_string(),
        to: hosts.destination.uri().to_string(),
        by: by.to_owned(),
        driver,
    }))
}

pub(super) fn clear_host(host: &HostConnection, elsewhere: bool) -> Result<Vec<String>, LibvirtError> {
    let mut cleared = Vec::new();
    for twin in host.ask(Twin::all_on)?.iter().filter(|twin| is_left_behind(twin, elsewhere)) {
        if host.ask(|hypervisor: &Hypervisor| twin.remove(hypervisor))? {
            let (name, note) = (twin.name(), twin.note());
            tracing::warn!(
                "{}: {name}, the empty copy of a VM for a rehearsal, was left behind and is removed",
                host.name()
            );
            cleared.push(format!("{name}, made by {} at {}", plain(&note.by), note.at));
        }
    }
    Ok(cleared)
}

fn is_left_behind(twin: &Twin, elsewhere: bool) -> bool {
    let note = twin.note();
    match driver::driver_state(&note.driver) {
        DriverState::Gone => true,
        DriverState::Alive => false,
        DriverState::Elsewhere => {
            let age: Duration = Timestamp::now().duration_since(note.at).try_into().unwrap_or_default();
            elsewhere || age > FORGOTTEN
        }
    }
}
