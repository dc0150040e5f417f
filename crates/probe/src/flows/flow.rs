//! Result of a flow capture: flows with both directions, and all gaps of the capture.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};
use vmgate_facts::{CaptureMethod, FlowDirection, Wire};

use crate::flows::{
    directed_flow::{Count, DirectedFlow, Totals},
    evidence::Counts,
    filter::SAMPLED,
    raw_capture::RawCapture,
};

/// UDP flows of one interface over one window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlowCapture {
    /// Name of the captured interface.
    pub interface: String,
    /// Method that counted the packets.
    pub method: CaptureMethod,
    /// Reason why the kernel could not count; absent if it did or was not asked.
    pub kernel_refused: Option<String>,
    /// Duration of the capture.
    pub window_seconds: f64,
    /// Frames of any protocol that crossed the interface; known only if the kernel counts.
    pub frames: Option<u64>,
    /// Packets that the capture dropped.
    pub drops: u64,
    /// UDP packets of flows that did not fit into the table; they are in no flow.
    pub table_full_packets: u64,
    /// UDP fragments that are in no flow, because the first of their datagram was not seen.
    pub stray_fragments: u64,
    /// Bytes of these fragments.
    pub stray_fragment_bytes: u64,
    /// Packets with more headers than the parser reads (three VLAN tags, nine IPv6 extension headers).
    pub unreadable_packets: u64,
    /// Packets with inconsistent headers; no receiver accepts them, so they are no gap.
    pub malformed_packets: u64,
    /// True if the interface went down or disappeared, or the packet limit was reached, before the window's end.
    pub interrupted: bool,
    /// True if nothing was missed: a flow that is not listed did not exist in the window.
    pub complete: bool,
    /// The flows, the busiest first.
    pub flows: Vec<Flow>,
    /// Evidence from the packets of the same window; absent in answers of older programs.
    #[serde(default)]
    pub wire: Option<Wire>,
}

/// One UDP flow: an endpoint at the guest, one elsewhere, and a VLAN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// IP version.
    pub family: Family,
    /// Always UDP.
    pub protocol: Protocol,
    /// The guest's end: its source address, or the destination of packets to it (own address, group or broadcast).
    pub guest: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
    /// The multicast group, if the datagrams are sent to one.
    pub multicast_group: Option<IpAddr>,
    /// VLAN id of the outer tag.
    pub vlan: Option<u16>,
    /// VLAN id of the second tag.
    pub inner_vlan: Option<u16>,
    /// Sending side or sides.
    pub direction: FlowDirection,
    /// Traffic that the guest sent.
    pub from_guest: Traffic,
    /// Traffic that was sent to the guest.
    pub to_guest: Traffic,
    /// IP packets of both directions. Every fragment counts as one.
    pub packets: u64,
    /// Bytes of these, IP headers included.
    pub bytes: u64,
    /// Packets per second, averaged over the window.
    pub packets_per_second: f64,
    /// Bytes per second, averaged over the window.
    pub bytes_per_second: f64,
    /// Time of the first packet, from the start of the window.
    pub first_seen_seconds: f64,
    /// Time of the last packet, from the start of the window.
    pub last_seen_seconds: f64,
    /// Ethernet address at the guest's side. An address other than the guest's own comes from a flooded frame.
    pub guest_mac: String,
}

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// IP packets. Every fragment counts as one.
    pub packets: u64,
    /// Bytes of these, IP headers included.
    pub bytes: u64,
    /// Packets that are fragments after the first of a datagram.
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
struct FlowKey {
    guest: SocketAddr,
    peer: SocketAddr,
    vlan: u16,
    inner_vlan: u16,
}

#[derive(Default)]
struct BothDirections {
    from_guest: Option<Count>,
    to_guest: Option<Count>,
}

impl FlowCapture {
    /// Makes the result from the raw counts of a method.
    pub(crate) fn new(
        interface: String,
        method: CaptureMethod,
        refused: Option<String>,
        raw: RawCapture,
    ) -> Self {
        let window = Window { begin: raw.begin, end: raw.end.max(raw.begin.saturating_add(1)) };
        let totals = raw.totals;
        let holes = evidence_holes(&interface, method, &raw);
        let wire = raw.evidence.finish(Counts {
            interface: &interface,
            streams: &raw.streams,
            begin: raw.begin,
            end: raw.end,
            holes,
        });
        Self {
            wire: Some(wire),
            interface,
            method,
            kernel_refused: refused,
            window_seconds: window.seconds(),
            frames: totals.frames,
            drops: raw.drops,
            table_full_packets: totals.no_room,
            stray_fragments: totals.stray_packets,
            stray_fragment_bytes: totals.stray_bytes,
            unreadable_packets: totals.too_deep,
            malformed_packets: totals.malformed,
            interrupted: raw.interrupted,
            complete: raw.drops == 0
                && totals.no_room == 0
                && totals.stray_packets == 0
                && totals.too_deep == 0
                && !raw.interrupted,
            flows: flows(raw.directed_flows, window),
        }
    }

    /// Descriptions of the gaps of the capture; empty if it is complete.
    pub fn holes(&self) -> Vec<String> {
        let counted = [
            (self.drops, "packets were dropped by the capture"),
            (self.table_full_packets, "UDP packets belong to flows that did not fit into the table"),
            (self.stray_fragments, "UDP fragments arrived without the first fragment of their datagram"),
            (self.unreadable_packets, "packets have more headers than vmgate reads and may be UDP"),
        ];
        let counted = counted
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{}: {count} {what}", self.interface));
        let interrupted = self.interrupted.then(|| {
            format!("{}: the capture ended too early, after {:.1} s", self.interface, self.window_seconds)
        });
        counted.chain(interrupted).collect()
    }
}

/// Descriptions of what the evidence of an interface misses.
fn evidence_holes(interface: &str, method: CaptureMethod, raw: &RawCapture) -> Vec<String> {
    let Totals { streams_no_room, too_deep, .. } = raw.totals;
    let counted = [
        (raw.unseen, "packets that may matter were not read, because too many came at once"),
        (streams_no_room, "packets belong to connections that did not fit into the table"),
        (too_deep, "packets have more headers than vmgate reads"),
    ];
    let counted = counted.into_iter().filter(|(count, _)| *count > 0);
    let mut holes: Vec<_> = counted.map(|(count, what)| format!("{interface}: {count} {what}")).collect();
    if method == CaptureMethod::Captured {
        holes.push(format!(
            "{interface}: the kernel cannot count here, so that of TCP one packet in {SAMPLED} was read"
        ));
    }
    if raw.interrupted {
        holes.push(format!("{interface}: the capture ended too early"));
    }
    holes
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

    /// Seconds from the start to `at`, clamped to the window.
    fn offset(self, at: u64) -> f64 {
        Self { begin: self.begin, end: at.clamp(self.begin, self.end) }.seconds()
    }

    #[allow(clippy::cast_precision_loss, reason = "a rate needs no more digits")]
    fn rate(self, count: u64) -> f64 {
        count as f64 / self.seconds()
    }
}

/// Joins the two directions of each flow.
fn flows(directed_flows: Vec<(DirectedFlow, Count)>, window: Window) -> Vec<Flow> {
    let mut joined: HashMap<FlowKey, BothDirections> = HashMap::with_capacity(directed_flows.len());
    for (directed, count) in directed_flows {
        let (guest, peer) = if directed.from_guest {
            (directed.source, directed.destination)
        } else {
            (directed.destination, directed.source)
        };
        let both = joined
            .entry(FlowKey { guest, peer, vlan: directed.vlan, inner_vlan: directed.inner_vlan })
            .or_default();
        *(if directed.from_guest { &mut both.from_guest } else { &mut both.to_guest }) = Some(count);
    }
    let mut flows: Vec<_> = joined.into_iter().map(|(key, both)| (key, flow(key, &both, window))).collect();
    flows.sort_by(|(a_key, a), (b_key, b)| b.packets.cmp(&a.packets).then_with(|| a_key.cmp(b_key)));
    flows.into_iter().map(|(_, flow)| flow).collect()
}

fn flow(key: FlowKey, both: &BothDirections, window: Window) -> Flow {
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
        family: if key.guest.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 },
        protocol: Protocol::Udp,
        guest: key.guest,
        peer: key.peer,
        multicast_group: group(both.from_guest, key.peer).or_else(|| group(both.to_guest, key.guest)),
        vlan: Some(key.vlan).filter(|id| *id != 0),
        inner_vlan: Some(key.inner_vlan).filter(|id| *id != 0),
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
