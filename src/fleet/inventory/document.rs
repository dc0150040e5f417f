//! The inventory file as people write it. Its JSON Schema is generated from these types.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Deserialize;
use vmgate_judge::change::Versions;

/// Hosts of a site, and the groups of VMs on them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "`schema` is read to be checked: an unknown version must not load")]
pub(super) struct InventoryDocument {
    /// Id of this format.
    pub(super) schema: InventorySchema,
    /// Migration networks.
    #[serde(default)]
    pub(super) networks: Vec<NetworkDocument>,
    /// Sets of hosts that can replace each other.
    #[serde(default)]
    pub(super) pools: Vec<PoolDocument>,
    /// The hosts.
    pub(super) hosts: Vec<HostDocument>,
    /// VMs that belong together or apart, and clusters of which one member moves at a time.
    #[serde(default)]
    pub(super) groups: Vec<GroupDocument>,
    /// Limits on simultaneous moves.
    #[serde(default)]
    pub(super) limits: LimitsDocument,
    /// Versions that hosts have after their maintenance: VMs are moved back when their host has these.
    #[serde(default)]
    pub(super) after_maintenance: Versions,
}

vmgate_facts::schema_id!(pub(super) InventorySchema = "vmgate/inventory/v1");

/// A migration network.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NetworkDocument {
    /// Name of the network.
    #[schemars(example = &"migration-a")]
    pub(super) name: String,
    /// Bandwidth that all moves over the network may use together; no limit if left out.
    #[schemars(example = 5_000_000_000_u64)]
    pub(super) bandwidth_bytes_per_second: Option<u64>,
}

/// Hosts that can replace each other.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PoolDocument {
    /// Name of the pool, for `--into`.
    #[schemars(example = &"compute")]
    pub(super) name: String,
    /// Most vCPUs per CPU of a host; no limit if left out.
    #[schemars(example = 4.0)]
    pub(super) vcpus_per_cpu: Option<f64>,
    /// Memory of each host that a plan leaves free; 0 if left out.
    #[schemars(example = 8_589_934_592_u64)]
    pub(super) reserve_bytes: Option<u64>,
}

/// A hypervisor host.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HostDocument {
    /// Name of the host.
    #[schemars(example = &"hv1")]
    pub(super) name: String,
    /// libvirt URI of the host, or `ssh://USER@HOST` where it has no libvirt (Proxmox VE, Ganeti).
    #[schemars(example = &"qemu+ssh://root@hv1/system")]
    pub(super) uri: String,
    /// Rack or other fault domain of the host; one of its own if left out.
    #[schemars(example = &"r1")]
    pub(super) rack: Option<String>,
    /// Pool of the host; none if left out.
    #[schemars(example = &"compute")]
    pub(super) pool: Option<String>,
    /// Networks that its migrations may go over; VMs move only between hosts that share one. Any where it is left out.
    #[schemars(example = vec!["migration-a"])]
    #[serde(default)]
    pub(super) networks: Vec<String>,
    /// Address that migrations to the host use; libvirt's choice if left out.
    #[schemars(example = &"10.77.1.1")]
    pub(super) migrate_address: Option<IpAddr>,
    /// Bandwidth of its migration link; the speed of the interface with that address if left out.
    #[schemars(example = 1_250_000_000_u64)]
    pub(super) bandwidth_bytes_per_second: Option<u64>,
    /// Reason why the host must not get VMs; the host may get VMs if left out.
    pub(super) maintenance: Option<String>,
}

/// VMs that belong together or apart.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupDocument {
    /// Name of the group, for messages.
    #[schemars(example = &"galera-shop")]
    pub(super) name: String,
    /// Names or UUIDs of the VMs.
    #[schemars(example = vec!["db1", "db2", "db3"])]
    pub(super) vms: Vec<String>,
    /// Scope in which no two of the VMs may be together.
    pub(super) apart: Option<ScopeDocument>,
    /// Scope in which all of the VMs must be together.
    pub(super) together: Option<ScopeDocument>,
    /// True for members of one cluster (corosync, etcd, galera …): no two of them move at the same time.
    #[serde(default)]
    pub(super) one_at_a_time: bool,
}

/// Scope of a group: one host or one rack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ScopeDocument {
    /// A host.
    Host,
    /// A rack.
    Rack,
}

/// Limits on simultaneous moves.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LimitsDocument {
    /// Most simultaneous moves out of one host; 1 if left out. The moves share the host's link.
    #[schemars(range(min = 1))]
    pub(super) outgoing_per_host: Option<u32>,
    /// Most simultaneous moves into one host; 1 if left out. The moves share the host's link.
    #[schemars(range(min = 1))]
    pub(super) incoming_per_host: Option<u32>,
    /// Most simultaneous moves in total; no limit if left out.
    #[schemars(range(min = 1))]
    pub(super) total: Option<u32>,
}
