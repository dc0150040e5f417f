//! The inventory, `vmgate/inventory/v1`: hosts with racks, pools, networks and limits, and groups of VMs.

mod document;
mod load;
#[cfg(test)]
mod tests;

use std::{net::IpAddr, path::Path};

use schemars::{Schema, schema_for};
use thiserror::Error;

use super::{GroupScope, Limits, AffinityRule};
use crate::{
    change::Versions,
    collect::Uri,
    document::{Problems, SourceFile, closest},
};

/// Largest inventory: that of tens of thousands of hosts is below it.
const LIMIT: u64 = 16 << 20;

/// An inventory that was read and found right.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// The file it was read from.
    pub file: String,
    /// The hosts.
    pub hosts: Vec<InventoryHost>,
    /// Sets of hosts.
    pub pools: Vec<Pool>,
    /// Networks that migrations go over.
    pub networks: Vec<Network>,
    /// Groups of VMs.
    pub groups: Vec<Group>,
    /// How many moves may run at once.
    pub limits: Limits,
    /// What hosts have after their maintenance.
    pub after_maintenance: Versions,
}

/// A hypervisor host.
#[derive(Debug, Clone)]
pub struct InventoryHost {
    /// What people call it.
    pub name: String,
    /// How libvirt reaches it.
    pub uri: Uri,
    /// The rack it stands in; its own name where the file names none.
    pub rack: String,
    /// Its place in [`Inventory::pools`].
    pub pool: Option<usize>,
    /// Places in [`Inventory::networks`]; empty where it reaches every host.
    pub networks: Vec<usize>,
    /// Address that migrations to it go to.
    pub migrate_address: Option<IpAddr>,
    /// What its migration link carries, where the file says so.
    pub bandwidth_bytes_per_second: Option<u64>,
    /// Why it is not to be given VMs.
    pub maintenance: Option<String>,
}

/// Hosts that stand in for each other.
#[derive(Debug, Clone)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// How many vCPUs a host may carry for each of its CPUs.
    pub vcpus_per_cpu: Option<f64>,
    /// Memory of each host that a plan leaves free.
    pub reserve_bytes: u64,
}

/// A network that migrations go over.
#[derive(Debug, Clone)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// What all moves over it may use together.
    pub bandwidth_bytes_per_second: Option<u64>,
}

/// VMs that belong together or apart.
#[derive(Debug, Clone)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Names or UUIDs.
    pub vms: Vec<String>,
    /// How they belong together.
    pub rule: Option<(AffinityRule, GroupScope)>,
    /// Whether one member moves at a time.
    pub one_at_a_time: bool,
}

/// A name that is in the inventory under no heading.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{file} has no host, pool or rack `{name}`{}", .like.as_ref().map_or(String::new(), |like| format!("; did you mean `{like}`?")))]
pub struct NoSuchName {
    file: String,
    name: String,
    like: Option<String>,
}

impl Inventory {
    /// Reads an inventory, or says everything that is wrong with it.
    pub fn read(path: &Path) -> Result<Self, Problems> {
        load::load(&SourceFile::read(path, LIMIT)?)
    }

    /// The same from text. `name` is the file for messages.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, Problems> {
        load::load(&SourceFile::bounded(name, bytes.to_vec(), LIMIT)?)
    }

    /// The hosts that are named by themselves, by their pool or by their rack, each once, in the inventory's order.
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
