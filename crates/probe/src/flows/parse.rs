//! Parser of captured frames: finds the flow or stream that a frame belongs to.
//!
//! Every offset is checked: frames come from a guest or from any sender on the network. The counter in the kernel (`bpf::counter`) must classify every frame alike.

use std::net::{IpAddr, SocketAddr};

use crate::flows::directed_flow::{ACK, DirectedFlow, FIN, OPENING, RST, SYN};

/// Length of the Ethernet header.
const ETHERNET: usize = 14;
/// Length of a VLAN tag.
const TAG: usize = 4;
/// The flag of IPv4 that more fragments follow.
const MORE_FRAGMENTS: u16 = 0x2000;
pub(crate) const UDP: u8 = 17;
pub(crate) const TCP: u8 = 6;
pub(crate) const SCTP: u8 = 132;
/// Bytes of a TCP header up to its flags.
pub(crate) const TCP_READ: usize = 14;
/// IP protocols of routers and groups: IGMP, ICMPv6, EIGRP, OSPF, PIM, and VRRP or CARP.
pub(crate) const CONTROL_PROTOCOLS: [u8; 6] = [2, 58, 88, 89, 103, 112];
pub(crate) const IPV6_FRAGMENT: u8 = 44;
pub(crate) const IPV6_AH: u8 = 51;
/// IPv6 extension headers of the common form: hop-by-hop, routing, destination options, mobility, HIP, shim6.
pub(crate) const EXTENSIONS: [u8; 6] = [0, 43, 60, 135, 139, 140];
/// EtherTypes of VLAN tags: 802.1Q, 802.1ad, and the one in use before 802.1ad.
pub(crate) const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
/// Most VLAN tags in a frame that are read.
pub(crate) const DEEPEST_TAGS: usize = 2;
/// Most IPv6 extension headers that are read.
pub(crate) const DEEPEST_EXTENSIONS: usize = 8;
/// Longest wait for the fragments of a datagram, in units of 2^30 ns: Linux gives up after 30 s.
pub(crate) const FRAGMENT_LIFE: u8 = 30;

/// A frame from a packet socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    /// Captured bytes, from the Ethernet header on.
    pub(crate) bytes: &'a [u8],
    /// Length on the interface; never less than the captured bytes.
    pub(crate) length: usize,
    /// True if the guest sent it.
    pub(crate) from_guest: bool,
    /// Tag control information, if the kernel moved the tag from the frame to its metadata.
    pub(crate) tag: Option<u16>,
    /// Payload of each segment of a segmentation-offloaded packet; 0 for all others.
    pub(crate) segment_bytes: u16,
}

/// A parsed frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ParsedFrame {
    /// Not IP, or a later fragment of something that is not UDP.
    Other,
    /// Headers are inconsistent: no receiver accepts it.
    Malformed,
    /// More headers than the parser reads, so it may be UDP.
    TooDeep,
    /// UDP, with its ports.
    Datagram(Packet),
    /// A fragment after the first: its ports are 0, and it belongs to the flow of the first fragment.
    LaterFragment(Packet),
    /// A packet of any other protocol.
    Stream(Packet, Segment),
}

/// Fields of a TCP header that tell repetitions from new data; zeros for other protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Segment {
    pub(crate) sequence: u32,
    /// Bytes of data.
    pub(crate) data: u32,
    /// Flags, as `directed_flow` names them.
    pub(crate) flags: u32,
}

/// One packet of a flow or stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) directed: DirectedFlow,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    /// The guest's side of the Ethernet header.
    pub(crate) guest_mac: [u8; 6],
    /// The IP identification, if the packet is a fragment.
    pub(crate) identification: Option<u32>,
    /// True if it is certainly UDP; a later IPv6 fragment may hide another header.
    pub(crate) surely_udp: bool,
}

/// Early result for a frame without a UDP packet, as an error so that `?` can return it.
struct NoPacket(ParsedFrame);

/// A frame and the current offset in it.
struct Reader<'a> {
    frame: Frame<'a>,
    at: usize,
}

/// Parses a frame.
pub(crate) fn parse(frame: Frame<'_>) -> ParsedFrame {
    match (Reader { frame, at: 0 }).frame() {
        Ok(parsed) | Err(NoPacket(parsed)) => parsed,
    }
}

impl<'a> Reader<'a> {
    /// The next `length` bytes. Missing bytes make the frame malformed, unless the capture cut them off.
    fn peek(&self, length: usize) -> Result<&'a [u8], NoPacket> {
        let end = self.at.saturating_add(length);
        self.frame.bytes.get(self.at..end).ok_or(NoPacket(if end > self.frame.length {
            ParsedFrame::Malformed
        } else {
            ParsedFrame::TooDeep
        }))
    }

    /// A field of a header, at its offset there.
    fn field<const N: usize>(&self, offset: usize) -> Result<[u8; N], NoPacket> {
        let header = self.peek(offset + N)?;
        header.get(offset..).and_then(<[u8]>::first_chunk).copied().ok_or(NoPacket(ParsedFrame::Malformed))
    }

    /// A number of two bytes.
    fn number(&self, offset: usize) -> Result<u16, NoPacket> {
        self.field(offset).map(u16::from_be_bytes)
    }

    fn frame(mut self) -> Result<ParsedFrame, NoPacket> {
        self.peek(ETHERNET)?;
        let guest_mac = self.field(if self.frame.from_guest { 6 } else { 0 })?;
        let mut kind = self.number(12)?;
        let (mut vlan, mut inner_vlan) = (self.frame.tag.unwrap_or(0) & 0xfff, 0);
        self.at = ETHERNET;
        for _ in 0..DEEPEST_TAGS {
            if !TAGS.contains(&kind) {
                break;
            }
            kind = self.number(2)?;
            let id = self.number(0)? & 0xfff;
            self.at += TAG;
            match id {
                0 => {}
                id if vlan == 0 => vlan = id,
                id if inner_vlan == 0 => inner_vlan = id,
                _ => {}
            }
        }
        let link = Link { vlan, inner_vlan, guest_mac };
        match i32::from(kind) {
            libc::ETH_P_IP => self.ipv4(link),
            libc::ETH_P_IPV6 => self.ipv6(link),
            _ if TAGS.contains(&kind) => Ok(ParsedFrame::TooDeep),
            _ => Ok(ParsedFrame::Other),
        }
    }

    /// The IP packet's length: the length in its header, but never more than the frame holds.
    fn packet_length(&self, declared: usize) -> usize {
        let held = self.frame.length.saturating_sub(self.at);
        if declared == 0 || declared > held { held } else { declared }
    }

    fn ipv4(mut self, link: Link) -> Result<ParsedFrame, NoPacket> {
        self.peek(20)?;
        let [version_and_words] = self.field(0)?;
        let words = version_and_words & 0xf;
        if version_and_words >> 4 != 4 || words < 5 {
            return Err(NoPacket(ParsedFrame::Malformed));
        }
        let [protocol] = self.field(9)?;
        let packet = Ip {
            link,
            source: self.field::<4>(12)?.into(),
            destination: self.field::<4>(16)?.into(),
            start: self.at,
            length: self.packet_length(usize::from(self.number(2)?)),
        };
        let identification = u32::from(self.number(4)?);
        let flags_and_offset = self.number(6)?;
        self.at += usize::from(words) * 4;
        match protocol {
            UDP => {}
            _ if flags_and_offset & 0x1fff != 0 => return Ok(ParsedFrame::Other),
            _ => return self.stream(packet, protocol),
        }
        if flags_and_offset & 0x1fff != 0 {
            return Ok(self.later_fragment(packet, identification, true));
        }
        self.udp(packet, (flags_and_offset & MORE_FRAGMENTS != 0).then_some(identification))
    }

    fn ipv6(mut self, link: Link) -> Result<ParsedFrame, NoPacket> {
        self.peek(40)?;
        let [version] = self.field(0)?;
        if version >> 4 != 6 {
            return Err(NoPacket(ParsedFrame::Malformed));
        }
        let payload = usize::from(self.number(4)?);
        let packet = Ip {
            link,
            source: self.field::<16>(8)?.into(),
            destination: self.field::<16>(24)?.into(),
            start: self.at,
            length: self.packet_length(if payload == 0 { 0 } else { payload + 40 }),
        };
        let [mut next] = self.field(6)?;
        let mut fragment_of = None;
        self.at += 40;
        for _ in 0..DEEPEST_EXTENSIONS {
            match next {
                UDP => return self.udp(packet, fragment_of),
                IPV6_FRAGMENT => {
                    let identification = u32::from_be_bytes(self.field(4)?);
                    let offset_and_more = self.number(2)?;
                    [next] = self.field(0)?;
                    self.at += 8;
                    if offset_and_more & 0xfff8 != 0 {
                        return Ok(self.later_fragment(packet, identification, next == UDP));
                    }
                    fragment_of = (offset_and_more & 1 != 0).then_some(identification);
                }
                IPV6_AH => next = self.skip(2, 4)?,
                _ if EXTENSIONS.contains(&next) => next = self.skip(1, 8)?,
                _ => return self.stream(packet, next),
            }
        }
        match next {
            UDP => self.udp(packet, fragment_of),
            IPV6_FRAGMENT | IPV6_AH => Ok(ParsedFrame::TooDeep),
            _ if EXTENSIONS.contains(&next) => Ok(ParsedFrame::TooDeep),
            _ => self.stream(packet, next),
        }
    }

    /// Skips an extension header whose length field counts units, without the first `left_out` ones.
    fn skip(&mut self, left_out: usize, unit: usize) -> Result<u8, NoPacket> {
        match self.peek(2)? {
            &[next, length] => {
                self.at += (usize::from(length) + left_out) * unit;
                Ok(next)
            }
            _ => Err(NoPacket(ParsedFrame::Malformed)),
        }
    }

    fn udp(&self, ip: Ip, fragment_of: Option<u32>) -> Result<ParsedFrame, NoPacket> {
        self.peek(8)?;
        let headers = self.at - ip.start + 8;
        let Some(payload) = ip.length.checked_sub(headers) else {
            return Err(NoPacket(ParsedFrame::Malformed));
        };
        let segments = match usize::from(self.frame.segment_bytes) {
            0 => 1,
            size => payload.div_ceil(size).max(1),
        };
        let mut packet = self.packet(ip, fragment_of);
        packet.directed.source.set_port(self.number(0)?);
        packet.directed.destination.set_port(self.number(2)?);
        packet.packets = segments as u64;
        packet.bytes = (ip.length + (segments - 1) * headers) as u64;
        Ok(ParsedFrame::Datagram(packet))
    }

    fn stream(&self, ip: Ip, protocol: u8) -> Result<ParsedFrame, NoPacket> {
        let mut packet = self.packet(ip, None);
        packet.directed.protocol = protocol;
        if !matches!(protocol, TCP | SCTP) {
            return Ok(ParsedFrame::Stream(packet, Segment::default()));
        }
        self.peek(if protocol == TCP { TCP_READ } else { 4 })?;
        packet.directed.source.set_port(self.number(0)?);
        packet.directed.destination.set_port(self.number(2)?);
        if protocol == SCTP {
            return Ok(ParsedFrame::Stream(packet, Segment::default()));
        }
        let [words, flags] = self.field(12)?;
        let headers = self.at - ip.start + usize::from(words >> 4) * 4;
        let flags = match u32::from(flags) & (FIN | SYN | RST | ACK) {
            SYN => SYN | OPENING,
            flags => flags,
        };
        let segment = Segment {
            sequence: u32::from_be_bytes(self.field(4)?),
            data: u32::try_from(ip.length.saturating_sub(headers)).unwrap_or(0),
            flags,
        };
        Ok(ParsedFrame::Stream(packet, segment))
    }

    fn later_fragment(&self, ip: Ip, identification: u32, surely_udp: bool) -> ParsedFrame {
        ParsedFrame::LaterFragment(Packet { surely_udp, ..self.packet(ip, Some(identification)) })
    }

    fn packet(&self, ip: Ip, identification: Option<u32>) -> Packet {
        Packet {
            directed: DirectedFlow {
                from_guest: self.frame.from_guest,
                protocol: UDP,
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

/// Fields of the link layer.
#[derive(Clone, Copy)]
struct Link {
    vlan: u16,
    inner_vlan: u16,
    guest_mac: [u8; 6],
}

/// Fields of the IP header, with the link layer.
#[derive(Clone, Copy)]
struct Ip {
    link: Link,
    source: IpAddr,
    destination: IpAddr,
    start: usize,
    length: usize,
}
