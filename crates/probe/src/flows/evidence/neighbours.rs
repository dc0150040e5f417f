//! Behaviour of the guest as a neighbour: questions for its addresses, its answers and its announcements (ARP, RFC 826 and
//! 5227; NDP, RFC 4861).

use std::{collections::BTreeSet, net::IpAddr};

use vmgate_facts::WireNeighbours;

use crate::flows::packet::Packet;

const ARP: u16 = 0x0806;
const ICMPV6: u8 = 58;

/// Counts of questions, answers and announcements.
#[derive(Debug, Default)]
pub(super) struct Neighbours(WireNeighbours);

impl Neighbours {
    /// Takes in a packet; returns the address of the guest that it names.
    pub(super) fn observe(&mut self, packet: &Packet<'_>, own: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        if packet.kind == ARP { self.arp(packet, own) } else { self.ndp(packet, own) }
    }

    fn arp(&mut self, packet: &Packet<'_>, own: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        let body = packet.body;
        // Ethernet and IPv4 only.
        if !body.begins_with(&[0, 1, 8, 0, 6, 4]) {
            return None;
        }
        let (operation, sender, target) = (body.u16(6)?, body.v4(14)?, body.v4(24)?);
        let counts = &mut self.0;
        if !packet.from_guest {
            counts.questions += u64::from(operation == 1 && sender != target && own.contains(&target));
            return None;
        }
        if sender == target {
            counts.announcements += 1;
        } else if operation == 2 {
            counts.answers += 1;
        }
        // A probe for an address that may be taken has no sender yet.
        (!sender.is_unspecified()).then_some(sender)
    }

    fn ndp(&mut self, packet: &Packet<'_>, own: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        packet.ip.filter(|ip| ip.protocol == ICMPV6)?;
        let body = packet.body;
        let target = body.v6(8)?;
        match (body.u8(0)?, packet.from_guest) {
            (135, false) => self.0.questions += u64::from(own.contains(&target)),
            (136, true) => {
                let solicited = body.u8(4)? & 0x40 != 0;
                *(if solicited { &mut self.0.answers } else { &mut self.0.announcements }) += 1;
                return Some(target);
            }
            _ => {}
        }
        None
    }

    pub(super) fn finish(self) -> WireNeighbours {
        self.0
    }
}
