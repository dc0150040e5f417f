//! From a captured frame to the UDP datagram, or fragment of one, that it carries.
//!
//! Headers are read with pnet, and every offset is checked here: frames come out of a guest, or from whoever sends
//! to it. What is decided here must be decided likewise by the counter in the kernel (`bpf::counter`).

use std::net::{IpAddr, SocketAddr};

use pnet::packet::ethernet::EthernetPacket;
use pnet::packet::ipv4::Ipv4Packet;
use pnet::packet::ipv6::{FragmentPacket, Ipv6Packet};
use pnet::packet::udp::UdpPacket;
use pnet::packet::vlan::VlanPacket;

use super::way::Way;

pub(crate) const UDP: u8 = 17;
pub(crate) const IPV6_FRAGMENT: u8 = 44;
pub(crate) const IPV6_AH: u8 = 51;
/// IPv6 extension headers of the common form: hop-by-hop, routing, destination options, mobility, HIP, shim6.
pub(crate) const EXTENSIONS: [u8; 6] = [0, 43, 60, 135, 139, 140];
/// EtherTypes of VLAN tags: 802.1Q, 802.1ad, and what was used before 802.1ad.
pub(crate) const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
/// VLAN tags within a frame that are looked through.
pub(crate) const DEEPEST_TAGS: usize = 2;
/// IPv6 extension headers that are looked through.
pub(crate) const DEEPEST_EXTENSIONS: usize = 8;
/// How long the fragments of a datagram are expected, in units of 2^30 ns: Linux gives up after 30 s.
pub(crate) const FRAGMENT_LIFE: u8 = 30;

/// A frame as a packet socket gives it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    /// Its beginning, from the Ethernet header on.
    pub(crate) bytes: &'a [u8],
    /// How long it was on the interface; never less than what is here.
    pub(crate) length: usize,
    /// The guest sent it.
    pub(crate) from_guest: bool,
    /// The tag control information, where the tag was taken out of the frame into its metadata.
    pub(crate) tag: Option<u16>,
    /// Payload of each packet that a segmentation-offloaded one will become; 0 for all others.
    pub(crate) segment_bytes: u16,
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// Not UDP.
    Other,
    /// Contradicts itself: no receiver accepts it.
    Malformed,
    /// Goes on beyond what is looked at, so that it may be UDP.
    TooDeep,
    /// UDP, with its ports.
    Datagram(Packet),
    /// A fragment after the first: the ports are 0 and the flow is that of the first.
    LaterFragment(Packet),
}

/// One packet of UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) way: Way,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    /// The guest's side of the Ethernet header.
    pub(crate) guest_mac: [u8; 6],
    /// The IP identification, where it is a fragment.
    pub(crate) identification: Option<u32>,
    /// Surely UDP; a later IPv6 fragment may begin with another header and not tell.
    pub(crate) surely_udp: bool,
}

/// Why there is no packet, as an error so that `?` serves.
struct No(Parsed);

/// Where the reading of a frame stands.
struct Reader<'a> {
    frame: Frame<'a>,
    at: usize,
}

/// Says what a frame is.
pub(crate) fn parse(frame: Frame<'_>) -> Parsed {
    match (Reader { frame, at: 0 }).frame() {
        Ok(parsed) | Err(No(parsed)) => parsed,
    }
}

impl<'a> Reader<'a> {
    /// The next `length` bytes. Missing ones are a contradiction, unless it was the capture that cut them off.
    fn peek(&self, length: usize) -> Result<&'a [u8], No> {
        let end = self.at.saturating_add(length);
        self.frame.bytes.get(self.at..end).ok_or(No(if end > self.frame.length {
            Parsed::Malformed
        } else {
            Parsed::TooDeep
        }))
    }

    fn frame(mut self) -> Result<Parsed, No> {
        let bytes = self.peek(EthernetPacket::minimum_packet_size())?;
        let ethernet = EthernetPacket::new(bytes).ok_or(No(Parsed::Malformed))?;
        let guest = if self.frame.from_guest { ethernet.get_source() } else { ethernet.get_destination() };
        let mut kind = ethernet.get_ethertype().0;
        let (mut vlan, mut inner_vlan) = (self.frame.tag.unwrap_or(0) & 0xfff, 0);
        self.at = bytes.len();
        for _ in 0..DEEPEST_TAGS {
            if !TAGS.contains(&kind) {
                break;
            }
            let bytes = self.peek(VlanPacket::minimum_packet_size())?;
            let tag = VlanPacket::new(bytes).ok_or(No(Parsed::Malformed))?;
            self.at += bytes.len();
            kind = tag.get_ethertype().0;
            match tag.get_vlan_identifier() {
                0 => {}
                id if vlan == 0 => vlan = id,
                id if inner_vlan == 0 => inner_vlan = id,
                _ => {}
            }
        }
        let link = Link { vlan, inner_vlan, guest_mac: guest.octets() };
        match i32::from(kind) {
            libc::ETH_P_IP => self.ipv4(link),
            libc::ETH_P_IPV6 => self.ipv6(link),
            _ if TAGS.contains(&kind) => Ok(Parsed::TooDeep),
            _ => Ok(Parsed::Other),
        }
    }

    /// The IP packet's length: what its header says, but never more than the frame holds.
    fn packet_length(&self, said: usize) -> usize {
        let held = self.frame.length.saturating_sub(self.at);
        if said == 0 || said > held { held } else { said }
    }

    fn ipv4(mut self, link: Link) -> Result<Parsed, No> {
        let header = Ipv4Packet::new(self.peek(20)?).ok_or(No(Parsed::Malformed))?;
        if header.get_version() != 4 || header.get_header_length() < 5 {
            return Err(No(Parsed::Malformed));
        }
        if header.get_next_level_protocol().0 != UDP {
            return Ok(Parsed::Other);
        }
        let packet = Ip {
            link,
            source: header.get_source().into(),
            destination: header.get_destination().into(),
            start: self.at,
            length: self.packet_length(usize::from(header.get_total_length())),
        };
        let identification = u32::from(header.get_identification());
        let more = header.get_flags() & 1 != 0;
        self.at += usize::from(header.get_header_length()) * 4;
        if header.get_fragment_offset() != 0 {
            return Ok(self.later_fragment(packet, identification, true));
        }
        self.udp(packet, more.then_some(identification))
    }

    fn ipv6(mut self, link: Link) -> Result<Parsed, No> {
        let header = Ipv6Packet::new(self.peek(40)?).ok_or(No(Parsed::Malformed))?;
        if header.get_version() != 6 {
            return Err(No(Parsed::Malformed));
        }
        let payload = usize::from(header.get_payload_length());
        let packet = Ip {
            link,
            source: header.get_source().into(),
            destination: header.get_destination().into(),
            start: self.at,
            length: self.packet_length(if payload == 0 { 0 } else { payload + 40 }),
        };
        let mut next = header.get_next_header().0;
        let mut fragment_of = None;
        self.at += 40;
        for _ in 0..DEEPEST_EXTENSIONS {
            match next {
                UDP => return self.udp(packet, fragment_of),
                IPV6_FRAGMENT => {
                    let header = FragmentPacket::new(self.peek(8)?).ok_or(No(Parsed::Malformed))?;
                    next = header.get_next_header().0;
                    self.at += 8;
                    // pnet's get_fragment_offset counts a reserved bit in.
                    let offset_and_more = header.get_fragment_offset_with_flags();
                    if offset_and_more & 0xfff8 != 0 {
                        return Ok(self.later_fragment(packet, header.get_id(), next == UDP));
                    }
                    fragment_of = (offset_and_more & 1 != 0).then_some(header.get_id());
                }
                IPV6_AH => next = self.skip(2, 4)?,
                _ if EXTENSIONS.contains(&next) => next = self.skip(1, 8)?,
                _ => return Ok(Parsed::Other),
            }
        }
        match next {
            UDP => self.udp(packet, fragment_of),
            IPV6_FRAGMENT | IPV6_AH => Ok(Parsed::TooDeep),
            _ if EXTENSIONS.contains(&next) => Ok(Parsed::TooDeep),
            _ => Ok(Parsed::Other),
        }
    }

    /// Steps over an extension header whose length field counts units and leaves some of them out.
    fn skip(&mut self, left_out: usize, unit: usize) -> Result<u8, No> {
        match self.peek(2)? {
            &[next, length] => {
                self.at += (usize::from(length) + left_out) * unit;
                Ok(next)
            }
            _ => Err(No(Parsed::Malformed)),
        }
    }

    fn udp(&self, ip: Ip, fragment_of: Option<u32>) -> Result<Parsed, No> {
        let header = UdpPacket::new(self.peek(8)?).ok_or(No(Parsed::Malformed))?;
        let headers = self.at - ip.start + 8;
        let Some(payload) = ip.length.checked_sub(headers) else {
            return Err(No(Parsed::Malformed));
        };
        let segments = match usize::from(self.frame.segment_bytes) {
            0 => 1,
            size => payload.div_ceil(size).max(1),
        };
        let mut packet = self.packet(ip, fragment_of);
        packet.way.source.set_port(header.get_source());
        packet.way.destination.set_port(header.get_destination());
        packet.packets = segments as u64;
        packet.bytes = (ip.length + (segments - 1) * headers) as u64;
        Ok(Parsed::Datagram(packet))
    }

    fn later_fragment(&self, ip: Ip, identification: u32, surely_udp: bool) -> Parsed {
        Parsed::LaterFragment(Packet { surely_udp, ..self.packet(ip, Some(identification)) })
    }

    fn packet(&self, ip: Ip, identification: Option<u32>) -> Packet {
        Packet {
            way: Way {
                from_guest: self.frame.from_guest,
                source: SocketAddr::new(ip.source, 0),
                destination: SocketAddr::new(ip.destination, 0),
                vlan: ip.link.vlan,
                inner_vlan: ip.link.inner_vlan,
            },
            packets: 1,
            bytes: ip.length as u64,
            guest_mac: ip.link.guest_mac,
            identification,
            surely_udp: true,
        }
    }
}

/// What the link layer said.
#[derive(Clone, Copy)]
struct Link {
    vlan: u16,
    inner_vlan: u16,
    guest_mac: [u8; 6],
}

/// What the IP header said.
#[derive(Clone, Copy)]
struct Ip {
    link: Link,
    source: IpAddr,
    destination: IpAddr,
    start: usize,
    length: usize,
}
