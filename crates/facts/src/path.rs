//! The migration path: what carries the VM's memory from one host to the other.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Certificate, Fact, Goodput, MigrationPorts, NicKind, Shaper};

/// The way that migration traffic takes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Path {
    /// Address at the destination that QEMU connects to.
    #[schemars(example = &"10.77.1.2")]
    pub destination_address: Fact<String>,
    /// Address at the source that its packets to the destination carry.
    #[schemars(example = &"10.77.1.1")]
    pub source_address: Fact<String>,
    /// How the memory travels.
    #[schemars(example = &"tcp")]
    pub transport: Fact<MigrationTransport>,
    /// The interface at the source that the route to that address leaves by.
    pub source_nic: Fact<PathNic>,
    /// The interface at the destination that holds that address.
    pub destination_nic: Fact<PathNic>,
    /// The route from the source to the destination's address, as its kernel decides it, policy rules included.
    pub route_there: Fact<PathRoute>,
    /// The route from the destination to the source's address, by which acknowledgements go back.
    pub route_back: Fact<PathRoute>,
    /// What the path can carry at most: the slower end's nominal speed, or a lower limit of the change, of libvirt or of
    /// a shaper.
    #[schemars(example = 1_250_000_000_u64)]
    pub bandwidth_bytes_per_second: Fact<u64>,
    /// Rate that the migration cannot exceed: the least limit of the change, of libvirt and of shapers; absent where
    /// nothing limits it.
    #[schemars(example = 62_500_000_u64)]
    pub limit_bytes_per_second: Fact<Option<u64>>,
    /// The limit that libvirt keeps for this VM's migrations (virDomainMigrateGetMaxSpeed); absent for none.
    #[schemars(example = 62_500_000_u64)]
    pub libvirt_limit_bytes_per_second: Fact<Option<u64>>,
    /// Largest packet that was proven to pass unfragmented both ways.
    #[schemars(example = 9000)]
    pub mtu_bytes: Fact<u32>,
    /// The ports at the destination that take the migration.
    pub ports: Fact<MigrationPorts>,
    /// Addresses of the destination's host name, as the source resolves it; empty where it does not.
    #[schemars(example = vec!["10.77.1.2"])]
    pub destination_name_addresses: Fact<Vec<String>>,
    /// Addresses of the source's host name, as the destination resolves it; empty where it does not.
    #[schemars(example = vec!["10.77.1.1"])]
    pub source_name_addresses: Fact<Vec<String>>,
    /// X.509 certificates of libvirt and QEMU at both hosts; empty where they have none.
    pub certificates: Fact<Vec<Certificate>>,
    /// Round-trip time of one byte over TCP between the migration addresses: the median.
    #[schemars(example = 0.0002)]
    pub rtt_seconds: Fact<f64>,
    /// What one TCP stream was measured to carry, payload only; a lower bound where it was held at its cap.
    #[schemars(example = 1_180_000_000_u64)]
    pub goodput_bytes_per_second: Fact<u64>,
    /// The measurement behind it, with its spread.
    pub goodput: Fact<Goodput>,
}

/// How the memory travels from QEMU to QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MigrationTransport {
    /// Plain TCP between the two QEMUs.
    Tcp,
    /// TLS between the two QEMUs.
    Tls,
    /// Through libvirt's own connection.
    Tunnelled,
}

/// One of the two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The host that the VM runs on.
    Source,
    /// The host that it is to go to.
    Destination,
}

/// What the kernel answers when it is asked for the way to an address (`ip route get`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PathRoute {
    /// The interface that it leaves by.
    #[schemars(example = &"eth1")]
    pub nic: String,
    /// The next hop; absent where the address is on the link.
    #[schemars(example = &"10.77.1.254")]
    pub gateway: Option<String>,
    /// The routing table that decided it; 254 is the main one.
    #[schemars(example = 254)]
    pub table: u32,
}

/// One end of the migration path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PathNic {
    /// The interface's name.
    #[schemars(example = &"eth1")]
    pub name: String,
    /// What it is.
    #[schemars(example = &"physical")]
    pub kind: NicKind,
    /// Whether it is up and has a carrier.
    #[schemars(example = true)]
    pub up: bool,
    /// Nominal speed of the link; absent where the driver has none.
    #[schemars(example = 1_250_000_000_u64)]
    pub speed_bytes_per_second: Option<u64>,
    /// Largest packet it sends.
    #[schemars(example = 9000)]
    pub mtu_bytes: u32,
    /// The guest bridge that shares this interface: it is that bridge, or a part of it; absent where there is none.
    #[schemars(example = &"br0")]
    pub guest_bridge: Option<String>,
    /// Whether a default route of the host leaves by it.
    #[schemars(example = false)]
    pub carries_default_route: bool,
    /// The interface and everything below it that its packets go through, down to the wire, bonds, VLANs and bridges
    /// taken apart; guests' taps are left out.
    #[serde(default)]
    #[schemars(example = vec!["eth1.110", "bond0", "eth2", "eth3"])]
    pub devices: Fact<Vec<String>>,
    /// Remote storage of the host that is reached over the same wire.
    #[serde(default)]
    #[schemars(example = vec!["nfs 10.77.1.9:/images"])]
    pub storage: Fact<Vec<String>>,
    /// What holds migration traffic back there.
    #[serde(default)]
    pub shapers: Fact<Vec<Shaper>>,
    /// Traffic seen on its wire before the migration, in the busier direction.
    #[serde(default)]
    #[schemars(example = 4_000_000_u64)]
    pub used_bytes_per_second: Fact<u64>,
}
