//! What was tried on the migration path, where the user allowed it, and what the firewall's rules said where not.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Fact;

/// What one bounded TCP stream from the source's migration address to the destination's carried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Goodput {
    /// Mean over the stream without its first tenth of a second.
    #[schemars(example = 117_000_000_u64)]
    pub mean_bytes_per_second: u64,
    /// What 5 % of the tenths of a second were below.
    #[schemars(example = 109_000_000_u64)]
    pub p5_bytes_per_second: u64,
    /// What 5 % of the tenths of a second were above.
    #[schemars(example = 118_000_000_u64)]
    pub p95_bytes_per_second: u64,
    /// How long it was sent.
    #[schemars(example = 2.0)]
    pub window_seconds: f64,
    /// Payload that arrived.
    #[schemars(example = 234_000_000_u64)]
    pub carried_bytes: u64,
    /// The rate that it was not allowed to exceed.
    #[schemars(example = 625_000_000_u64)]
    pub cap_bytes_per_second: u64,
    /// Whether that rate, or a host that is too busy, held it back and not the path: then the path carries at least the
    /// mean, and nobody knows how much more.
    #[schemars(example = false)]
    pub held_at_cap: bool,
}

/// The ports that libvirt gives to incoming migrations at the destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct MigrationPorts {
    /// First of the range (migration_port_min in qemu.conf; 49152).
    #[schemars(example = 49152)]
    pub first: u16,
    /// Last of the range (migration_port_max; 49215).
    #[schemars(example = 49215)]
    pub last: u16,
    /// Ports of the range that nothing uses now.
    #[schemars(example = 64)]
    pub free: Fact<u32>,
    /// Whether the source reaches them.
    #[schemars(example = true)]
    pub reachable: Fact<bool>,
    /// How that is known.
    #[schemars(example = &"tried")]
    pub basis: PortsBasis,
    /// What happened, in words.
    #[schemars(example = &"10.77.1.2:49215 was reached")]
    pub detail: String,
}

/// How it is known whether ports are reachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PortsBasis {
    /// The source connected to one on which the probe listened.
    Tried,
    /// The firewall at the destination has no rule that could stop it. A firewall on the way would not be seen.
    Rules,
}
