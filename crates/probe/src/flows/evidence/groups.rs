//! Memberships in multicast groups: reports of IGMP (RFC 1112, 2236, 9776) and MLD (RFC 2710, 9777), and the queries that ask
//! for them.

use std::{collections::BTreeMap, net::IpAddr};

use vmgate_facts::WireGroup;

use crate::flows::{octets::Octets, packet::Packet};

const IGMP: u8 = 2;
const ICMPV6: u8 = 58;
/// Most groups that are kept.
const MOST_GROUPS: usize = 1024;
/// Time for the answers to a query of IGMPv1.
const V1_ANSWERS_SECONDS: f64 = 10.0;

/// Groups that the guest reported.
#[derive(Debug, Default)]
pub(super) struct Groups {
    members: BTreeMap<(IpAddr, u16), &'static str>,
    /// Time at which all answers to a general query must have come, of the first query for IPv4 and IPv6.
    answered_by: [Option<f64>; 2],
    full: bool,
}

/// Report of one group: a membership, or its end.
#[derive(Clone, Copy)]
enum Report {
    Member,
    Left,
}

impl Groups {
    /// Takes in a packet.
    pub(super) fn observe(&mut self, packet: &Packet<'_>, now_seconds: f64) {
        let _ = match packet.ip.map(|ip| ip.protocol) {
            Some(IGMP) => self.igmp(packet, now_seconds),
            Some(ICMPV6) => self.mld(packet, now_seconds),
            _ => None,
        };
    }

    fn igmp(&mut self, packet: &Packet<'_>, now_seconds: f64) -> Option<()> {
        let body = packet.body;
        let (kind, code) = (body.u8(0)?, body.u8(1)?);
        let group = body.v4(4)?;
        match (kind, packet.from_guest) {
            (0x11, false) if group.is_unspecified() => {
                let answers = match code {
                    0 => V1_ANSWERS_SECONDS,
                    code => f64::from(floating(u16::from(code), 4)) / 10.0,
                };
                self.asked(0, now_seconds + answers);
            }
            (0x12, true) => self.note(group, packet, "IGMPv1", Report::Member),
            (0x16, true) => self.note(group, packet, "IGMPv2", Report::Member),
            (0x17, true) => self.note(group, packet, "IGMPv2", Report::Left),
            (0x22, true) => self.records(packet, "IGMPv3", 4, Octets::v4)?,
            _ => {}
        }
        Some(())
    }

    fn mld(&mut self, packet: &Packet<'_>, now_seconds: f64) -> Option<()> {
        let body = packet.body;
        match (body.u8(0)?, packet.from_guest) {
            (130, false) if body.v6(8)?.is_unspecified() => {
                let code = body.u16(4)?;
                // MLDv2 has a longer query, whose code is a floating point number above 32767.
                let milliseconds = if body.len() >= 28 { floating(code, 12) } else { u32::from(code) };
                self.asked(1, now_seconds + f64::from(milliseconds) / 1000.0);
            }
            (131, true) => self.note(body.v6(8)?, packet, "MLDv1", Report::Member),
            (132, true) => self.note(body.v6(8)?, packet, "MLDv1", Report::Left),
            (143, true) => self.records(packet, "MLDv2", 16, Octets::v6)?,
            _ => {}
        }
        Some(())
    }

    /// Group records of a report of IGMPv3 or MLDv2, whose addresses have this many bytes.
    fn records<'a>(
        &mut self,
        packet: &Packet<'a>,
        name: &'static str,
        address_bytes: usize,
        read: fn(Octets<'a>, usize) -> Option<IpAddr>,
    ) -> Option<()> {
        let count = packet.body.u16(6)?;
        let mut rest = packet.body.from(8)?;
        for _ in 0..count {
            let (kind, extra) = (rest.u8(0)?, usize::from(rest.u8(1)?));
            let sources = usize::from(rest.u16(2)?);
            let group = read(rest, 4)?;
            // Types 1 and 3 name the only sources that are wanted: without one, nothing is.
            match kind {
                1 | 3 if sources == 0 => self.note(group, packet, name, Report::Left),
                1..=5 => self.note(group, packet, name, Report::Member),
                _ => {}
            }
            rest = rest.from(4 + address_bytes * (1 + sources) + 4 * extra)?;
        }
        Some(())
    }

    fn note(&mut self, group: IpAddr, packet: &Packet<'_>, name: &'static str, report: Report) {
        if !group.is_multicast() {
            return;
        }
        let key = (group, packet.vlan);
        match report {
            Report::Left => {
                self.members.remove(&key);
            }
            Report::Member if self.members.len() < MOST_GROUPS => {
                self.members.insert(key, name);
            }
            Report::Member => self.full |= !self.members.contains_key(&key),
        }
    }

    fn asked(&mut self, family: usize, answered_by: f64) {
        if let Some(first) = self.answered_by.get_mut(family) {
            first.get_or_insert(answered_by);
        }
    }

    /// The groups, and whether these are all: both families were asked, and had the time to answer.
    pub(super) fn finish(self, window_seconds: f64) -> (Vec<WireGroup>, bool) {
        let complete =
            !self.full && self.answered_by.iter().all(|by| by.is_some_and(|by| by <= window_seconds));
        let groups = self.members.into_iter().map(|((address, vlan), name)| WireGroup {
            address: address.to_string(),
            reported_by: name.to_owned(),
            vlan: Some(vlan).filter(|id| *id != 0),
            link_local: stays_on_the_link(address),
        });
        (groups.collect(), complete)
    }
}

/// Code of a maximum response time: plain below its highest bit, else a floating point number (RFC 9776 section 4.1.1, RFC
/// 9777 section 5.1.3).
fn floating(code: u16, mantissa_bits: u32) -> u32 {
    let code = u32::from(code);
    if code >> (mantissa_bits + 3) == 0 {
        return code;
    }
    let mantissa = code & ((1 << mantissa_bits) - 1);
    let exponent = (code >> mantissa_bits) & 7;
    (mantissa | 1 << mantissa_bits) << (exponent + 3)
}

fn stays_on_the_link(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => group.octets().starts_with(&[224, 0, 0]),
        IpAddr::V6(group) => matches!(group.octets(), [_, flags, ..] if flags & 0xf <= 2),
    }
}
