//! What the planner sees of hosts and VMs: amounts, groups and limits, and nothing else.

use std::fmt;

/// A host of a [`Fleet`], by its place in [`Fleet::hosts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub usize);

/// A VM of a [`Fleet`], by its place in [`Fleet::vms`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmId(pub usize);

/// Something a VM takes and a host has so much of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// Memory in ordinary pages, bytes.
    Memory,
    /// Huge pages of one size on the whole host, bytes.
    HugePages {
        /// Size of a page.
        page_bytes: u64,
    },
    /// Huge pages of one size on one NUMA node, bytes: for a VM that is bound to that node.
    NodeHugePages {
        /// Size of a page.
        page_bytes: u64,
        /// The node's number.
        node: u32,
    },
    /// Memory of one NUMA node, bytes: for a VM that is bound to that node.
    NodeMemory {
        /// The node's number.
        node: u32,
    },
    /// Virtual CPUs, with the overcommit that the site allows.
    Vcpus,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::HugePages { page_bytes } => write!(f, "huge pages of {} KiB", page_bytes >> 10),
            Self::NodeHugePages { page_bytes, node } => {
                write!(f, "huge pages of {} KiB on NUMA node {node}", page_bytes >> 10)
            }
            Self::NodeMemory { node } => write!(f, "memory on NUMA node {node}"),
            Self::Vcpus => f.write_str("vCPUs"),
        }
    }
}

/// Hosts, VMs, and what must hold between them.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    /// What is counted; amounts of hosts and VMs stand in this order.
    pub resources: Vec<Resource>,
    /// All hosts.
    pub hosts: Vec<FleetHost>,
    /// All VMs that may have to move, and those that count for a group.
    pub vms: Vec<FleetVm>,
    /// Groups of VMs.
    pub affinities: Vec<AffinityGroup>,
    /// Networks that migrations go over.
    pub networks: Vec<FleetNetwork>,
    /// How much may happen at once.
    pub limits: Limits,
}

/// A host as the planner sees it.
#[derive(Debug, Clone)]
pub struct FleetHost {
    /// Its name.
    pub name: String,
    /// The rack or other fault domain it stands in.
    pub rack: String,
    /// Whether it takes VMs at all: not in maintenance, reachable.
    pub accepts: bool,
    /// What is free of each resource of the fleet.
    pub free: Vec<u64>,
    /// What its migration link carries.
    pub bandwidth_bytes_per_second: u64,
    /// Places in [`Fleet::networks`] that its migrations may go over; empty where it reaches every host.
    pub networks: Vec<usize>,
}

/// A network as the planner sees it.
#[derive(Debug, Clone)]
pub struct FleetNetwork {
    /// Its name.
    pub name: String,
    /// What all moves over it may use together; none for no limit.
    pub bandwidth_bytes_per_second: Option<u64>,
}

/// The way between two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MigrationRoute {
    /// Over no network that is counted.
    Direct,
    /// Over this one of [`Fleet::networks`].
    Over(usize),
}

/// A VM as the planner sees it.
#[derive(Debug, Clone)]
pub struct FleetVm {
    /// Its name.
    pub name: String,
    /// Where it runs.
    pub host: HostId,
    /// What it takes of each resource of the fleet; 0 where it does not need it.
    pub needs: Vec<u64>,
    /// Memory that a migration sends at least once.
    pub memory_bytes: u64,
    /// How fast it dirties memory.
    pub dirty_bytes_per_second: u64,
}

/// Whether the VMs of a group belong on one place or on different ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AffinityRule {
    /// All on one.
    Together,
    /// No two on one.
    Apart,
}

/// What counts as one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupScope {
    /// A host.
    Host,
    /// A rack.
    Rack,
}

/// A group of VMs that belong together or apart; and, since members of a cluster must not stand still together,
/// whether two of them may move at once.
#[derive(Debug, Clone)]
pub struct AffinityGroup {
    /// What it is called in messages.
    pub name: String,
    /// Together, apart, or only a cluster of which one member moves at a time.
    pub rule: Option<(AffinityRule, GroupScope)>,
    /// Its members.
    pub vms: Vec<VmId>,
    /// Never two of them in migration at once.
    pub one_at_a_time: bool,
}

/// How much may happen at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Migrations out of one host.
    pub outgoing_per_host: usize,
    /// Migrations into one host.
    pub incoming_per_host: usize,
    /// Migrations of the whole campaign.
    pub total: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { outgoing_per_host: 1, incoming_per_host: 1, total: usize::MAX }
    }
}

impl Fleet {
    /// The host with this number. Ids are only made by the fleet's owner, for hosts that exist.
    pub(super) fn host(&self, id: HostId) -> Option<&FleetHost> {
        self.hosts.get(id.0)
    }

    /// The VM with this number.
    pub(super) fn vm(&self, id: VmId) -> Option<&FleetVm> {
        self.vms.get(id.0)
    }

    /// The way from one host to another; none where they share no network.
    pub(super) fn route(&self, source: HostId, destination: HostId) -> Option<MigrationRoute> {
        let (source, destination) = (self.host(source)?, self.host(destination)?);
        if source.networks.is_empty() || destination.networks.is_empty() {
            return Some(MigrationRoute::Direct);
        }
        let shared = source.networks.iter().find(|network| destination.networks.contains(network));
        shared.map(|network| MigrationRoute::Over(*network))
    }

    /// What one migration from `source` to `destination` gets of the links while all slots of both are in use, bytes per
    /// second.
    pub fn share_bytes_per_second(&self, source: HostId, destination: HostId) -> u64 {
        let part = |id: HostId, slots: usize| {
            self.host(id).map_or(0, |host| host.bandwidth_bytes_per_second / slots.max(1) as u64)
        };
        let ends =
            part(source, self.limits.outgoing_per_host).min(part(destination, self.limits.incoming_per_host));
        match self.route(source, destination) {
            Some(MigrationRoute::Over(network)) => self.capacity(network).map_or(ends, |capacity| ends.min(capacity)),
            _ => ends,
        }
    }

    /// What a network carries, where that is limited.
    pub(super) fn capacity(&self, network: usize) -> Option<u64> {
        self.networks.get(network)?.bandwidth_bytes_per_second
    }
}

/// What a VM needs of the resources in `resources`, from pairs; for tests and for those who build a fleet.
pub fn need(resources: &[Resource], of: &[(Resource, u64)]) -> Vec<u64> {
    resources
        .iter()
        .map(|wanted| of.iter().filter(|(have, _)| have == wanted).map(|(_, n)| n).sum())
        .collect()
}

/// An amount with its unit: 3.2 GiB, 2 vCPUs.
#[allow(clippy::cast_precision_loss)] // for reading
pub(super) fn amount_in_words(resource: &Resource, amount: u64) -> String {
    match resource {
        Resource::Vcpus => amount.to_string(),
        _ if amount >= 1 << 30 => format!("{:.1} GiB", amount as f64 / (1_u64 << 30) as f64),
        _ => format!("{:.0} MiB", (amount as f64 / (1_u64 << 20) as f64).ceil()),
    }
}
