//! What a host's bridges do with the guests' traffic beyond forwarding it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A software bridge of a host (/sys/class/net/NAME/bridge).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bridge {
    /// Its name.
    #[schemars(example = &"br0")]
    pub name: String,
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

/// A rule of a host's packet filter that heeds or changes the state of connections, where bridged traffic passes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
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
