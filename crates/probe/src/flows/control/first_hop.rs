//! First-hop redundancy: VRRP, CARP, HSRP and GLBP. The backups take the guest's address over when its packets end.

use super::{
    layers::Ports,
    statement::{Statement, milliseconds},
};
use crate::flows::octets::Octets;

/// IP protocol of VRRP, and of CARP, which uses the same number.
const VRRP: u8 = 112;
/// Words of CARP's authentication data: tells its packets from those of VRRP version 2.
const CARP_WORDS: u8 = 7;
const HSRP_PORTS: [u16; 2] = [1985, 2029];
const GLBP_PORT: u16 = 3222;

/// Missed advertisements after which a backup becomes the master, without the skew, which only adds to it.
const MISSED: u32 = 3;

pub(super) fn of_ip(protocol: u8, packet: Octets<'_>) -> Option<Statement> {
    if protocol != VRRP {
        return None;
    }
    let [kind, id, third, fourth, _, sixth] = packet.array(0)?;
    match kind {
        0x21 if fourth == CARP_WORDS && packet.0.len() >= 36 => {
            let interval = f64::from(sixth) + f64::from(third) / 256.0;
            let carp = Statement::of("carp", "carp(4): 3 × (advbase + advskew / 256)");
            Some(
                Statement { role: Some("master"), ..carp }
                    .named(format!("VHID {id}"))
                    .every(interval, MISSED),
            )
        }
        0x21 => {
            let vrrp = Statement::of("vrrp", "RFC 3768 section 6.1, Master_Down_Interval");
            Some(master(vrrp, id, third, f64::from(sixth)))
        }
        0x31 => {
            let centiseconds = packet.u16(4)? & 0x0fff;
            let vrrp = Statement::of("vrrp", "RFC 9568 section 6.1, Active_Down_Interval");
            Some(master(vrrp, id, third, f64::from(centiseconds) / 100.0))
        }
        _ => None,
    }
}

/// An advertisement; with priority 0 the master gives the address up.
fn master(vrrp: Statement, id: u8, priority: u8, interval: f64) -> Statement {
    let vrrp = Statement { role: Some("master"), active: priority > 0, ..vrrp };
    vrrp.named(format!("VRID {id}")).every(interval, MISSED)
}

pub(super) fn of_udp(ports: Ports, packet: Octets<'_>) -> Option<Statement> {
    if HSRP_PORTS.contains(&ports.destination) {
        return hsrp_1(packet).or_else(|| hsrp_2(packet));
    }
    (ports.destination == GLBP_PORT).then(|| glbp(packet)).flatten()
}

/// HSRP version 1: times in seconds.
fn hsrp_1(packet: Octets<'_>) -> Option<Statement> {
    let [0, 0, state, hello, hold, _, group, _] = packet.array(0)? else { return None };
    let role = match state {
        16 => "active",
        8 => "standby",
        4 => "speak",
        _ => "listen",
    };
    Some(hsrp(u16::from(group), role, f64::from(hello), f64::from(hold)))
}

/// HSRP version 2, whose packets are lists of TLVs: times in milliseconds.
fn hsrp_2(packet: Octets<'_>) -> Option<Statement> {
    let [1, 40, 2, 0, state, _] = packet.array(0)? else { return None };
    let role = match state {
        6 => "active",
        5 => "standby",
        4 => "speak",
        _ => "listen",
    };
    Some(hsrp(packet.u16(6)?, role, milliseconds(packet.u32(18)?), milliseconds(packet.u32(22)?)))
}

/// A hello of HSRP; only the active and the standby router are missed.
fn hsrp(group: u16, role: &'static str, hello: f64, hold: f64) -> Statement {
    let active = matches!(role, "active" | "standby");
    let hsrp = Statement::of("hsrp", "RFC 2281 section 5.3, holdtime");
    let hsrp = Statement { role: Some(role), active, interval: Some(hello), ..hsrp };
    hsrp.named(format!("group {group}")).hold(hold)
}

/// GLBP, whose format is not published: the hello TLV as decoders read it.
fn glbp(packet: Octets<'_>) -> Option<Statement> {
    let group = packet.u16(2)?;
    let mut at = 12;
    for _ in 0..16 {
        let [kind, length] = packet.array(at)?;
        if kind == 1 && length >= 16 {
            let role = match packet.u8(at + 3)? {
                32 => "active",
                16 => "standby",
                _ => "listen",
            };
            let active = role != "listen";
            let glbp = Statement::of("glbp", "Cisco GLBP, holdtime");
            let interval = Some(milliseconds(packet.u32(at + 8)?));
            let glbp = Statement { role: Some(role), active, interval, ..glbp };
            return Some(glbp.named(format!("group {group}")).hold(milliseconds(packet.u32(at + 12)?)));
        }
        at += usize::from(length.max(2));
    }
    None
}
