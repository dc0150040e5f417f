//! Headers of one frame: link, IP, and what follows them. Every offset is checked; a frame that ends too early has no
//! packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::flows::parse::{DEEPEST_EXTENSIONS, DEEPEST_TAGS, EXTENSIONS, IPV6_AH, IPV6_FRAGMENT, TAGS};

/// TTLs (hop limits) with which systems send. A packet that was forwarded has a lower one.
const INITIAL_HOPS: [u8; 3] = [64, 128, 255];

/// Headers of one frame, and the bytes after them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet<'a> {
    pub(super) from_guest: bool,
    /// Hardware address that sent it.
    pub(super) sender: [u8; 6],
    pub(super) kind: u16,
    pub(super) vlan: u16,
    pub(super) inner_vlan: u16,
    pub(super) ip: Option<Ip>,
    /// The packet after the headers that were read; it may be cut off.
    pub(super) body: &'a [u8],
}

/// Fields of an IP header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ip {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) hops: u8,
    pub(super) protocol: u8,
    /// Length of the body as the header has it.
    pub(super) body_length: usize,
}

impl<'a> Packet<'a> {
    /// Headers of a frame; none for a frame whose headers are cut off or wrong, and for later fragments.
    pub(super) fn of(frame: &'a [u8], from_guest: bool) -> Option<Self> {
        let (mut kind, mut rest) = (number(frame, 12)?, frame.get(14..)?);
        let mut tags = [0; DEEPEST_TAGS];
        for tag in &mut tags {
            if !TAGS.contains(&kind) {
                break;
            }
            *tag = number(rest, 0)? & 0xfff;
            (kind, rest) = (number(rest, 2)?, rest.get(4..)?);
        }
        let mut ids = tags.into_iter().filter(|id| *id != 0);
        let (vlan, inner_vlan) = (ids.next().unwrap_or(0), ids.next().unwrap_or(0));
        let (ip, body) = match i32::from(kind) {
            libc::ETH_P_IP => ipv4(rest).map(|(ip, body)| (Some(ip), body))?,
            libc::ETH_P_IPV6 => ipv6(rest).map(|(ip, body)| (Some(ip), body))?,
            _ => (None, rest),
        };
        let sender = *frame.get(6..)?.first_chunk()?;
        Some(Self { from_guest, sender, kind, vlan, inner_vlan, ip, body })
    }

    /// True for an IP packet of another machine that the guest forwards.
    pub(super) fn is_forwarded(&self) -> bool {
        self.from_guest && self.ip.is_some_and(|ip| !INITIAL_HOPS.contains(&ip.hops))
    }

    /// Address of the guest, if the guest made this packet itself and did not forward it.
    pub(super) fn own_address(&self) -> Option<IpAddr> {
        let ip = self.ip.filter(|_| self.from_guest && !self.is_forwarded())?;
        (!ip.source.is_unspecified() && !ip.source.is_multicast()).then_some(ip.source)
    }
}

/// Number of two bytes in network order.
pub(super) fn number(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|two| u16::from_be_bytes(*two))
}

/// Number of four bytes in network order.
pub(super) fn long(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|four| u32::from_be_bytes(*four))
}

/// IPv4 address at an offset.
pub(super) fn v4(bytes: &[u8], at: usize) -> Option<IpAddr> {
    long(bytes, at).map(|address| Ipv4Addr::from(address).into())
}

/// IPv6 address at an offset.
pub(super) fn v6(bytes: &[u8], at: usize) -> Option<IpAddr> {
    bytes.get(at..)?.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets).into())
}

fn ipv4(packet: &[u8]) -> Option<(Ip, &[u8])> {
    let first = *packet.first()?;
    let header = usize::from(first & 0xf) * 4;
    let later_fragment = number(packet, 6)? & 0x1fff != 0;
    if first >> 4 != 4 || header < 20 || later_fragment {
        return None;
    }
    let ip = Ip {
        source: v4(packet, 12)?,
        destination: v4(packet, 16)?,
        hops: *packet.get(8)?,
        protocol: *packet.get(9)?,
        body_length: usize::from(number(packet, 2)?).checked_sub(header)?,
    };
    packet.get(header..).map(|body| (ip, trimmed(body, ip.body_length)))
}

fn ipv6(packet: &[u8]) -> Option<(Ip, &[u8])> {
    if *packet.first()? >> 4 != 6 {
        return None;
    }
    let (mut protocol, mut body) = (*packet.get(6)?, packet.get(40..)?);
    let mut left = usize::from(number(packet, 4)?);
    for _ in 0..=DEEPEST_EXTENSIONS {
        let length = match protocol {
            IPV6_FRAGMENT if number(body, 2)? & 0xfff8 != 0 => return None,
            IPV6_FRAGMENT => 8,
            IPV6_AH => (usize::from(*body.get(1)?) + 2) * 4,
            next if EXTENSIONS.contains(&next) => (usize::from(*body.get(1)?) + 1) * 8,
            _ => {
                let ip = Ip {
                    source: v6(packet, 8)?,
                    destination: v6(packet, 24)?,
                    hops: *packet.get(7)?,
                    protocol,
                    body_length: left,
                };
                return Some((ip, trimmed(body, left)));
            }
        };
        protocol = *body.first()?;
        body = body.get(length..)?;
        left = left.checked_sub(length)?;
    }
    None
}

/// The body without the padding of the frame.
fn trimmed(body: &[u8], length: usize) -> &[u8] {
    body.get(..length).unwrap_or(body)
}
