//! Link properties of a network interface: duplex, bond, and traffic shapers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Duplex mode of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Duplex {
    /// Sends and receives at the same time.
    Full,
    /// Sends or receives, not both at the same time: collisions, and a fraction of the speed.
    Half,
}

/// Bond, as /proc/net/bonding shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Bond {
    /// Mode of the bond, in the kernel's words.
    #[schemars(example = &"fault-tolerance (active-backup)")]
    pub mode: String,
    /// Port that carries the traffic; absent where all ports carry traffic, or none.
    #[schemars(example = &"eth2")]
    pub active: Option<String>,
    /// Ports of the bond.
    pub ports: Vec<BondPort>,
}

/// One port of a bond.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct BondPort {
    /// The interface's name.
    #[schemars(example = &"eth2")]
    pub name: String,
    /// True if the bond considers the port's link up.
    #[schemars(example = true)]
    pub up: bool,
    /// Number of times that the port lost its link.
    #[schemars(example = 0)]
    pub link_failures: u64,
}

/// Traffic shaper or policer of the kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Shaper {
    /// Interface that the shaper is configured on.
    #[schemars(example = &"mig0")]
    pub nic: String,
    /// Kind of the shaper.
    #[schemars(example = &"tbf")]
    pub kind: ShaperKind,
    /// Maximum rate for migration traffic.
    #[schemars(example = 62_500_000_u64)]
    pub rate_bytes_per_second: u64,
    /// True if other traffic shares that rate: then the shaper does not keep the migration from starving other traffic.
    #[schemars(example = false)]
    pub shared: bool,
}

/// Kinds of shaper, named as in tc(8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ShaperKind {
    /// Token bucket filter for all traffic that the interface sends.
    Tbf,
    /// Class of a hierarchical token bucket that the migration's packets fall into.
    Htb,
    /// Limit on each flow (`fq maxrate`).
    Fq,
    /// CAKE, for all traffic that the interface sends.
    Cake,
    /// Policer for all traffic that the interface receives: packets above the rate are dropped.
    Police,
}
