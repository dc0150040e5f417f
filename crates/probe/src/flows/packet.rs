//! Headers of one captured frame, and the octets after them. A frame that was cut off has the headers that are whole.

use std::net::IpAddr;

use etherparse::{LaxNetSlice, LaxSlicedPacket, LinkSlice, TransportSlice};

use super::octets::Octets;

/// TTLs (hop limits) with which systems send. A packet that was forwarded has a lower one.
const INITIAL_HOPS: [u8; 3] = [64, 128, 255];

/// A frame by its headers.
#[derive(Debug, Clone)]
pub(super) struct Packet<'a> {
    pub(super) from_guest: bool,
    /// Ethernet addresses of sender and receiver.
    pub(super) stations: [[u8; 6]; 2],
    /// EtherType behind the VLAN tags; at most 1500 is the length of an LLC frame.
    pub(super) kind: u16,
    /// Outer and inner VLAN; 0 for none.
    pub(super) vlan: u16,
    pub(super) inner_vlan: u16,
    pub(super) ip: Option<Ip>,
    pub(super) transport: Option<TransportSlice<'a>>,
    /// Octets after the headers of link and IP.
    pub(super) body: Octets<'a>,
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
    /// Headers of a frame; none for a fragment, and for a frame without an Ethernet header.
    pub(super) fn of(frame: &'a [u8], from_guest: bool) -> Option<Self> {
        let sliced = LaxSlicedPacket::from_ethernet(frame).ok()?;
        let Some(LinkSlice::Ethernet2(ethernet)) = &sliced.link else { return None };
        let link_body = sliced.ether_payload()?;
        let mut tags = sliced.vlan_ids().into_iter().map(etherparse::VlanId::value).filter(|id| *id != 0);
        let (ip, body) = match sliced.ip_payload() {
            Some(payload) if payload.fragmented => return None,
            Some(payload) => (sliced.net.as_ref().and_then(Ip::of), payload.payload),
            None => (None, link_body.payload),
        };
        Some(Self {
            from_guest,
            stations: [ethernet.source(), ethernet.destination()],
            kind: link_body.ether_type.0,
            vlan: tags.next().unwrap_or(0),
            inner_vlan: tags.next().unwrap_or(0),
            ip,
            transport: sliced.transport,
            body: Octets(body),
        })
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

impl Ip {
    fn of(net: &LaxNetSlice<'_>) -> Option<Self> {
        match net {
            LaxNetSlice::Ipv4(packet) => {
                let header = packet.header();
                let extensions = packet.extensions().auth.map_or(0, |one| one.slice().len());
                Some(Self {
                    source: header.source_addr().into(),
                    destination: header.destination_addr().into(),
                    hops: header.ttl(),
                    protocol: packet.payload_ip_number().0,
                    body_length: usize::from(header.payload_len().unwrap_or(0)).saturating_sub(extensions),
                })
            }
            LaxNetSlice::Ipv6(packet) => {
                let header = packet.header();
                let extensions = packet.extensions().slice().len();
                Some(Self {
                    source: header.source_addr().into(),
                    destination: header.destination_addr().into(),
                    hops: header.hop_limit(),
                    protocol: packet.payload().ip_number.0,
                    body_length: usize::from(header.payload_length()).saturating_sub(extensions),
                })
            }
            LaxNetSlice::Arp(_) => None,
        }
    }
}
