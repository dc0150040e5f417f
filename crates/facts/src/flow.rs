//! UDP flows of a guest, as counted on the host's side of its interfaces.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Fact, UdpService};

/// UDP traffic of the VM's interfaces during one observation window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct UdpCapture {
    /// Host interfaces that were observed, separated by commas.
    #[schemars(example = &"vnet3")]
    pub interface: String,
    /// Length of the observation.
    #[schemars(example = 10.0)]
    pub window_seconds: f64,
    /// Method that counted the packets.
    #[schemars(example = &"kernel-counted")]
    pub method: CaptureMethod,
    /// Ethernet frames of any protocol that crossed the interfaces. Zero suggests that the VM's traffic takes another
    /// interface.
    #[schemars(example = 48_211)]
    pub frames: Fact<u64>,
    /// Packets that the capture lost.
    #[schemars(example = 0)]
    pub drops: u64,
    /// True if nothing was missed: a flow that is not in the list did not exist in the window.
    #[schemars(example = true)]
    pub complete: bool,
    /// Descriptions of what the capture missed; empty where it is complete.
    #[schemars(example = vec!["vnet3: 17 packets were lost to the capture"])]
    pub holes: Vec<String>,
    /// The flows, the busiest first.
    pub flows: Vec<UdpFlow>,
}

/// One UDP flow between the guest and a peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct UdpFlow {
    /// Address and port at the guest; for datagrams sent to a multicast group or to broadcast, that address.
    #[schemars(example = &"10.0.0.5:514")]
    pub local: String,
    /// Address and port of the peer.
    #[schemars(example = &"10.0.0.9:40112")]
    pub remote: String,
    /// Direction in which datagrams flow.
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
    /// Multicast group that the datagrams are sent to; absent for unicast and broadcast.
    #[schemars(example = &"239.192.0.1")]
    pub multicast_group: Option<String>,
    /// VLAN id of the outer tag; absent where the guest sends and receives untagged.
    #[schemars(example = 7)]
    pub vlan: Option<u16>,
    /// VLAN id of the second tag (802.1ad); absent where there is none.
    #[schemars(example = 20)]
    pub inner_vlan: Option<u16>,
    /// UDP service that the catalogue recognises by its ports; absent where the catalogue does not know the ports.
    pub service: Fact<Option<UdpService>>,
}

/// A multicast group that the guest has joined (/proc/net/igmp, igmp6).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct MulticastGroup {
    /// Address of the group.
    #[schemars(example = &"239.192.0.1")]
    pub address: String,
    /// Interface of the guest.
    #[schemars(example = &"eth0")]
    pub interface: String,
    /// True if the group stays on the link (224.0.0.0/24, ff02::/16): switches deliver such groups to all ports.
    #[schemars(example = false)]
    pub link_local: bool,
}

/// Direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FlowDirection {
    /// Only the guest sends.
    FromGuest,
    /// Only the peer sends.
    ToGuest,
    /// Both send.
    Both,
}

/// Method of a packet count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CaptureMethod {
    /// Counters in the kernel (BPF), for every packet.
    KernelCounted,
    /// Count by vmgate from captured packet headers; on busy interfaces some packets may be lost.
    Captured,
}
