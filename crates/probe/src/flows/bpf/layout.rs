//! Byte layout of the BPF maps: the program writes these bytes, and [`DirectedFlow`] and [`Count`] are read from them.
//!
//! A key is 48 bytes: source and destination address (16 each, IPv4 in the first 4), source and destination port
//! in network order, outer and inner VLAN, IP version, 1 if the guest sent it, zeros. The key of a fragmented
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

pub(crate) const COUNT_BYTES: usize = 48;
pub(crate) const COUNT_FIRST: i16 = 0;
pub(crate) const COUNT_LAST: i16 = 8;
pub(crate) const COUNT_PACKETS: i16 = 16;
pub(crate) const COUNT_OCTETS: i16 = 24;
pub(crate) const COUNT_FRAGMENTS: i16 = 32;
pub(crate) const COUNT_GUEST_MAC: i16 = 40;

/// Entry of a datagram of which fragments are expected: key of its flow, time of the last fragment, a mark while the
/// flow is not known yet, and the counts of fragments that arrived before the first one.
pub(crate) const PART_BYTES: usize = 80;
pub(crate) const PART_SEEN: i16 = 48;
pub(crate) const PART_WAITS: i16 = 56;
pub(crate) const PART_PACKETS: i16 = 64;
pub(crate) const PART_OCTETS: i16 = 72;

pub(crate) const TOTAL_BYTES: usize = 48;
pub(crate) const TOTAL_FRAMES: i16 = 0;
pub(crate) const TOTAL_MALFORMED: i16 = 8;
pub(crate) const TOTAL_TOO_DEEP: i16 = 16;
pub(crate) const TOTAL_NO_ROOM: i16 = 24;
pub(crate) const TOTAL_STRAY_PACKETS: i16 = 32;
pub(crate) const TOTAL_STRAY_OCTETS: i16 = 40;

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
    })
}

/// Reads one of the totals.
pub(crate) fn read_total(value: &[u8], at: i16) -> Option<u64> {
    number(value, at)
}
