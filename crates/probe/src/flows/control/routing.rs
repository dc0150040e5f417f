//! Routing protocols: OSPF, EIGRP, IS-IS, RIP, LDP and BGP. Neighbours withdraw the guest's routes when its packets end.

use std::net::Ipv4Addr;

use super::{
    layers::Ports,
    statement::{NEVER, Statement},
};
use crate::flows::octets::Octets;

const OSPF: u8 = 89;
const EIGRP: u8 = 88;
const LDP_PORT: u16 = 646;
const BGP_PORT: u16 = 179;
/// Most messages of one segment that are read.
const MOST_MESSAGES: usize = 16;

pub(super) fn of_ip(protocol: u8, packet: Octets<'_>) -> Option<Statement> {
    match protocol {
        OSPF => ospf(packet),
        EIGRP => eigrp(packet),
        _ => None,
    }
}

pub(super) fn of_udp(ports: Ports, packet: Octets<'_>) -> Option<Statement> {
    match ports.destination {
        520 | 521 => {
            let [2, 1 | 2] = packet.array(0)? else { return None };
            let protocol = if ports.destination == 520 { "rip" } else { "ripng" };
            Some(Statement::of(protocol, "RFC 2453 section 3.8, time-out"))
        }
        LDP_PORT => ldp_hello(packet),
        _ => None,
    }
}

pub(super) fn of_tcp(ports: Ports, packet: Octets<'_>) -> Option<Statement> {
    if ports.has(BGP_PORT) {
        return Some(bgp(packet));
    }
    ports.has(LDP_PORT).then(|| ldp_session(packet))
}

/// A hello of OSPF; its dead interval is the same at both ends, else they would not be neighbours.
fn ospf(packet: Octets<'_>) -> Option<Statement> {
    let area = |packet: Octets<'_>| packet.u32(8).map(|area| format!("area {}", Ipv4Addr::from(area)));
    let (protocol, reference, interval, dead) = match packet.array(0)? {
        [2, 1] => ("ospf", "RFC 2328 section 9.5, RouterDeadInterval", packet.u16(28)?, packet.u32(32)?),
        [3, 1] => (
            "ospfv3",
            "RFC 5340 section A.3.2, RouterDeadInterval",
            packet.u16(24)?,
            u32::from(packet.u16(26)?),
        ),
        _ => return None,
    };
    // A hello interval of 0 stands for several hellos a second.
    let interval = (interval > 0).then(|| f64::from(interval));
    let hello = Statement { interval, ..Statement::of(protocol, reference) };
    Some(hello.named(area(packet)?).hold(f64::from(dead)))
}

/// A hello of EIGRP; each router states how long its neighbours shall wait for it.
fn eigrp(packet: Octets<'_>) -> Option<Statement> {
    let [2, 5] = packet.array(0)? else { return None };
    let system = packet.u16(18)?;
    let mut at = 20;
    for _ in 0..MOST_MESSAGES {
        let length = usize::from(packet.u16(at + 2)?);
        if packet.u16(at)? == 1 {
            let hold = f64::from(packet.u16(at + 10)?);
            let hello = Statement::of("eigrp", "RFC 7868 section 6.5.1, hold time");
            return Some(Statement { timeout: Some(hold), ..hello }.named(format!("AS {system}")));
        }
        at += length.max(4);
    }
    None
}

/// A hello of IS-IS; each router states how long its neighbours shall wait for it.
pub(super) fn isis(frame: Octets<'_>) -> Option<Statement> {
    if !frame.begins_with(&[0xfe, 0xfe, 0x03, 0x83]) {
        return None;
    }
    let packet = frame.from(3)?;
    let level = match packet.u8(4)? & 0x1f {
        15 => "level 1",
        16 => "level 2",
        17 => "point to point",
        _ => return None,
    };
    let hold = f64::from(packet.u16(15)?);
    let hello = Statement::of("isis", "ISO 10589 section 9.5, holding time");
    Some(Statement { timeout: Some(hold), ..hello }.named(level.to_owned()))
}

/// A hello of LDP; both ends use the shorter of the two hold times.
fn ldp_hello(packet: Octets<'_>) -> Option<Statement> {
    let (1, 0x0100, 0x0400) = (packet.u16(0)?, packet.u16(10)?, packet.u16(18)?) else { return None };
    let targeted = packet.u16(24)? & 0x8000 != 0;
    let seconds = match packet.u16(22)? {
        0 if targeted => 45.0,
        0 => 15.0,
        u16::MAX => NEVER,
        seconds => f64::from(seconds),
    };
    let name = if targeted { "targeted" } else { "" };
    Some(Statement::of("ldp-hello", "RFC 5036 section 3.5.2, hold time").named(name.to_owned()).hold(seconds))
}

/// A segment of an LDP session; both ends use the shorter of the two keep-alive times.
fn ldp_session(packet: Octets<'_>) -> Statement {
    let session = Statement {
        port: Some(LDP_PORT),
        keepalive: packet.u16(10) == Some(0x0201),
        ..Statement::of("ldp", "RFC 5036 section 3.5.3, keep-alive time")
    };
    match (packet.u16(10), packet.u16(18), packet.u16(24)) {
        (Some(0x0200), Some(0x0500), Some(seconds)) if seconds > 0 => session.hold(f64::from(seconds)),
        _ => session,
    }
}

/// A segment of a BGP session; both ends use the shorter of the two hold times.
fn bgp(segment: Octets<'_>) -> Statement {
    let mut bgp = Statement {
        port: Some(BGP_PORT),
        keepalive: false,
        ..Statement::of("bgp", "RFC 4271 section 4.2, hold time")
    };
    let mut at = 0;
    for _ in 0..MOST_MESSAGES {
        let Some(message) = segment.from(at).filter(|message| message.begins_with(&[0xff; 16])) else {
            break;
        };
        let (Some(length), Some(kind)) = (message.u16(16), message.u8(18)) else { break };
        match (kind, message.u16(22)) {
            (1, Some(0)) => bgp = bgp.hold(NEVER),
            (1, Some(hold)) => bgp = bgp.hold(f64::from(hold)),
            (3, _) => bgp.active = false,
            (4, _) => bgp.keepalive = true,
            _ => {}
        }
        at += usize::from(length.max(19));
    }
    bgp
}
