//! One way of a flow: what both methods count, and where what does not belong to any flow is counted.

use std::net::SocketAddr;

/// Datagrams from one endpoint to another as they cross the interface; the other direction is another way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Way {
    /// The guest sent it.
    pub(crate) from_guest: bool,
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    /// Outer VLAN; 0 where untagged or only priority-tagged.
    pub(crate) vlan: u16,
    /// Second VLAN (802.1ad); 0 where there is none.
    pub(crate) inner_vlan: u16,
}

/// What was counted of one way. Times are nanoseconds of the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Count {
    pub(crate) first_nanoseconds: u64,
    pub(crate) last_nanoseconds: u64,
    /// IP packets: every fragment is one, and a segmentation-offloaded packet is as many as it becomes.
    pub(crate) packets: u64,
    /// Bytes of these IP packets, IP headers included and link headers not.
    pub(crate) bytes: u64,
    /// How many of the packets are fragments after a first.
    pub(crate) later_fragments: u64,
    /// The guest's side of the Ethernet header of the first packet.
    pub(crate) guest_mac: [u8; 6],
}

/// What belongs to no flow, and what could not be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    /// Every frame that crossed the interface, of whatever protocol; unknown where the kernel filters first.
    pub(crate) frames: Option<u64>,
    /// Packets whose headers contradict themselves: no receiver accepts them.
    pub(crate) malformed: u64,
    /// Packets whose headers go on beyond what is looked at: they may be UDP.
    pub(crate) too_deep: u64,
    /// UDP packets of flows for which the table had no room.
    pub(crate) no_room: u64,
    /// UDP fragments whose first fragment was not seen.
    pub(crate) stray_packets: u64,
    /// Bytes of these.
    pub(crate) stray_bytes: u64,
}
