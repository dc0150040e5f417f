//! What a network interface is made of beyond its name and speed: duplex, bond, and what holds back its traffic.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether a link sends and receives at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Duplex {
    /// It does.
    Full,
    /// It does not: collisions, and a tenth of the speed.
    Half,
}

/// A bond, as /proc/net/bonding shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Bond {
    /// Its mode, in the kernel's words.
    #[schemars(example = &"fault-tolerance (active-backup)")]
    pub mode: String,
    /// The port that carries the traffic; absent where all of them do, or none.
    #[schemars(example = &"eth2")]
    pub active: Option<String>,
    /// Its ports.
    pub ports: Vec<BondPort>,
}

/// One port of a bond.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct BondPort {
    /// The interface's name.
    #[schemars(example = &"eth2")]
    pub name: String,
    /// Whether the bond holds its link for up.
    #[schemars(example = true)]
    pub up: bool,
    /// How often its link was lost.
    #[schemars(example = 0)]
    pub link_failures: u64,
}

/// Something in the kernel that holds traffic back to a rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Shaper {
    /// The interface that it is on.
    #[schemars(example = &"mig0")]
    pub nic: String,
    /// What it is.
    #[schemars(example = &"tbf")]
    pub kind: ShaperKind,
    /// The rate that migration traffic gets at the most.
    #[schemars(example = 62_500_000_u64)]
    pub rate_bytes_per_second: u64,
    /// Whether the traffic of others has to share that rate: then it does not keep a migration from starving them.
    #[schemars(example = false)]
    pub shared: bool,
}

/// Kinds of shaper, by their names in tc(8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ShaperKind {
    /// A token bucket for all that the interface sends.
    Tbf,
    /// The class of a hierarchy of token buckets that the migration's packets fall into.
    Htb,
    /// A limit on each flow (`fq maxrate`).
    Fq,
    /// CAKE, for all that the interface sends.
    Cake,
    /// A policer on all that the interface receives: it drops what is too much.
    Police,
}
