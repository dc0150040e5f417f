//! The flows of a capture, counted in this process: bounded, and with the same outcome as the kernel's counter.

use std::collections::{HashMap, VecDeque};

use super::parse::{FRAGMENT_LIFE, Packet, Parsed};
use super::way::{Count, Totals, Way};

/// Fragmented datagrams that are remembered at a time; beyond them the oldest is forgotten.
pub(crate) const MOST_PARTS: u32 = 4096;

/// A datagram whose fragments are on their way.
#[derive(Debug, Clone, Copy)]
struct Part {
    seen: u64,
    flow: PartFlow,
}

#[derive(Debug, Clone, Copy)]
enum PartFlow {
    Known(Way),
    /// The first fragment has not come; so many packets and bytes of later ones have.
    Waits {
        packets: u64,
        bytes: u64,
    },
}

/// Flows, and what belongs to none.
#[derive(Debug)]
pub(crate) struct Table {
    most_ways: usize,
    ways: HashMap<Way, Count>,
    parts: HashMap<(Way, u32), Part>,
    /// In the order in which they were first heard of.
    part_order: VecDeque<(Way, u32)>,
    totals: Totals,
}

impl Table {
    /// An empty table with room for so many ways.
    pub(crate) fn new(most_ways: usize) -> Self {
        Self {
            most_ways,
            ways: HashMap::new(),
            parts: HashMap::new(),
            part_order: VecDeque::new(),
            totals: Totals::default(),
        }
    }

    /// What was counted.
    pub(crate) fn finish(self) -> (Vec<(Way, Count)>, Totals) {
        (self.ways.into_iter().collect(), self.totals)
    }

    /// Counts one frame, seen at `now` in nanoseconds of a clock that does not go back.
    pub(crate) fn count(&mut self, parsed: Parsed, now: u64) {
        match parsed {
            Parsed::Other => {}
            Parsed::Malformed => self.totals.malformed += 1,
            Parsed::TooDeep => self.totals.too_deep += 1,
            Parsed::Datagram(packet) => match packet.identification {
                None => self.add(packet.way, packet, 0, now),
                Some(id) => self.first_fragment(packet, id, now),
            },
            Parsed::LaterFragment(packet) => self.later_fragment(packet, now),
        }
    }

    fn add(&mut self, way: Way, packet: Packet, later_fragments: u64, now: u64) {
        if !self.ways.contains_key(&way) && self.ways.len() >= self.most_ways {
            self.totals.no_room = self.totals.no_room.saturating_add(packet.packets);
            return;
        }
        let count = self.ways.entry(way).or_insert(Count {
            first_nanoseconds: now,
            guest_mac: packet.guest_mac,
            ..Count::default()
        });
        count.last_nanoseconds = now;
        count.packets = count.packets.saturating_add(packet.packets);
        count.bytes = count.bytes.saturating_add(packet.bytes);
        count.later_fragments = count.later_fragments.saturating_add(later_fragments);
    }

    /// The later fragments find their flow through the first, and those that came early are taken over.
    fn first_fragment(&mut self, mut packet: Packet, id: u32, now: u64) {
        let key = part_key(packet.way, id);
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
        self.remember(key, Part { seen: now, flow: PartFlow::Known(packet.way) });
        self.add(packet.way, packet, early, now);
    }

    fn later_fragment(&mut self, packet: Packet, now: u64) {
        let Some(id) = packet.identification else { return };
        let key = part_key(packet.way, id);
        match self.living_part(&key, now) {
            Some(Part { flow: PartFlow::Known(way), .. }) => {
                let way = *way;
                return self.add(way, packet, 1, now);
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

    fn living_part(&mut self, key: &(Way, u32), now: u64) -> Option<&mut Part> {
        self.parts.get_mut(key).filter(|part| now.saturating_sub(part.seen) >> 30 <= u64::from(FRAGMENT_LIFE))
    }

    fn remember(&mut self, key: (Way, u32), part: Part) {
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

/// A datagram is known by its addresses, VLANs, direction and identification: later fragments have no ports.
fn part_key(mut way: Way, id: u32) -> (Way, u32) {
    way.source.set_port(0);
    way.destination.set_port(0);
    (way, id)
}
