//! Evidence from the wire: what the packets at the VM's taps show of the guest, without its help.
//!
//! Headers only: nobody's payload is kept.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Cause, ControlSession, Fact};

/// Traffic of the VM's interfaces on the source host during one observation window.
///
/// A machine that sent nothing in the window for which others wait was not declared dead for it: whoever would notice a
/// shorter silence than the window had to hear from the guest, and is listed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Wire {
    /// Host interfaces that were observed, separated by commas.
    #[schemars(example = &"vnet3")]
    pub interface: String,
    /// Length of the observation.
    #[schemars(example = 10.0)]
    pub window_seconds: f64,
    /// Packets whose headers were read: the first ones of each second of each flow. The kernel counts the rest.
    #[schemars(example = 412)]
    pub packets_read: u64,
    /// True if nothing was missed: a connection or session that is not listed sent nothing in the window.
    #[schemars(example = true)]
    pub complete: bool,
    /// Descriptions of what was missed; empty where it is complete.
    #[schemars(example = vec!["vnet3: the VM has an interface that bypasses the host"])]
    pub holes: Vec<String>,
    /// Addresses that the guest sends from.
    #[serde(default)]
    #[schemars(example = vec!["10.0.0.5"])]
    pub addresses: Vec<String>,
    /// Operating system of the guest as its packets look.
    #[serde(default)]
    pub system: WireSystem,
    /// TCP connections that sent a packet, the busiest first.
    #[serde(default)]
    pub tcp: Vec<WireConnection>,
    /// Packets of IP protocols other than UDP and TCP.
    #[serde(default)]
    pub protocols: Vec<WireProtocol>,
    /// Sessions of protocols by which machines watch each other.
    #[serde(default)]
    pub control: Vec<ControlSession>,
    /// Multicast groups that the guest reported, and did not leave.
    #[serde(default)]
    pub groups: Vec<WireGroup>,
    /// True if a querier asked for all groups and the time for answers was over within the window, so that every group is
    /// listed.
    #[serde(default)]
    #[schemars(example = false)]
    pub groups_complete: bool,
    /// Leases of addresses that a DHCP server granted or renewed.
    #[serde(default)]
    pub leases: Vec<WireLease>,
    /// Behaviour of the guest when neighbours ask for its hardware address.
    #[serde(default)]
    pub neighbours: WireNeighbours,
    /// Things that the wire shows and the guest's own account lacks. Derived.
    #[serde(default = "not_compared")]
    pub denied: Fact<Vec<Denied>>,
}

fn not_compared() -> Fact<Vec<Denied>> {
    Fact::unknown(Cause::NotCollected, "the guest's own account was not compared with the wire")
}

/// Operating system as the guest's packets look.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct WireSystem {
    /// Family of the system.
    #[schemars(example = &"windows")]
    pub family: Fact<SystemFamily>,
    /// Features of the packets that say so.
    #[schemars(example = &"initial TTL 128; options of a SYN: mss nop wscale nop nop sack")]
    pub evidence: String,
}

/// Family of operating systems with the same TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SystemFamily {
    /// Linux, Android.
    Linux,
    /// Windows.
    Windows,
    /// FreeBSD, and systems made from it.
    Freebsd,
}

impl SystemFamily {
    /// Name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Linux => "Linux",
            Self::Windows => "Windows",
            Self::Freebsd => "FreeBSD",
        }
    }
}

/// One TCP connection as its packets show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct WireConnection {
    /// Address and port at the guest's side.
    #[schemars(example = &"10.0.0.5:41822")]
    pub local: String,
    /// Address and port of the peer.
    #[schemars(example = &"10.0.0.7:5432")]
    pub remote: String,
    /// VLAN id of the outer tag; absent where the guest sends and receives untagged.
    #[serde(default)]
    #[schemars(example = 7)]
    pub vlan: Option<u16>,
    /// End that opened the connection.
    #[schemars(example = &"guest")]
    pub opened_by: Opener,
    /// True if its SYN was seen; else the ports suggest it: the client's is the higher.
    #[schemars(example = false)]
    pub opening_seen: bool,
    /// True if a FIN or RST was seen.
    #[schemars(example = false)]
    pub closing_seen: bool,
    /// True if the guest forwards it, as a router or for a container: its packets left the guest with a lowered TTL.
    #[serde(default)]
    #[schemars(example = false)]
    pub forwarded: bool,
    /// Age of the connection at the end of the window; known only where its opening was seen.
    #[schemars(example = 4.2)]
    pub age_seconds: Fact<f64>,
    /// First packet, from the start of the window.
    #[schemars(example = 0.1)]
    pub first_seen_seconds: f64,
    /// Last packet, from the start of the window.
    #[schemars(example = 9.8)]
    pub last_seen_seconds: f64,
    /// Packets that the guest sent.
    #[schemars(example = 120)]
    pub packets_from_guest: u64,
    /// Packets that the guest received.
    #[schemars(example = 140)]
    pub packets_to_guest: u64,
    /// Segments that the guest sent again.
    #[schemars(example = 0)]
    pub sent_again_by_guest: u64,
    /// Segments that the peer sent again.
    #[schemars(example = 0)]
    pub sent_again_by_peer: u64,
    /// Shortest round trip from the host to the peer, from a segment to its acknowledgement.
    #[schemars(example = 0.0004)]
    pub rtt_seconds: Fact<f64>,
    /// Keepalive probes that the guest sent.
    #[schemars(example = 0)]
    pub keepalives_from_guest: u64,
    /// Keepalive probes that the peer sent.
    #[schemars(example = 0)]
    pub keepalives_to_guest: u64,
    /// Service by the port of the end that was opened; absent where the port is in no list.
    #[schemars(example = &"PostgreSQL")]
    pub service: Option<String>,
}

/// End of a connection that opened it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Opener {
    /// The guest.
    Guest,
    /// The peer.
    Peer,
    /// Neither a SYN nor the ports tell.
    Unknown,
}

/// Packets of one IP protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct WireProtocol {
    /// IP protocol number (IANA).
    #[schemars(example = 132)]
    pub protocol: u8,
    /// Address at the guest's side, with the port for SCTP.
    #[schemars(example = &"10.0.0.5:36412")]
    pub local: String,
    /// Address of the other side.
    #[schemars(example = &"10.0.0.7:36412")]
    pub remote: String,
    /// Packets that the guest sent.
    #[schemars(example = 12)]
    pub packets_from_guest: u64,
    /// Packets that the guest received.
    #[schemars(example = 12)]
    pub packets_to_guest: u64,
}

/// Membership in a multicast group that the guest reported (IGMP, MLD).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct WireGroup {
    /// Address of the group.
    #[schemars(example = &"239.192.0.1")]
    pub address: String,
    /// Protocol of the report.
    #[schemars(example = &"IGMPv3")]
    pub reported_by: String,
    /// VLAN id of the outer tag; absent where the guest sends untagged.
    #[serde(default)]
    #[schemars(example = 7)]
    pub vlan: Option<u16>,
    /// True if the group stays on the link (224.0.0.0/24, ff02::/16).
    #[schemars(example = false)]
    pub link_local: bool,
}

/// Lease of an address (DHCP), or of a prefix (DHCPv6).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct WireLease {
    /// Address or prefix that is leased to the guest.
    #[schemars(example = &"10.0.0.5")]
    pub address: String,
    /// Server that grants it.
    #[schemars(example = &"10.0.0.1")]
    pub server: String,
    /// Length of the lease.
    #[schemars(example = 3600.0)]
    pub lease_seconds: Fact<f64>,
    /// Time after which the guest renews it (T1); half of the lease where the server sets none.
    #[schemars(example = 1800.0)]
    pub renews_after_seconds: Fact<f64>,
}

/// Behaviour of the guest as a neighbour (ARP, NDP).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct WireNeighbours {
    /// Questions for an address of the guest.
    #[schemars(example = 2)]
    pub questions: u64,
    /// Answers of the guest.
    #[schemars(example = 2)]
    pub answers: u64,
    /// Announcements that the guest made unasked: gratuitous ARP, unsolicited neighbour advertisements.
    #[schemars(example = 0)]
    pub announcements: u64,
}

/// Thing that the wire shows and the guest's own account lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Denied {
    /// Kind of the thing.
    #[schemars(example = &"control-session")]
    pub kind: DeniedKind,
    /// The thing in words.
    #[schemars(example = &"the VRRP router 10.0.0.5 -> 224.0.0.18, VRID 51")]
    pub what: String,
}

/// Kind of a thing that the guest's account lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DeniedKind {
    /// A session of a control protocol.
    ControlSession,
    /// A TCP connection.
    TcpConnection,
    /// A multicast group.
    MulticastGroup,
}
