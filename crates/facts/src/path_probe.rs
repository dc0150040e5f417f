//! Active measurements of the migration path: goodput, and the reachability of the migration ports.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Fact;

/// Goodput of one bounded TCP stream from the source's migration address to the destination's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Goodput {
    /// Mean rate of the stream without its first tenth of a second.
    #[schemars(example = 117_000_000_u64)]
    pub mean_bytes_per_second: u64,
    /// 5th percentile of the rate in tenths of a second.
    #[schemars(example = 109_000_000_u64)]
    pub p5_bytes_per_second: u64,
    /// 95th percentile of the rate in tenths of a second.
    #[schemars(example = 118_000_000_u64)]
    pub p95_bytes_per_second: u64,
    /// Duration of the stream.
    #[schemars(example = 2.0)]
    pub window_seconds: f64,
    /// Payload that arrived.
    #[schemars(example = 234_000_000_u64)]
    pub carried_bytes: u64,
    /// Rate that the stream was not allowed to exceed.
    #[schemars(example = 625_000_000_u64)]
    pub cap_bytes_per_second: u64,
    /// True if that cap or a busy host limited the stream, and not the path: then the mean is a lower bound of what the
    /// path carries.
    #[schemars(example = false)]
    pub held_at_cap: bool,
}

/// Ports that libvirt gives to incoming migrations at the destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct MigrationPorts {
    /// First of the range (migration_port_min in qemu.conf; 49152).
    #[schemars(example = 49152)]
    pub first: u16,
    /// Last of the range (migration_port_max; 49215).
    #[schemars(example = 49215)]
    pub last: u16,
    /// Number of ports in the range that are not in use now.
    #[schemars(example = 64)]
    pub free: Fact<u32>,
    /// True if the source can reach these ports.
    #[schemars(example = true)]
    pub reachable: Fact<bool>,
    /// Evidence for reachability.
    #[schemars(example = &"tried")]
    pub basis: PortsBasis,
    /// Result of the test in words.
    #[schemars(example = &"10.77.1.2:49215 was reached")]
    pub detail: String,
}

/// Evidence that ports are reachable or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PortsBasis {
    /// Connection attempt from the source to a port on which the probe listened.
    Tried,
    /// Firewall rules of both hosts. A firewall between the hosts is not seen.
    Rules,
}
