//! Layers of a frame below the control protocol: addresses, VLAN, ports and payload.

use std::net::IpAddr;

use etherparse::{LaxNetSlice, LaxSlicedPacket, LinkSlice, TransportSlice};

use super::octets::Octets;

/// Largest value of the type field that is a length: an LLC frame (IEEE 802.3).
const LONGEST_LLC: u16 = 1500;

/// Ports of a datagram or segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) source: u16,
    pub(super) destination: u16,
}

impl Ports {
    /// True if one end uses the port.
    pub(super) fn has(self, port: u16) -> bool {
        self.source == port || self.destination == port
    }
}

/// Layer that carries the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    /// A frame of this EtherType.
    Ethernet(u16),
    /// A frame with a length in place of the type.
    Llc,
    /// An IP packet of this protocol.
    Ip(u8),
    Udp(Ports),
    Tcp(Ports),
}

/// A packet and its addresses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) vlan: Option<u16>,
    /// Ethernet addresses of sender and receiver.
    pub(super) stations: [[u8; 6]; 2],
    /// IP addresses of sender and receiver.
    pub(super) addresses: Option<[IpAddr; 2]>,
    pub(super) carrier: Carrier,
    pub(super) payload: Octets<'a>,
}

impl<'a> Message<'a> {
    /// The message of a frame; none if it carries no payload that could be read: fragments, SYN and RST, bare acknowledgements.
    pub(super) fn of(frame: &'a [u8]) -> Option<Self> {
        let packet = LaxSlicedPacket::from_ethernet(frame).ok()?;
        let Some(LinkSlice::Ethernet2(ethernet)) = &packet.link else { return None };
        let stations = [ethernet.source(), ethernet.destination()];
        let vlan = packet.vlan_ids().iter().map(|id| id.value()).find(|id| *id != 0);
        let addresses = packet.net.as_ref().and_then(addresses);
        let (carrier, payload) = match &packet.transport {
            Some(TransportSlice::Udp(udp)) => {
                let ports = Ports { source: udp.source_port(), destination: udp.destination_port() };
                (Carrier::Udp(ports), udp.payload())
            }
            Some(TransportSlice::Tcp(tcp)) => {
                if tcp.syn() || tcp.rst() || tcp.payload().is_empty() {
                    return None;
                }
                let ports = Ports { source: tcp.source_port(), destination: tcp.destination_port() };
                (Carrier::Tcp(ports), tcp.payload())
            }
            Some(_) => return None,
            None => match packet.ip_payload() {
                Some(ip) if ip.fragmented => return None,
                Some(ip) => (Carrier::Ip(ip.ip_number.0), ip.payload),
                None => {
                    let ether = packet.ether_payload()?;
                    let kind = ether.ether_type.0;
                    let carrier = if kind <= LONGEST_LLC { Carrier::Llc } else { Carrier::Ethernet(kind) };
                    (carrier, ether.payload)
                }
            },
        };
        Some(Self { vlan, stations, addresses, carrier, payload: Octets(payload) })
    }

    /// Ports of sender and receiver.
    pub(super) fn ports(&self) -> [Option<u16>; 2] {
        match self.carrier {
            Carrier::Udp(ports) | Carrier::Tcp(ports) => [Some(ports.source), Some(ports.destination)],
            Carrier::Ethernet(_) | Carrier::Llc | Carrier::Ip(_) => [None, None],
        }
    }
}

fn addresses(net: &LaxNetSlice<'_>) -> Option<[IpAddr; 2]> {
    match net {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            Some([header.source_addr().into(), header.destination_addr().into()])
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            Some([header.source_addr().into(), header.destination_addr().into()])
        }
        LaxNetSlice::Arp(_) => None,
    }
}
