//! Bridges of a host, and the ways in which they treat guest traffic beyond forwarding: VLANs, multicast, stateful
//! filters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Fact;

/// A software bridge of a host: the kernel's (/sys/class/net/NAME/bridge) or one of Open vSwitch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Bridge {
    /// Name of the bridge.
    #[schemars(example = &"br0")]
    pub name: String,
    /// Implementation of the bridge.
    #[schemars(example = &"linux")]
    pub kind: BridgeKind,
    /// True if the bridge separates VLANs (vlan_filtering of a Linux bridge; Open vSwitch always does).
    #[schemars(example = false)]
    pub vlan_aware: bool,
    /// True if the bridge sends multicast only to ports that asked for it (IGMP and MLD snooping).
    #[schemars(example = true)]
    pub multicast_snooping: bool,
    /// True if the bridge sends IGMP and MLD queries itself (querier), so that a guest that has just arrived is asked
    /// for its groups.
    #[schemars(example = false)]
    pub multicast_querier: bool,
    /// Time between two general queries of the bridge's own querier.
    #[schemars(example = 125.0)]
    pub multicast_query_interval_seconds: f64,
    /// Spanning tree protocol of the bridge; `none` where it has none.
    #[schemars(example = &"none")]
    #[serde(default)]
    pub spanning_tree: Fact<SpanningTree>,
    /// Time for which the bridge lets a new port listen, and again lets it learn, before the port forwards.
    #[schemars(example = 15.0)]
    #[serde(default)]
    pub forward_delay_seconds: Fact<f64>,
    /// Party that decides where the bridge forwards to; `itself` for a bridge that learns from the packets it sees.
    #[schemars(example = &"itself")]
    #[serde(default)]
    pub controlled_by: Fact<BridgeController>,
    /// VLAN of a port that names none, on a bridge that separates VLANs; absent where it does not, or has none.
    #[schemars(example = 1)]
    #[serde(default)]
    pub default_vlan: Option<u32>,
    /// Ports that lead out of the host: all but guests' taps.
    #[serde(default)]
    pub uplinks: Fact<Vec<Uplink>>,
}

/// Port of a bridge that leads out of the host: a network card, a bond, a VLAN, a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Uplink {
    /// Name of the interface.
    #[schemars(example = &"eth1")]
    pub name: String,
    /// True if the bridge forwards over it now; false where a spanning tree blocks it, or it is down.
    #[schemars(example = true)]
    pub forwards: bool,
    /// VLANs that it carries, on a bridge that separates VLANs; absent on others.
    #[schemars(example = vec![1, 42])]
    pub vlans: Option<Vec<u32>>,
    /// VLAN id of the tag that it adds, where it is an interface of one VLAN (eth1.42).
    #[schemars(example = 42)]
    #[serde(default)]
    pub tag: Option<u32>,
    /// Switch ports at the other end of its cables, as far as the host has heard of them by LLDP.
    #[serde(default)]
    pub switch_ports: Vec<SwitchPort>,
}

/// Port of a switch that said by LLDP (IEEE 802.1AB) what it is, to lldpd or systemd-networkd of the host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SwitchPort {
    /// Network card of the host that its cable leads to.
    #[schemars(example = &"eth1")]
    pub nic: String,
    /// Name of the switch, else its chassis.
    #[schemars(example = &"sw2")]
    pub switch: String,
    /// Name of the port.
    #[schemars(example = &"Ethernet1/7")]
    pub port: String,
    /// VLANs that the switch names for the port; many switches name none.
    #[schemars(example = vec![1, 42])]
    pub vlans: Vec<u32>,
}

/// Spanning tree protocols of a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SpanningTree {
    /// None: a new port forwards at once.
    None,
    /// STP (IEEE 802.1D): a new port listens and learns, for the forward delay each.
    Stp,
    /// RSTP (IEEE 802.1D-2004), or the protocol of a program outside the kernel such as mstpd: a new port forwards at once
    /// if it counts as an edge, else as late as with STP.
    Rstp,
}

/// Parties that decide where a bridge forwards to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BridgeController {
    /// The bridge learns by itself.
    Itself,
    /// A control plane that tells the bridge's overlay ports what is behind them (EVPN): a port with tunnels does not
    /// learn, or answers for neighbours.
    Evpn,
    /// The bridge learns by itself, and a tunnel floods to an address of its own host: announcements come back to the bridge,
    /// which learns the guest at the tunnel.
    Echo,
    /// OVN, by the flows of its controller.
    Ovn,
    /// Another controller of Open vSwitch (OpenFlow), or none that answers (fail mode secure).
    Openflow,
}

/// Kinds of bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BridgeKind {
    /// Bridge of the Linux kernel.
    Linux,
    /// Bridge of Open vSwitch.
    OpenVswitch,
}

/// Chain of a host's packet filter (nftables) that bridged traffic passes and that matches or changes connection
/// tracking state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct StatefulFilter {
    /// Family of the table, as nft names them: bridge, inet, ip or ip6.
    #[schemars(example = &"bridge")]
    pub family: String,
    /// Name of the table.
    #[schemars(example = &"filter")]
    pub table: String,
    /// Name of the chain.
    #[schemars(example = &"FORWARD")]
    pub chain: String,
    /// Number of rules in the chain that match or change connection tracking state.
    #[schemars(example = 2)]
    pub rules: u64,
}
