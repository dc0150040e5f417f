//! Carrier of a control protocol: addresses, VLAN, ports and payload.

use std::net::IpAddr;

use etherparse::TransportSlice;

use crate::flows::{octets::Octets, packet::Packet};

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
    /// The message of a packet; none for SYN, RST and bare acknowledgements.
    pub(super) fn of(packet: &Packet<'a>) -> Option<Self> {
        let (carrier, payload) = match &packet.transport {
            Some(TransportSlice::Udp(udp)) => {
                let ports = Ports { source: udp.source_port(), destination: udp.destination_port() };
                (Carrier::Udp(ports), Octets(udp.payload()))
            }
            Some(TransportSlice::Tcp(tcp)) => {
                if tcp.syn() || tcp.rst() || tcp.payload().is_empty() {
                    return None;
                }
                let ports = Ports { source: tcp.source_port(), destination: tcp.destination_port() };
                (Carrier::Tcp(ports), Octets(tcp.payload()))
            }
            _ => {
                let carrier = match packet.ip {
                    Some(ip) => Carrier::Ip(ip.protocol),
                    None if packet.kind <= LONGEST_LLC => Carrier::Llc,
                    None => Carrier::Ethernet(packet.kind),
                };
                (carrier, packet.body)
            }
        };
        Some(Self {
            vlan: Some(packet.vlan).filter(|id| *id != 0),
            stations: packet.stations,
            addresses: packet.ip.map(|ip| [ip.source, ip.destination]),
            carrier,
            payload,
        })
    }

    /// Ports of sender and receiver.
    pub(super) fn ports(&self) -> [Option<u16>; 2] {
        match self.carrier {
            Carrier::Udp(ports) | Carrier::Tcp(ports) => [Some(ports.source), Some(ports.destination)],
            Carrier::Ethernet(_) | Carrier::Llc | Carrier::Ip(_) => [None, None],
        }
    }
}
