//! The migration path: addresses, interfaces, routes, bandwidth and transport between source and destination.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Certificate, Fact, Goodput, GuestNetwork, MigrationPorts, Names, NetworkRehearsal, NicKind, Shaper,
};

/// Network path of the migration traffic.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct MigrationPath {
    /// Address at the destination that QEMU connects to.
    #[schemars(example = &"10.77.1.2", extend("x-names" = Names::FREE))]
    pub destination_address: Fact<String>,
    /// Address at the source that QEMU's packets to the destination carry.
    #[schemars(example = &"10.77.1.1", extend("x-names" = Names::FREE))]
    pub source_address: Fact<String>,
    /// Transport of the VM's memory.
    #[schemars(example = &"tcp")]
    pub transport: Fact<MigrationTransport>,
    /// Interface at the source from which the route to destination_address leaves.
    pub source_nic: Fact<PathNic>,
    /// Interface at the destination that holds destination_address.
    pub destination_nic: Fact<PathNic>,
    /// Route from the source to the destination's address, as the source's kernel selects it, policy rules included.
    pub route_there: Fact<PathRoute>,
    /// Route from the destination to the source's address, for the acknowledgements.
    pub route_back: Fact<PathRoute>,
    /// Maximum bandwidth of the path: the nominal speed of the slower end, or a lower limit of the change, of libvirt
    /// or of a shaper.
    #[schemars(example = 1_250_000_000_u64)]
    pub bandwidth_bytes_per_second: Fact<u64>,
    /// Lowest configured rate limit for the migration: of the change, of libvirt or of a shaper; absent where nothing
    /// limits the rate.
    #[schemars(example = 62_500_000_u64)]
    pub limit_bytes_per_second: Fact<Option<u64>>,
    /// Limit that libvirt keeps for this VM's migrations (virDomainMigrateGetMaxSpeed); absent for none.
    #[schemars(example = 62_500_000_u64)]
    pub libvirt_limit_bytes_per_second: Fact<Option<u64>>,
    /// Largest packet that was proven to pass unfragmented in both directions.
    #[schemars(example = 9000)]
    pub mtu_bytes: Fact<u32>,
    /// Ports at the destination that receive migrations.
    pub ports: Fact<MigrationPorts>,
    /// Addresses of the destination's host name, as the source resolves it; empty where it does not.
    #[schemars(example = vec!["10.77.1.2"])]
    pub destination_name_addresses: Fact<Vec<String>>,
    /// Addresses of the source's host name, as the destination resolves it; empty where it does not.
    #[schemars(example = vec!["10.77.1.1"])]
    pub source_name_addresses: Fact<Vec<String>>,
    /// X.509 certificates of libvirt and QEMU at both hosts; empty where they have none.
    pub certificates: Fact<Vec<Certificate>>,
    /// Round-trip time of one byte over TCP between the migration addresses (median).
    #[schemars(example = 0.0002)]
    pub rtt_seconds: Fact<f64>,
    /// Measured goodput of one TCP stream, payload only; a lower bound if the measurement reached its rate cap.
    #[schemars(example = 1_180_000_000_u64)]
    pub goodput_bytes_per_second: Fact<u64>,
    /// Measurement of the goodput, with its spread.
    pub goodput: Fact<Goodput>,
    /// The guest's own network during the move.
    pub guest_network: Fact<GuestNetwork>,
    /// Rehearsals of the switchover on the network of the VM's interfaces; unknown where none was asked for.
    pub network_rehearsals: Fact<Vec<NetworkRehearsal>>,
}

/// Transport of the VM's memory from QEMU to QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MigrationTransport {
    /// Plain TCP between the two QEMUs.
    Tcp,
    /// TLS between the two QEMUs.
    Tls,
    /// Through libvirt's own connection (tunnelled).
    Tunnelled,
}

/// Role of a host in the move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HostRole {
    /// Host that the VM runs on.
    Source,
    /// Host that the VM is to move to.
    Destination,
}

/// Route to an address, as the kernel selects it (`ip route get`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PathRoute {
    /// Outgoing interface.
    #[schemars(example = &"eth1")]
    pub nic: String,
    /// Next hop; absent where the address is on the link.
    #[schemars(example = &"10.77.1.254")]
    pub gateway: Option<String>,
    /// Routing table that holds the route; 254 is the main table.
    #[schemars(example = 254)]
    pub table: u32,
}

/// Network interface at one end of the migration path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PathNic {
    /// Name of the interface.
    #[schemars(example = &"eth1")]
    pub name: String,
    /// Kind of the interface.
    #[schemars(example = &"physical")]
    pub kind: NicKind,
    /// True if the interface is up and has a carrier.
    #[schemars(example = true)]
    pub up: bool,
    /// Nominal speed of the link; absent where the driver reports none.
    #[schemars(example = 1_250_000_000_u64)]
    pub speed_bytes_per_second: Option<u64>,
    /// MTU of the interface.
    #[schemars(example = 9000)]
    pub mtu_bytes: u32,
    /// Guest bridge that shares this interface: the interface is that bridge or a part of it; absent where there is
    /// none.
    #[schemars(example = &"br0")]
    pub guest_bridge: Option<String>,
    /// True if a default route of the host leaves by this interface.
    #[schemars(example = false)]
    pub carries_default_route: bool,
    /// The interface and all devices below it that its packets pass, down to the physical one: bonds, VLANs and bridges
    /// are resolved; guests' taps are left out.
    #[serde(default)]
    #[schemars(example = vec!["eth1.110", "bond0", "eth2", "eth3"])]
    pub devices: Fact<Vec<String>>,
    /// Remote storage of the host that is reached over the same physical link.
    #[serde(default)]
    #[schemars(example = vec!["nfs 10.77.1.9:/images"])]
    pub storage: Fact<Vec<String>>,
    /// Traffic shapers on these devices that limit the migration.
    #[serde(default)]
    pub shapers: Fact<Vec<Shaper>>,
    /// Traffic on the physical link before the migration, in the busier direction.
    #[serde(default)]
    #[schemars(example = 4_000_000_u64)]
    pub used_bytes_per_second: Fact<u64>,
}
