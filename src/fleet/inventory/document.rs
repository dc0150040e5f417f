//! The inventory as people write it. Its JSON Schema comes from these types.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::change::Versions;

/// Hosts of a site, and what must hold between the VMs on them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "`schema` is read to be checked: an unknown version must not load")]
pub(super) struct InventoryDocument {
    /// Names this format.
    pub(super) schema: InventorySchema,
    /// Networks that migrations go over.
    #[serde(default)]
    pub(super) networks: Vec<NetworkDocument>,
    /// Sets of hosts that stand in for each other.
    #[serde(default)]
    pub(super) pools: Vec<PoolDocument>,
    /// The hosts.
    pub(super) hosts: Vec<HostDocument>,
    /// VMs that belong together or apart, and clusters of which one member moves at a time.
    #[serde(default)]
    pub(super) groups: Vec<GroupDocument>,
    /// How many moves may run at once.
    #[serde(default)]
    pub(super) limits: LimitsDocument,
    /// What hosts have after their maintenance: VMs are brought back when they do.
    #[serde(default)]
    pub(super) after_maintenance: Versions,
}

/// The names of the inventory format that this version reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(super) enum InventorySchema {
    /// The first format.
    #[serde(rename = "vmgate/inventory/v1")]
    V1,
}

/// A network that migrations go over.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NetworkDocument {
    /// Its name.
    #[schemars(example = &"migration-a")]
    pub(super) name: String,
    /// What all moves over it may use together; no limit where it is left out.
    #[schemars(example = 5_000_000_000_u64)]
    pub(super) bandwidth_bytes_per_second: Option<u64>,
}

/// Hosts that stand in for each other.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PoolDocument {
    /// Its name, for `--into`.
    #[schemars(example = &"compute")]
    pub(super) name: String,
    /// How many vCPUs a host of it may carry for each of its CPUs; no limit where it is left out.
    #[schemars(example = 4.0)]
    pub(super) vcpus_per_cpu: Option<f64>,
    /// Memory of each host that a plan leaves free; 0 where it is left out.
    #[schemars(example = 8_589_934_592_u64)]
    pub(super) reserve_bytes: Option<u64>,
}

/// A hypervisor host.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HostDocument {
    /// What people call it.
    #[schemars(example = &"hv1")]
    pub(super) name: String,
    /// libvirt's URI of it.
    #[schemars(example = &"qemu+ssh://root@hv1/system")]
    pub(super) uri: String,
    /// The rack or other fault domain that it stands in; its own where it is left out.
    #[schemars(example = &"r1")]
    pub(super) rack: Option<String>,
    /// The pool that it belongs to; none where it is left out.
    #[schemars(example = &"compute")]
    pub(super) pool: Option<String>,
    /// Networks that its migrations may go over; VMs move only between hosts that share one. Any where it is left out.
    #[schemars(example = ["migration-a"])]
    #[serde(default)]
    pub(super) networks: Vec<String>,
    /// Address that migrations to it go to; as libvirt would choose where it is left out.
    #[schemars(example = &"10.77.1.1")]
    pub(super) migrate_address: Option<IpAddr>,
    /// What its migration link carries; the speed of the interface with that address where it is left out.
    #[schemars(example = 1_250_000_000_u64)]
    pub(super) bandwidth_bytes_per_second: Option<u64>,
    /// Why it is not to be given VMs; it may be where it is left out.
    pub(super) maintenance: Option<String>,
}

/// VMs that belong together or apart.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupDocument {
    /// Its name, for messages.
    #[schemars(example = &"galera-shop")]
    pub(super) name: String,
    /// Names or UUIDs of the VMs.
    #[schemars(example = ["db1", "db2", "db3"])]
    pub(super) vms: Vec<String>,
    /// No two of them in one of these.
    pub(super) apart: Option<ScopeDocument>,
    /// All of them in one of these.
    pub(super) together: Option<ScopeDocument>,
    /// Whether they are members of one cluster (corosync, etcd, galera …): never two of them move at once.
    #[serde(default)]
    pub(super) one_at_a_time: bool,
}

/// What counts as one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ScopeDocument {
    /// A host.
    Host,
    /// A rack.
    Rack,
}

/// How many moves may run at once.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LimitsDocument {
    /// Out of one host; 1 where it is left out. They share its link.
    #[schemars(range(min = 1))]
    pub(super) outgoing_per_host: Option<u32>,
    /// Into one host; 1 where it is left out. They share its link.
    #[schemars(range(min = 1))]
    pub(super) incoming_per_host: Option<u32>,
    /// Altogether; no limit where it is left out.
    #[schemars(range(min = 1))]
    pub(super) total: Option<u32>,
}
