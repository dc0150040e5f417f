//! A host's bridges, and what they do with the guests' traffic beyond forwarding it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A software bridge of a host: the kernel's (/sys/class/net/NAME/bridge) or one of Open vSwitch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Bridge {
    /// Its name.
    #[schemars(example = &"br0")]
    pub name: String,
    /// Whose bridge it is.
    #[schemars(example = &"linux")]
    pub kind: BridgeKind,
    /// Whether it keeps VLANs apart (vlan_filtering of a Linux bridge; Open vSwitch always does).
    #[schemars(example = false)]
    pub vlan_aware: bool,
    /// Whether it sends multicast only to ports that asked for it (IGMP and MLD snooping).
    #[schemars(example = true)]
    pub multicast_snooping: bool,
    /// Whether it asks for members itself, so that a guest that has just arrived is asked too.
    #[schemars(example = false)]
    pub multicast_querier: bool,
    /// Time between two such queries.
    #[schemars(example = 125.0)]
    pub multicast_query_interval_seconds: f64,
}

/// Kinds of bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BridgeKind {
    /// The kernel's own.
    Linux,
    /// A bridge of Open vSwitch.
    OpenVswitch,
}

/// A rule of a host's packet filter that heeds or changes the state of connections, where bridged traffic passes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct StatefulFilter {
    /// Family of its table, as nft names them: bridge, inet, ip or ip6.
    #[schemars(example = &"bridge")]
    pub family: String,
    /// Its table.
    #[schemars(example = &"filter")]
    pub table: String,
    /// Its chain.
    #[schemars(example = &"FORWARD")]
    pub chain: String,
    /// Rules of the chain that do.
    #[schemars(example = 2)]
    pub rules: u64,
}
