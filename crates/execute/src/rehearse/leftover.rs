//! Twins whose process is gone: killed, or on a machine that went down.

use std::time::Duration;

use jiff::Timestamp;
use vmgate_facts::text::plain;
use vmgate_libvirt::{Hypervisor, LibvirtError};

use super::{HostConnection, Twin};
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

/// Removes twins that were left behind on a host.
pub fn clear_twins(host: &HostConnection) -> Result<ClearedTwins, LibvirtError> {
    Ok(ClearedTwins { host: host.name().to_owned(), twins: clear_host(host)? })
}

pub(super) fn clear_host(host: &HostConnection) -> Result<Vec<String>, LibvirtError> {
    let mut cleared = Vec::new();
    for twin in host.ask(Twin::all_on)?.iter().filter(|twin| is_left_behind(twin)) {
        if host.ask(|hypervisor: &Hypervisor| twin.remove(hypervisor))? {
            let (name, note) = (twin.name(), twin.note());
            tracing::warn!("{}: the twin {name} was left behind and is removed", host.name());
            cleared.push(format!("{name}, made by {} at {}", plain(&note.by), note.at));
        }
    }
    Ok(cleared)
}

fn is_left_behind(twin: &Twin) -> bool {
    let note = twin.note();
    match driver::driver_state(&note.driver) {
        DriverState::Gone => true,
        DriverState::Alive => false,
        DriverState::Elsewhere => {
            let age: Duration = Timestamp::now().duration_since(note.at).try_into().unwrap_or_default();
            age > FORGOTTEN
        }
    }
}
