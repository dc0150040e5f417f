//! Model of the planner: hosts and VMs as amounts, groups and limits.

use std::fmt;

/// A host of a [`Fleet`], by its index in [`Fleet::hosts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub usize);

/// A VM of a [`Fleet`], by its index in [`Fleet::vms`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmId(pub usize);

/// A countable resource that VMs need and hosts have.
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

/// Hosts, VMs, and the groups and limits of their moves.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    /// The counted resources; amounts of hosts and VMs have this order.
    pub resources: Vec<Resource>,
    /// All hosts.
    pub hosts: Vec<FleetHost>,
    /// All VMs that may have to move, and the other members of their groups.
    pub vms: Vec<FleetVm>,
    /// Groups of VMs.
    pub affinities: Vec<AffinityGroup>,
    /// Migration networks.
    pub networks: Vec<FleetNetwork>,
    /// Limits on simultaneous moves.
    pub limits: Limits,
}

/// A host as the planner sees it.
#[derive(Debug, Clone)]
pub struct FleetHost {
    /// Its name.
    pub name: String,
    /// Rack or other fault domain of the host.
    pub rack: String,
    /// Reason why the host takes no VMs: not reached, or in maintenance; none where it does.
    pub closed: Option<String>,
    /// Free amount of each resource of the fleet.
    pub free: Vec<u64>,
    /// Bandwidth of its migration link.
    pub bandwidth_bytes_per_second: u64,
    /// Indices in [`Fleet::networks`] of its migration networks; empty if the host reaches every host.
    pub networks: Vec<usize>,
}

/// A network as the planner sees it.
#[derive(Debug, Clone)]
pub struct FleetNetwork {
    /// Its name.
    pub name: String,
    /// Bandwidth that all moves over the network may use together; `None` for no limit.
    pub bandwidth_bytes_per_second: Option<u64>,
}

/// Route of a migration between two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MigrationRoute {
    /// No network with a counted bandwidth.
    Direct,
    /// This network, by its index in [`Fleet::networks`].
    Over(usize),
}

/// A VM as the planner sees it.
#[derive(Debug, Clone)]
pub struct FleetVm {
    /// Its name.
    pub name: String,
    /// Host that the VM runs on.
    pub host: HostId,
    /// Needed amount of each resource of the fleet; 0 if the VM does not need the resource.
    pub needs: Vec<u64>,
    /// Memory that a migration sends at least once.
    pub memory_bytes: u64,
    /// Dirty rate.
    pub dirty_bytes_per_second: u64,
}

/// Affinity of a group: its VMs belong together or apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AffinityRule {
    /// All VMs in one scope.
    Together,
    /// No two VMs in one scope (anti-affinity).
    Apart,
}

/// Scope of an affinity rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupScope {
    /// A host.
    Host,
    /// A rack.
    Rack,
}

/// A group of VMs that belong together or apart. For a cluster, whose members must not pause at the same time, the group
/// also forbids simultaneous moves.
#[derive(Debug, Clone)]
pub struct AffinityGroup {
    /// Name of the group in messages.
    pub name: String,
    /// Affinity rule with its scope; `None` for a cluster that only limits simultaneous moves.
    pub rule: Option<(AffinityRule, GroupScope)>,
    /// Its members.
    pub vms: Vec<VmId>,
    /// True if no two members may migrate at the same time.
    pub one_at_a_time: bool,
}

/// Limits on simultaneous moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most simultaneous migrations out of one host.
    pub outgoing_per_host: usize,
    /// Most simultaneous migrations into one host.
    pub incoming_per_host: usize,
    /// Most simultaneous migrations of the whole campaign.
    pub total: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { outgoing_per_host: 1, incoming_per_host: 1, total: usize::MAX }
    }
}

impl Fleet {
    /// The host with this id. Ids are only made by the fleet's owner, for existing hosts.
    pub(super) fn host(&self, id: HostId) -> Option<&FleetHost> {
        self.hosts.get(id.0)
    }

    /// The VM with this id.
    pub(super) fn vm(&self, id: VmId) -> Option<&FleetVm> {
        self.vms.get(id.0)
    }

    /// Route from one host to another; `None` if they share no network.
    pub(super) fn route(&self, source: HostId, destination: HostId) -> Option<MigrationRoute> {
        let (source, destination) = (self.host(source)?, self.host(destination)?);
        if source.networks.is_empty() || destination.networks.is_empty() {
            return Some(MigrationRoute::Direct);
        }
        let shared = source.networks.iter().find(|network| destination.networks.contains(network));
        shared.map(|network| MigrationRoute::Over(*network))
    }

    /// Bandwidth share of one migration from `source` to `destination` while all slots of both hosts are in use, bytes per
    /// second.
    pub fn share_bytes_per_second(&self, source: HostId, destination: HostId) -> u64 {
        let part = |id: HostId, slots: usize| {
            self.host(id).map_or(0, |host| host.bandwidth_bytes_per_second / slots.max(1) as u64)
        };
        let ends =
            part(source, self.limits.outgoing_per_host).min(part(destination, self.limits.incoming_per_host));
        match self.route(source, destination) {
            Some(MigrationRoute::Over(network)) => {
                self.capacity(network).map_or(ends, |capacity| ends.min(capacity))
            }
            _ => ends,
        }
    }

    /// Bandwidth of a network; `None` if unlimited.
    pub(super) fn capacity(&self, network: usize) -> Option<u64> {
        self.networks.get(network)?.bandwidth_bytes_per_second
    }
}

/// Amounts in the order of `resources`, from pairs; for tests and for code that builds a fleet.
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
