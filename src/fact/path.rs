//! The migration path: what carries the VM's memory from one host to the other.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Fact, NicKind};

/// The way that migration traffic takes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Path {
    /// Address at the destination that QEMU connects to.
    #[schemars(example = &"10.77.1.2")]
    pub destination_address: Fact<String>,
    /// How the memory travels.
    #[schemars(example = &"tcp")]
    pub transport: Fact<MigrationTransport>,
    /// The interface at the source that the route to that address leaves by.
    pub source_nic: Fact<PathNic>,
    /// The interface at the destination that holds that address.
    pub destination_nic: Fact<PathNic>,
    /// What the path can carry at most: the slower end's nominal speed, or a lower limit set for this change.
    #[schemars(example = 1_250_000_000_u64)]
    pub bandwidth_bytes_per_second: Fact<u64>,
    /// What one TCP stream was measured to carry, payload only.
    #[schemars(example = 1_180_000_000_u64)]
    pub goodput_bytes_per_second: Fact<u64>,
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

/// One end of the migration path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
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
}
