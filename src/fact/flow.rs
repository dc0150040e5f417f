//! UDP flows of a guest, as counted on the host's side of its interfaces.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Fact, UdpService};

/// What was seen on the VM's interfaces over a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UdpCapture {
    /// The host's interfaces that were watched, separated by commas.
    #[schemars(example = &"vnet3")]
    pub interface: String,
    /// How long they were watched.
    #[schemars(example = 10.0)]
    pub window_seconds: f64,
    /// Who counted.
    #[schemars(example = &"kernel-counted")]
    pub method: CaptureMethod,
    /// Ethernet frames of whatever protocol that crossed the interfaces. None at all: is this where its traffic goes?
    #[schemars(example = 48_211)]
    pub frames: Fact<u64>,
    /// Packets that were lost to the capture.
    #[schemars(example = 0)]
    pub drops: u64,
    /// Nothing was missed: a flow that is not in the list did not exist in the window.
    #[schemars(example = true)]
    pub complete: bool,
    /// What was missed, in words; empty where it is complete.
    #[schemars(example = &["vnet3: 17 packets were dropped by the capture"])]
    pub holes: Vec<String>,
    /// The flows, the busiest first.
    pub flows: Vec<UdpFlow>,
}

/// One UDP flow between the guest and somebody else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UdpFlow {
    /// Address and port at the guest; for what is sent to a group or broadcast, that address.
    #[schemars(example = &"10.0.0.5:514")]
    pub local: String,
    /// Address and port of the peer.
    #[schemars(example = &"10.0.0.9:40112")]
    pub remote: String,
    /// Who sends.
    #[schemars(example = &"to-guest")]
    pub direction: FlowDirection,
    /// IP packets a second over the window, both directions; every fragment is one.
    #[schemars(example = 125.0)]
    pub packets_per_second: f64,
    /// Bytes of IP packets a second over the window, both directions.
    #[schemars(example = 23_750.0)]
    pub bytes_per_second: f64,
    /// IP packets in the window, both directions; every fragment is one.
    #[schemars(example = 1250)]
    pub packets: u64,
    /// Bytes of IP packets in the window, both directions.
    #[schemars(example = 237_500)]
    pub bytes: u64,
    /// The multicast group that datagrams are sent to; absent for unicast and broadcast.
    #[schemars(example = &"239.192.0.1")]
    pub multicast_group: Option<String>,
    /// VLAN id of the outer tag; absent where the guest sends and receives untagged.
    #[schemars(example = 7)]
    pub vlan: Option<u16>,
    /// VLAN id of the second tag (802.1ad); absent where there is none.
    #[schemars(example = 20)]
    pub inner_vlan: Option<u16>,
    /// The service, by the catalogue's ports; absent where the catalogue does not know it.
    pub service: Fact<Option<UdpService>>,
}

/// A multicast group that the guest has joined (/proc/net/igmp, igmp6).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MulticastGroup {
    /// The group.
    #[schemars(example = &"239.192.0.1")]
    pub address: String,
    /// The guest's interface.
    #[schemars(example = &"eth0")]
    pub interface: String,
    /// Whether it stays on the link (224.0.0.0/24, ff02::/16): switches deliver such groups to everybody.
    #[schemars(example = false)]
    pub link_local: bool,
}

/// Who sends in a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FlowDirection {
    /// Only the guest.
    FromGuest,
    /// Only the peer.
    ToGuest,
    /// Both.
    Both,
}

/// Who counted the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CaptureMethod {
    /// The kernel, for every packet.
    KernelCounted,
    /// vmgate, from the headers of packets that it captured; busy interfaces may lose some.
    Captured,
}
