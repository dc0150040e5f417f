//! Protocols of the link: LACP, spanning tree, LLDP, connectivity fault management, and PTP.

use super::{layers::Ports, statement::Statement};
use crate::flows::{lldp, octets::Octets};

const SLOW_PROTOCOLS: u16 = 0x8809;
const LLDP: u16 = 0x88cc;
const PTP: u16 = 0x88f7;
const CFM: u16 = 0x8902;
const PTP_PORTS: [u16; 2] = [319, 320];

/// Bits of the state in LACP: a short time-out, and traffic that is distributed.
const SHORT_TIMEOUT: u8 = 0x02;
const DISTRIBUTING: u8 = 0x20;

pub(super) fn of_ethertype(kind: u16, frame: Octets<'_>) -> Option<Statement> {
    match kind {
        SLOW_PROTOCOLS => lacp(frame),
        LLDP => lldp(frame),
        PTP => ptp(frame),
        CFM => continuity_check(frame),
        _ => None,
    }
}

pub(super) fn of_llc(frame: Octets<'_>) -> Option<Statement> {
    frame.begins_with(&[0x42, 0x42, 0x03]).then(|| spanning_tree(frame.from(3)?)).flatten()
}

pub(super) fn of_udp(ports: Ports, packet: Octets<'_>) -> Option<Statement> {
    PTP_PORTS.contains(&ports.destination).then(|| ptp(packet)).flatten()
}

/// LACP: each end states its own time-out, and what it heard of the other's.
fn lacp(frame: Octets<'_>) -> Option<Statement> {
    let [1, 1, 1, 20] = frame.array(0)? else { return None };
    let (actor, partner) = (frame.u8(18)?, frame.u8(38)?);
    let timeout = |state: u8| if state & SHORT_TIMEOUT != 0 { 3.0 } else { 90.0 };
    let port = frame.u16(16)?;
    let lacp = Statement::of("lacp", "IEEE 802.1AX section 6.4.4, Short_Timeout_Time and Long_Timeout_Time");
    Some(
        Statement {
            active: actor & DISTRIBUTING != 0,
            interval: Some(timeout(partner) / 3.0),
            timeout: Some(timeout(partner)),
            patience: Some(timeout(actor)),
            ..lacp
        }
        .named(format!("port {port}")),
    )
}

/// A BPDU: the bridges behind the guest recompute their tree when they hear none.
fn spanning_tree(bpdu: Octets<'_>) -> Option<Statement> {
    let (0, [version, kind]) = (bpdu.u16(0)?, bpdu.array(2)?) else { return None };
    let seconds = |at| bpdu.u16(at).map(|ticks| f64::from(ticks) / 256.0);
    let (age, most, hello) = (seconds(27)?, seconds(29)?, seconds(31)?);
    let tree = Statement {
        interval: Some(hello),
        ..Statement::of("stp", "IEEE 802.1D section 17.21, 3 × Hello Time")
    };
    let tree = tree.named(format!("port {:#06x}", bpdu.u16(25)?));
    match kind {
        0 => Some(Statement {
            timeout: Some((most - age).max(0.0)),
            reference: "IEEE 802.1D, Max Age",
            ..tree
        }),
        2 if version >= 2 => Some(Statement { multiplier: Some(3), ..tree }),
        _ => None,
    }
}

/// LLDP: the neighbour forgets the guest after the time to live.
fn lldp(frame: Octets<'_>) -> Option<Statement> {
    let (_, life) = lldp::elements(frame).find(|(kind, _)| *kind == lldp::TIME_TO_LIVE)?;
    let seconds = f64::from(life.u16(0)?);
    let lldp = Statement::of("lldp", "IEEE 802.1AB section 8.5.4, TTL");
    Some(Statement { timeout: Some(seconds), active: seconds > 0.0, ..lldp })
}

/// A continuity check message: the other end declares the guest lost after 3.5 intervals.
fn continuity_check(frame: Octets<'_>) -> Option<Statement> {
    let [_, 1, flags] = frame.array(0)? else { return None };
    let interval = match flags & 7 {
        1 => 1.0 / 300.0,
        2 => 0.01,
        3 => 0.1,
        4 => 1.0,
        5 => 10.0,
        6 => 60.0,
        7 => 600.0,
        _ => return None,
    };
    let check = Statement::of("cfm", "IEEE 802.1Q section 20.14, 3.5 × CCM interval");
    let check = Statement { interval: Some(interval), timeout: Some(3.5 * interval), ..check };
    Some(check.named(format!("MEP {}", frame.u16(8)?)))
}

/// An announcement of PTP: the slaves choose another master when they hear none.
fn ptp(packet: Octets<'_>) -> Option<Statement> {
    const ANNOUNCE: u8 = 0xb;
    if packet.u8(0)? & 0xf != ANNOUNCE || packet.u8(1)? & 0xf != 2 {
        return None;
    }
    let [exponent] = packet.array(33)?;
    let interval = 2.0_f64.powi(i32::from(exponent.cast_signed()));
    let announce = Statement::of("ptp", "IEEE 1588 section 9.2.6.12, announceReceiptTimeout 3 by default");
    let announce = Statement { role: Some("master"), ..announce };
    Some(announce.named(format!("domain {}", packet.u8(4)?)).every(interval, 3))
}
