//! One direction of a flow or stream, the unit that both methods count; and totals of packets that belong to none.

use std::net::SocketAddr;

/// Packets of one IP protocol from one endpoint to another across the interface; the reverse direction is another directed
/// flow. Protocols without ports have port 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct DirectedFlow {
    /// True if the guest sent it.
    pub(crate) from_guest: bool,
    /// IP protocol: 17 is UDP.
    pub(crate) protocol: u8,
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    /// Outer VLAN id; 0 if untagged or only priority-tagged.
    pub(crate) vlan: u16,
    /// Second VLAN id (802.1ad); 0 if there is none.
    pub(crate) inner_vlan: u16,
}

/// Flags of TCP that are kept: FIN, SYN, RST and ACK.
pub(crate) const FIN: u32 = 0x01;
pub(crate) const SYN: u32 = 0x02;
pub(crate) const RST: u32 = 0x04;
pub(crate) const ACK: u32 = 0x10;
/// Mark of a SYN without ACK: this end opens the connection.
pub(crate) const OPENING: u32 = 0x100;

/// Counts of one directed flow. Times are nanoseconds of the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Count {
    pub(crate) first_nanoseconds: u64,
    pub(crate) last_nanoseconds: u64,
    /// IP packets: every fragment counts as one, and a segmentation-offloaded packet as the number of its segments.
    pub(crate) packets: u64,
    /// Bytes of these IP packets, with IP headers and without link headers.
    pub(crate) bytes: u64,
    /// Number of these packets that are fragments after the first of a datagram.
    pub(crate) later_fragments: u64,
    /// Guest-side Ethernet address of the first packet.
    pub(crate) guest_mac: [u8; 6],
    /// TCP: end of the newest data in sequence space.
    pub(crate) highest: u32,
    /// TCP: flags of all segments, and [`OPENING`] for a SYN without ACK.
    pub(crate) flags: u32,
    /// TCP: segments with data, SYN or FIN that were sent before.
    pub(crate) sent_again: u32,
}

/// Totals of packets that belong to no flow or could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    /// All frames of any protocol that crossed the interface; unknown if the kernel filters first.
    pub(crate) frames: Option<u64>,
    /// Packets with inconsistent headers: no receiver accepts them.
    pub(crate) malformed: u64,
    /// Packets with more headers than the parser reads: they may be UDP.
    pub(crate) too_deep: u64,
    /// UDP packets of flows that did not fit into the table.
    pub(crate) no_room: u64,
    /// Packets of other protocols that did not fit into their table.
    pub(crate) streams_no_room: u64,
    /// Control packets, and first packets of flows, that nobody looked at because there were too many.
    pub(crate) unseen: u64,
    /// UDP fragments whose first fragment was not seen.
    pub(crate) stray_packets: u64,
    /// Bytes of these fragments.
    pub(crate) stray_bytes: u64,
}
