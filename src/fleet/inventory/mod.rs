//! The inventory, `vmgate/inventory/v1`: hosts with racks, pools, networks and limits, and groups of VMs.

mod document;
mod draft;
mod load;
#[cfg(test)]
mod tests;

use std::{net::IpAddr, path::Path};

pub use draft::{FoundHost, draft};

use schemars::{Schema, schema_for};
use thiserror::Error;
use vmgate_documents::{Problems, SourceFile, closest};
use vmgate_facts::{HostUri, Uuid};
use vmgate_judge::change::Versions;

use super::{AffinityRule, GroupScope, Limits};

/// Largest inventory file in bytes: enough for tens of thousands of hosts.
const LIMIT: u64 = 16 << 20;

/// A valid inventory.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// The file it was read from.
    pub file: String,
    /// The hosts.
    pub hosts: Vec<InventoryHost>,
    /// Pools: sets of hosts that can replace each other.
    pub pools: Vec<Pool>,
    /// Migration networks.
    pub networks: Vec<Network>,
    /// Groups of VMs.
    pub groups: Vec<Group>,
    /// Limits on simultaneous moves.
    pub limits: Limits,
    /// True if the file itself limits the moves out of one host.
    pub limits_outgoing: bool,
    /// Hosts that a manager's own placement allows; no part of the file.
    pub bounds: Vec<VmBound>,
    /// Versions that hosts have after their maintenance.
    pub after_maintenance: Versions,
}

/// A hypervisor host.
#[derive(Debug, Clone)]
pub struct InventoryHost {
    /// Name of the host.
    pub name: String,
    /// URI of the host.
    pub uri: HostUri,
    /// Rack of the host; the host's own name if the file gives none.
    pub rack: String,
    /// Index in [`Inventory::pools`].
    pub pool: Option<usize>,
    /// Indices in [`Inventory::networks`]; empty if the host reaches every host.
    pub networks: Vec<usize>,
    /// Address that migrations to the host use.
    pub migrate_address: Option<IpAddr>,
    /// Bandwidth of its migration link, if the file gives one.
    pub bandwidth_bytes_per_second: Option<u64>,
    /// Reason why the host must not get VMs.
    pub maintenance: Option<String>,
}

/// Hosts that can replace each other.
#[derive(Debug, Clone)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Most vCPUs per CPU of a host.
    pub vcpus_per_cpu: Option<f64>,
    /// Memory of each host that a plan leaves free.
    pub reserve_bytes: u64,
}

/// A migration network.
#[derive(Debug, Clone)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Bandwidth that all moves over the network may use together.
    pub bandwidth_bytes_per_second: Option<u64>,
}

/// The only hosts that a manager takes for a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmBound {
    /// The VM.
    pub vm: Uuid,
    /// Indices in [`Inventory::hosts`].
    pub hosts: Vec<usize>,
    /// Reason of the manager against other hosts.
    pub because: String,
}

/// VMs that belong together or apart.
#[derive(Debug, Clone)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Names or UUIDs of the VMs.
    pub vms: Vec<String>,
    /// Affinity rule of the group, with its scope.
    pub rule: Option<(AffinityRule, GroupScope)>,
    /// True if only one member may move at a time.
    pub one_at_a_time: bool,
}

/// A name that is no host, pool or rack of the inventory.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{file} has no host, pool or rack `{name}`{}", .like.as_ref().map_or(String::new(), |like| format!("; did you mean `{like}`?")))]
pub struct NoSuchName {
    file: String,
    name: String,
    like: Option<String>,
}

impl Inventory {
    /// Reads an inventory file, or returns all its problems.
    pub fn read(path: &Path) -> Result<Self, Problems> {
        load::load(&SourceFile::read(path, LIMIT)?)
    }

    /// Parses an inventory from bytes. `name` is the file name for messages.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, Problems> {
        load::load(&SourceFile::bounded(name, bytes.to_vec(), LIMIT)?)
    }

    /// Indices of the hosts that are selected by host, pool or rack name, each once, in the inventory's order.
    pub fn select(&self, names: &[String]) -> Result<Vec<usize>, NoSuchName> {
        let mut wanted = vec![false; self.hosts.len()];
        for name in names {
            let pool = self.pools.iter().position(|pool| pool.name == *name);
            let mut found = false;
            for (host, wanted) in self.hosts.iter().zip(&mut wanted) {
                if host.name == *name || (pool.is_some() && host.pool == pool) || host.rack == *name {
                    (*wanted, found) = (true, true);
                }
            }
            if !found && pool.is_none() {
                return Err(self.no_such(name));
            }
        }
        Ok(wanted.iter().enumerate().filter(|(_, wanted)| **wanted).map(|(at, _)| at).collect())
    }

    fn no_such(&self, name: &str) -> NoSuchName {
        let hosts = self.hosts.iter().flat_map(|host| [host.name.as_str(), host.rack.as_str()]);
        let names = hosts.chain(self.pools.iter().map(|pool| pool.name.as_str()));
        NoSuchName {
            file: self.file.clone(),
            name: name.to_owned(),
            like: closest(name, names).map(str::to_owned),
        }
    }
}

/// The JSON Schema of an inventory.
pub fn schema() -> Schema {
    let mut schema = schema_for!(document::InventoryDocument);
    schema.insert("title".to_owned(), "vmgate inventory".into());
    schema
}
