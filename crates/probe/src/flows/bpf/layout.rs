//! Byte layout of the BPF maps: the program writes these bytes, and [`DirectedFlow`] and [`Count`] are read from them.
//!
//! A key is 48 bytes: source and destination address (16 each, IPv4 in the first 4), source and destination port
//! in network order, outer and inner VLAN, IP version, 1 if the guest sent it, IP protocol, zeros. The key of a fragmented
//! datagram is the same with the IP identification in place of the ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::flows::directed_flow::{Count, DirectedFlow};

pub(crate) const KEY_BYTES: usize = 48;
pub(crate) const KEY_DESTINATION: i16 = 16;
pub(crate) const KEY_PORTS: i16 = 32;
pub(crate) const KEY_VLAN: i16 = 36;
pub(crate) const KEY_INNER_VLAN: i16 = 38;
pub(crate) const KEY_VERSION: i16 = 40;
pub(crate) const KEY_FROM_GUEST: i16 = 41;
pub(crate) const KEY_PROTOCOL: i16 = 42;

pub(crate) const COUNT_BYTES: usize = 80;
pub(crate) const COUNT_FIRST: i16 = 0;
pub(crate) const COUNT_LAST: i16 = 8;
pub(crate) const COUNT_PACKETS: i16 = 16;
pub(crate) const COUNT_OCTETS: i16 = 24;
pub(crate) const COUNT_FRAGMENTS: i16 = 32;
pub(crate) const COUNT_GUEST_MAC: i16 = 40;
/// The second (2^30 ns) of the last packet, and how many packets of that second went to the socket.
pub(crate) const COUNT_SLOT: i16 = 48;
pub(crate) const COUNT_PASSED: i16 = 56;
/// TCP: end of the newest data in sequence space, all flags seen, segments sent again.
pub(crate) const COUNT_HIGHEST: i16 = 64;
pub(crate) const COUNT_FLAGS: i16 = 68;
pub(crate) const COUNT_SENT_AGAIN: i16 = 72;

/// Entry of a datagram of which fragments are expected: key of its flow, time of the last fragment, a mark while the
/// flow is not known yet, and the counts of fragments that arrived before the first one.
pub(crate) const PART_BYTES: usize = 80;
pub(crate) const PART_SEEN: i16 = 48;
pub(crate) const PART_WAITS: i16 = 56;
pub(crate) const PART_PACKETS: i16 = 64;
pub(crate) const PART_OCTETS: i16 = 72;

pub(crate) const TOTAL_BYTES: usize = 128;
pub(crate) const TOTAL_FRAMES: i16 = 0;
pub(crate) const TOTAL_MALFORMED: i16 = 8;
pub(crate) const TOTAL_TOO_DEEP: i16 = 16;
pub(crate) const TOTAL_NO_ROOM: i16 = 24;
pub(crate) const TOTAL_STRAY_PACKETS: i16 = 32;
pub(crate) const TOTAL_STRAY_OCTETS: i16 = 40;
pub(crate) const TOTAL_STREAMS_NO_ROOM: i16 = 48;
/// First of the three budgets of packets for the socket, see [`Budget`].
const TOTAL_BUDGETS: i16 = 56;

/// Budget of packets that go to the socket, so that their cost does not grow with the traffic. In the totals each has 24
/// bytes: its tenth of a second (2^27 ns), packets passed in it, packets refused in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Budget {
    /// Frames that are not IP, and IP protocols of routers and groups.
    Control,
    /// First packets of each direction of a flow.
    First,
    /// The rest.
    More,
}

impl Budget {
    /// Most packets in 2^27 ns (134 ms).
    pub(crate) const fn most(self) -> i32 {
        match self {
            Self::First => 256,
            Self::Control | Self::More => 128,
        }
    }

    /// Offset in the totals.
    pub(crate) const fn at(self) -> i16 {
        TOTAL_BUDGETS
            + match self {
                Self::Control => 0,
                Self::First => 24,
                Self::More => 48,
            }
    }
}

pub(crate) const BUDGET_PASSED: i16 = 8;
pub(crate) const BUDGET_REFUSED: i16 = 16;

fn array<const N: usize>(bytes: &[u8], at: i16) -> Option<[u8; N]> {
    let at = usize::try_from(at).ok()?;
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn number(bytes: &[u8], at: i16) -> Option<u64> {
    array(bytes, at).map(u64::from_ne_bytes)
}

/// Reads a key; `None` for bytes that the program cannot have written.
pub(crate) fn read_directed_flow(key: &[u8]) -> Option<DirectedFlow> {
    let version = *key.get(usize::try_from(KEY_VERSION).ok()?)?;
    let address = |at| match version {
        4 => array::<4>(key, at).map(|octets| IpAddr::V4(Ipv4Addr::from(octets))),
        6 => array::<16>(key, at).map(|octets| IpAddr::V6(Ipv6Addr::from(octets))),
        _ => None,
    };
    let port = |at| array(key, at).map(u16::from_be_bytes);
    let vlan = |at| array(key, at).map(u16::from_ne_bytes);
    Some(DirectedFlow {
        from_guest: *key.get(usize::try_from(KEY_FROM_GUEST).ok()?)? == 1,
        protocol: *key.get(usize::try_from(KEY_PROTOCOL).ok()?)?,
        source: SocketAddr::new(address(0)?, port(KEY_PORTS)?),
        destination: SocketAddr::new(address(KEY_DESTINATION)?, port(KEY_PORTS + 2)?),
        vlan: vlan(KEY_VLAN)?,
        inner_vlan: vlan(KEY_INNER_VLAN)?,
    })
}

/// Reads the counters of one key.
pub(crate) fn read_count(value: &[u8]) -> Option<Count> {
    Some(Count {
        first_nanoseconds: number(value, COUNT_FIRST)?,
        last_nanoseconds: number(value, COUNT_LAST)?,
        packets: number(value, COUNT_PACKETS)?,
        bytes: number(value, COUNT_OCTETS)?,
        later_fragments: number(value, COUNT_FRAGMENTS)?,
        guest_mac: array(value, COUNT_GUEST_MAC)?,
        highest: array(value, COUNT_HIGHEST).map(u32::from_ne_bytes)?,
        flags: array(value, COUNT_FLAGS).map(u32::from_ne_bytes)?,
        sent_again: array(value, COUNT_SENT_AGAIN).map(u32::from_ne_bytes)?,
    })
}

/// Reads one of the totals.
pub(crate) fn read_total(value: &[u8], at: i16) -> Option<u64> {
    number(value, at)
}
