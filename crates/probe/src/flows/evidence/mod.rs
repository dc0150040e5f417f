//! Evidence from packets: what the headers of one interface's packets show of the guest.
//!
//! It sees a bounded sample of the packets, whoever chose it (the counter in the kernel, or the filter of a packet capture), and the
//! exact counts of each connection afterwards. Everything it keeps is bounded; no payload is kept.

mod groups;
mod lease;
mod neighbours;
mod service;
mod streams;
mod system;
mod tcp;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, net::IpAddr};

use vmgate_facts::{Cause, Fact, Wire};

use crate::flows::{
    control::ControlTable,
    directed_flow::{Count, DirectedFlow},
    evidence::{groups::Groups, lease::Leases, neighbours::Neighbours, system::SystemSigns, tcp::TcpSamples},
    packet::Packet,
    parse::Frame,
};

/// Most addresses of the guest that are kept, of each kind.
const MOST_ADDRESSES: usize = 256;

/// Evidence in the making.
pub(crate) struct Evidence {
    packets: u64,
    addresses: BTreeSet<IpAddr>,
    /// Hardware addresses that the guest sends from.
    hardware: BTreeSet<[u8; 6]>,
    system: SystemSigns,
    tcp: TcpSamples,
    groups: Groups,
    leases: Leases,
    neighbours: Neighbours,
    control: ControlTable,
    /// Frame with the VLAN tag that the kernel had moved to the metadata.
    tagged: Vec<u8>,
}

/// Counts of the capture, which the evidence takes in at its end.
pub(crate) struct Counts<'a> {
    pub(crate) interface: &'a str,
    pub(crate) streams: &'a [(DirectedFlow, Count)],
    /// Start and end of the window, in nanoseconds of the clock of the counts.
    pub(crate) begin: u64,
    pub(crate) end: u64,
    pub(crate) holes: Vec<String>,
}

impl Evidence {
    pub(crate) fn new() -> Self {
        Self {
            packets: 0,
            addresses: BTreeSet::new(),
            hardware: BTreeSet::new(),
            system: SystemSigns::default(),
            tcp: TcpSamples::default(),
            groups: Groups::default(),
            leases: Leases::default(),
            neighbours: Neighbours::default(),
            control: ControlTable::new(),
            tagged: Vec::new(),
        }
    }

    /// Takes in one frame, seen `nanoseconds` after the start of the window.
    pub(crate) fn observe(&mut self, frame: Frame<'_>, nanoseconds: u64) {
        self.packets = self.packets.saturating_add(1);
        let bytes = match (frame.tag, frame.bytes.split_at_checked(12)) {
            (Some(tag), Some((addresses, rest))) => {
                self.tagged.clear();
                self.tagged.extend_from_slice(addresses);
                self.tagged.extend_from_slice(&[0x81, 0x00]);
                self.tagged.extend_from_slice(&tag.to_be_bytes());
                self.tagged.extend_from_slice(rest);
                self.tagged.as_slice()
            }
            _ => frame.bytes,
        };
        let at = seconds(nanoseconds);
        let Some(packet) = Packet::of(bytes, frame.from_guest) else { return };
        self.control.observe(&packet, at);
        for address in
            self.neighbours.observe(&packet, &self.addresses).into_iter().chain(packet.own_address())
        {
            if self.addresses.len() < MOST_ADDRESSES {
                self.addresses.insert(address);
            }
        }
        if packet.from_guest && self.hardware.len() < MOST_ADDRESSES {
            self.hardware.insert(packet.stations[0]);
        }
        self.system.observe(&packet);
        self.groups.observe(&packet, at);
        self.tcp.observe(&packet, nanoseconds);
        self.leases.observe(&packet, &self.hardware);
    }

    /// The fact, with the exact counts of connections.
    pub(crate) fn finish(self, counts: Counts<'_>) -> Wire {
        let window = counts.end.saturating_sub(counts.begin);
        let mut holes = counts.holes;
        let (tcp, left_out) = self.tcp.connections(counts.streams, counts.begin, counts.end);
        if left_out > 0 {
            holes.push(format!(
                "{}: {left_out} TCP connections are not listed: vmgate lists the {} busiest",
                counts.interface,
                tcp::MOST_LISTED
            ));
        }
        let (protocols, left_out) = streams::protocols(counts.streams);
        if left_out > 0 {
            holes.push(format!("{}: {left_out} pairs of IP addresses are not listed", counts.interface));
        }
        if self.control.no_room() > 0 {
            holes.push(format!("{}: more control sessions than vmgate lists", counts.interface));
        }
        let (groups, groups_complete) = self.groups.finish(seconds(window));
        Wire {
            interface: counts.interface.to_owned(),
            window_seconds: seconds(window),
            packets_read: self.packets,
            complete: holes.is_empty(),
            holes,
            addresses: self.addresses.iter().map(ToString::to_string).collect(),
            system: self.system.finish(),
            tcp,
            protocols,
            control: self.control.finish(),
            groups,
            groups_complete,
            leases: self.leases.finish(),
            neighbours: self.neighbours.finish(),
            denied: Fact::unknown(
                Cause::NotCollected,
                "the guest's own account was not compared with the wire",
            ),
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "nanoseconds of at most an hour")]
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}
