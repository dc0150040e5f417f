//! Flow table of a packet capture: bounded, and with the same results as the kernel's counter.

use std::collections::{HashMap, VecDeque};

use crate::flows::{
    directed_flow::{Count, DirectedFlow, FIN, SYN, Totals},
    parse::{FRAGMENT_LIFE, Packet, ParsedFrame, Segment, TCP},
};

/// Counts of UDP flows, and of streams of the other protocols.
pub(crate) type Counts = Vec<(DirectedFlow, Count)>;

/// Most fragmented datagrams that are remembered at a time; beyond that the oldest is forgotten.
pub(crate) const MOST_PARTS: u32 = 4096;

/// A datagram of which fragments are still expected.
#[derive(Debug, Clone, Copy)]
struct Part {
    seen: u64,
    flow: PartFlow,
}

#[derive(Debug, Clone, Copy)]
enum PartFlow {
    Known(DirectedFlow),
    /// The first fragment has not arrived; packets and bytes of later ones that have.
    Waits {
        packets: u64,
        bytes: u64,
    },
}

/// Counts of flows, and totals of packets outside flows.
#[derive(Debug)]
pub(crate) struct Table {
    max_directed_flows: usize,
    directed_flows: HashMap<DirectedFlow, Count>,
    streams: HashMap<DirectedFlow, Count>,
    parts: HashMap<(DirectedFlow, u32), Part>,
    /// Keys of `parts`, oldest first.
    part_order: VecDeque<(DirectedFlow, u32)>,
    totals: Totals,
}

impl Table {
    /// An empty table with room for that many directed flows.
    pub(crate) fn new(max_directed_flows: usize) -> Self {
        Self {
            max_directed_flows,
            directed_flows: HashMap::new(),
            streams: HashMap::new(),
            parts: HashMap::new(),
            part_order: VecDeque::new(),
            totals: Totals::default(),
        }
    }

    /// The counts of flows, of streams, and the totals.
    pub(crate) fn finish(self) -> (Counts, Counts, Totals) {
        (self.directed_flows.into_iter().collect(), self.streams.into_iter().collect(), self.totals)
    }

    /// Counts one frame, seen at `now`, in nanoseconds of a monotonic clock.
    pub(crate) fn count(&mut self, parsed: ParsedFrame, now: u64) {
        match parsed {
            ParsedFrame::Other => {}
            ParsedFrame::Malformed => self.totals.malformed += 1,
            ParsedFrame::TooDeep => self.totals.too_deep += 1,
            ParsedFrame::Datagram(packet) => match packet.identification {
                None => self.add(packet.directed, packet, 0, now),
                Some(id) => self.first_fragment(packet, id, now),
            },
            ParsedFrame::LaterFragment(packet) => self.later_fragment(packet, now),
            ParsedFrame::Stream(packet, segment) => self.stream(packet, segment, now),
        }
    }

    fn add(&mut self, directed: DirectedFlow, packet: Packet, later_fragments: u64, now: u64) {
        match entry(&mut self.directed_flows, self.max_directed_flows, directed, &packet, now) {
            Some(count) => count.later_fragments = count.later_fragments.saturating_add(later_fragments),
            None => self.totals.no_room = self.totals.no_room.saturating_add(packet.packets),
        }
    }

    fn stream(&mut self, packet: Packet, segment: Segment, now: u64) {
        match entry(&mut self.streams, self.max_directed_flows, packet.directed, &packet, now) {
            Some(count) if packet.directed.protocol == TCP => count.segment(segment),
            Some(_) => {}
            None => self.totals.streams_no_room = self.totals.streams_no_room.saturating_add(1),
        }
    }

    /// Records the flow for later fragments, and adds those that arrived before the first.
    fn first_fragment(&mut self, mut packet: Packet, id: u32, now: u64) {
        let key = part_key(packet.directed, id);
        let early = match self.living_part(&key, now).map(|part| part.flow) {
            Some(PartFlow::Waits { packets, bytes }) => {
                self.totals.stray_packets = self.totals.stray_packets.saturating_sub(packets);
                self.totals.stray_bytes = self.totals.stray_bytes.saturating_sub(bytes);
                packet.packets = packet.packets.saturating_add(packets);
                packet.bytes = packet.bytes.saturating_add(bytes);
                packets
            }
            Some(PartFlow::Known(_)) | None => 0,
        };
        self.remember(key, Part { seen: now, flow: PartFlow::Known(packet.directed) });
        self.add(packet.directed, packet, early, now);
    }

    fn later_fragment(&mut self, packet: Packet, now: u64) {
        let Some(id) = packet.identification else { return };
        let key = part_key(packet.directed, id);
        match self.living_part(&key, now) {
            Some(Part { flow: PartFlow::Known(directed), .. }) => {
                let directed = *directed;
                return self.add(directed, packet, 1, now);
            }
            Some(Part { flow: PartFlow::Waits { packets, bytes }, .. }) => {
                *packets = packets.saturating_add(1);
                *bytes = bytes.saturating_add(packet.bytes);
            }
            None if packet.surely_udp => {
                let flow = PartFlow::Waits { packets: 1, bytes: packet.bytes };
                self.remember(key, Part { seen: now, flow });
            }
            None => return,
        }
        self.totals.stray_packets = self.totals.stray_packets.saturating_add(1);
        self.totals.stray_bytes = self.totals.stray_bytes.saturating_add(packet.bytes);
    }

    fn living_part(&mut self, key: &(DirectedFlow, u32), now: u64) -> Option<&mut Part> {
        self.parts.get_mut(key).filter(|part| now.saturating_sub(part.seen) >> 30 <= u64::from(FRAGMENT_LIFE))
    }

    fn remember(&mut self, key: (DirectedFlow, u32), part: Part) {
        if self.parts.insert(key, part).is_none() {
            self.part_order.push_back(key);
        }
        while self.part_order.len() > MOST_PARTS as usize {
            if let Some(oldest) = self.part_order.pop_front() {
                self.parts.remove(&oldest);
            }
        }
    }
}

/// The counts of this direction with the packet added; none if the table has no room for another.
fn entry<'a>(
    table: &'a mut HashMap<DirectedFlow, Count>,
    most: usize,
    directed: DirectedFlow,
    packet: &Packet,
    now: u64,
) -> Option<&'a mut Count> {
    if !table.contains_key(&directed) && table.len() >= most {
        return None;
    }
    let count = table.entry(directed).or_insert(Count {
        first_nanoseconds: now,
        guest_mac: packet.guest_mac,
        ..Count::default()
    });
    count.last_nanoseconds = now;
    count.packets = count.packets.saturating_add(packet.packets);
    count.bytes = count.bytes.saturating_add(packet.bytes);
    Some(count)
}

impl Count {
    /// Notes flags and sequence of a TCP segment, the last of those counted. A segment that ends before the newest data was
    /// sent before; a probe of at most one old byte is a keepalive.
    fn segment(&mut self, segment: Segment) {
        self.flags |= segment.flags;
        let marks = segment.flags & (FIN | SYN);
        let end = segment.sequence.wrapping_add(segment.data).wrapping_add(u32::from(marks != 0));
        let probe = marks == 0 && segment.data <= 1 && segment.sequence.wrapping_add(1) == self.highest;
        let beyond = end.wrapping_sub(self.highest);
        if self.packets == 1 || (!probe && beyond != 0 && beyond >> 31 == 0) {
            self.highest = end;
        } else if !probe && (segment.data != 0 || marks != 0) {
            self.sent_again = self.sent_again.saturating_add(1);
        }
    }
}

/// Key of a datagram: addresses, VLANs, direction and identification, since later fragments have no ports.
fn part_key(mut directed: DirectedFlow, id: u32) -> (DirectedFlow, u32) {
    directed.source.set_port(0);
    directed.destination.set_port(0);
    (directed, id)
}
