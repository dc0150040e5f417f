//! What a watch found, for people, scripts and facts: flows with both their directions, and every hole.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::tally::Tally;
use super::way::{Count, Way};
use vmgate_facts::{CaptureMethod, FlowDirection};

/// UDP flows of one interface over one window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlowCapture {
    /// The interface that was watched.
    pub interface: String,
    /// Who counted.
    pub method: CaptureMethod,
    /// Why the kernel did not count, where it was tried.
    pub kernel_refused: Option<String>,
    /// How long it was watched.
    pub window_seconds: f64,
    /// Frames of whatever protocol that crossed the interface; known only where the kernel counts.
    pub frames: Option<u64>,
    /// Packets that were lost to the capture.
    pub drops: u64,
    /// UDP packets of flows that found the table full; they are in no flow.
    pub table_full_packets: u64,
    /// UDP fragments that are in no flow, because the first of their datagram was not seen.
    pub stray_fragments: u64,
    /// Bytes of these.
    pub stray_fragment_bytes: u64,
    /// Packets whose headers go on beyond what is looked at (three VLAN tags, nine IPv6 extension headers).
    pub unreadable_packets: u64,
    /// Packets whose headers contradict themselves; no receiver accepts them, so they are no hole.
    pub malformed_packets: u64,
    /// The interface went down or away, or the packet limit was reached, before the window's end.
    pub interrupted: bool,
    /// Nothing was missed: a flow that is not here did not exist in the window.
    pub complete: bool,
    /// The flows, the busiest first.
    pub flows: Vec<Flow>,
}

/// One UDP flow: an endpoint at the guest, one elsewhere, and a VLAN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// IP version.
    pub family: Family,
    /// Always UDP.
    pub protocol: Protocol,
    /// The guest's end: what the guest sends from, or what is sent to it: its own address, a group or a broadcast.
    pub guest: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
    /// The group, where datagrams are sent to one.
    pub multicast_group: Option<IpAddr>,
    /// VLAN id of the outer tag.
    pub vlan: Option<u16>,
    /// VLAN id of the second tag.
    pub inner_vlan: Option<u16>,
    /// Who sends.
    pub direction: FlowDirection,
    /// What the guest sent.
    pub from_guest: Traffic,
    /// What was sent to the guest.
    pub to_guest: Traffic,
    /// IP packets of both directions. Every fragment is one.
    pub packets: u64,
    /// Bytes of these, IP headers included.
    pub bytes: u64,
    /// The packets over the window.
    pub packets_per_second: f64,
    /// The bytes over the window.
    pub bytes_per_second: f64,
    /// When the first packet was seen, from the window's begin.
    pub first_seen_seconds: f64,
    /// When the last packet was seen, from the window's begin.
    pub last_seen_seconds: f64,
    /// Ethernet address at the guest's side. One that is not the guest's own is of a flooded frame.
    pub guest_mac: String,
}

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// IP packets. Every fragment is one.
    pub packets: u64,
    /// Bytes of these, IP headers included.
    pub bytes: u64,
    /// Those of the packets that are fragments after the first of a datagram.
    pub later_fragments: u64,
}

/// IP version of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// Transport protocol of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// User Datagram Protocol.
    Udp,
}

#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Clone, Copy)]
struct Ends {
    guest: SocketAddr,
    peer: SocketAddr,
    vlan: u16,
    inner_vlan: u16,
}

#[derive(Default)]
struct Both {
    from_guest: Option<Count>,
    to_guest: Option<Count>,
}

impl FlowCapture {
    /// Puts the outcome of a method into words.
    pub(crate) fn new(
        interface: String,
        method: CaptureMethod,
        refused: Option<String>,
        tally: Tally,
    ) -> Self {
        let window = Window { begin: tally.begin, end: tally.end.max(tally.begin.saturating_add(1)) };
        let totals = tally.totals;
        Self {
            interface,
            method,
            kernel_refused: refused,
            window_seconds: window.seconds(),
            frames: totals.frames,
            drops: tally.drops,
            table_full_packets: totals.no_room,
            stray_fragments: totals.stray_packets,
            stray_fragment_bytes: totals.stray_bytes,
            unreadable_packets: totals.too_deep,
            malformed_packets: totals.malformed,
            interrupted: tally.interrupted,
            complete: tally.drops == 0
                && totals.no_room == 0
                && totals.stray_packets == 0
                && totals.too_deep == 0
                && !tally.interrupted,
            flows: flows(tally.ways, window),
        }
    }

    /// What the capture missed, in words; empty where it is complete.
    pub fn holes(&self) -> Vec<String> {
        let counted = [
            (self.drops, "packets were lost to the capture"),
            (self.table_full_packets, "UDP packets of further flows found the table full"),
            (self.stray_fragments, "UDP fragments came without the first of their datagram"),
            (self.unreadable_packets, "packets have more headers than are looked at and may be UDP"),
        ];
        let counted = counted
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{}: {count} {what}", self.interface));
        let interrupted = self.interrupted.then(|| {
            format!("{}: the watch ended after {:.1} s, too early", self.interface, self.window_seconds)
        });
        counted.chain(interrupted).collect()
    }
}

#[derive(Clone, Copy)]
struct Window {
    begin: u64,
    end: u64,
}

impl Window {
    #[allow(clippy::cast_precision_loss, reason = "nanoseconds of at most an hour, packets of as long")]
    fn seconds(self) -> f64 {
        self.end.saturating_sub(self.begin) as f64 / 1e9
    }

    /// Seconds from the begin to `at`, within the window.
    fn offset(self, at: u64) -> f64 {
        Self { begin: self.begin, end: at.clamp(self.begin, self.end) }.seconds()
    }

    #[allow(clippy::cast_precision_loss, reason = "a rate needs no more digits")]
    fn rate(self, count: u64) -> f64 {
        count as f64 / self.seconds()
    }
}

/// Joins the two ways of each flow.
fn flows(ways: Vec<(Way, Count)>, window: Window) -> Vec<Flow> {
    let mut joined: HashMap<Ends, Both> = HashMap::with_capacity(ways.len());
    for (way, count) in ways {
        let (guest, peer) =
            if way.from_guest { (way.source, way.destination) } else { (way.destination, way.source) };
        let both =
            joined.entry(Ends { guest, peer, vlan: way.vlan, inner_vlan: way.inner_vlan }).or_default();
        *(if way.from_guest { &mut both.from_guest } else { &mut both.to_guest }) = Some(count);
    }
    let mut flows: Vec<_> =
        joined.into_iter().map(|(ends, both)| (ends, flow(ends, &both, window))).collect();
    flows.sort_by(|(a_ends, a), (b_ends, b)| b.packets.cmp(&a.packets).then_with(|| a_ends.cmp(b_ends)));
    flows.into_iter().map(|(_, flow)| flow).collect()
}

fn flow(ends: Ends, both: &Both, window: Window) -> Flow {
    let traffic = |count: Option<Count>| {
        count.map_or(Traffic::default(), |count| Traffic {
            packets: count.packets,
            bytes: count.bytes,
            later_fragments: count.later_fragments,
        })
    };
    let (from_guest, to_guest) = (traffic(both.from_guest), traffic(both.to_guest));
    let seen = || both.from_guest.iter().chain(&both.to_guest);
    let packets = from_guest.packets.saturating_add(to_guest.packets);
    let bytes = from_guest.bytes.saturating_add(to_guest.bytes);
    let group = |sent: Option<Count>, to: SocketAddr| sent.and(to.ip().is_multicast().then_some(to.ip()));
    Flow {
        family: if ends.guest.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 },
        protocol: Protocol::Udp,
        guest: ends.guest,
        peer: ends.peer,
        multicast_group: group(both.from_guest, ends.peer).or_else(|| group(both.to_guest, ends.guest)),
        vlan: Some(ends.vlan).filter(|id| *id != 0),
        inner_vlan: Some(ends.inner_vlan).filter(|id| *id != 0),
        direction: match (both.from_guest, both.to_guest) {
            (Some(_), Some(_)) => FlowDirection::Both,
            (Some(_), None) => FlowDirection::FromGuest,
            _ => FlowDirection::ToGuest,
        },
        from_guest,
        to_guest,
        packets,
        bytes,
        packets_per_second: window.rate(packets),
        bytes_per_second: window.rate(bytes),
        first_seen_seconds: window.offset(seen().map(|count| count.first_nanoseconds).min().unwrap_or(0)),
        last_seen_seconds: window.offset(seen().map(|count| count.last_nanoseconds).max().unwrap_or(0)),
        guest_mac: seen().next().map(|count| mac(count.guest_mac)).unwrap_or_default(),
    }
}

fn mac(octets: [u8; 6]) -> String {
    octets.map(|octet| format!("{octet:02x}")).join(":")
}
