//! Path management of telecom protocols: GTP echo, PFCP heartbeat, SIP OPTIONS, Diameter watchdog, SCTP.

use super::{layers::Ports, statement::Statement};
use crate::flows::octets::Octets;

const SCTP: u8 = 132;
const GTP_U: u16 = 2152;
const GTP_C: u16 = 2123;
const PFCP: u16 = 8805;
const SIP: u16 = 5060;
const DIAMETER: u16 = 3868;
/// Device-Watchdog of Diameter.
const WATCHDOG: u32 = 280;

pub(super) fn of_ip(protocol: u8, packet: Octets<'_>) -> Option<Statement> {
    if protocol != SCTP {
        return None;
    }
    let (source, destination, chunk) = (packet.u16(0)?, packet.u16(2)?, packet.u8(12)?);
    // One name for both directions.
    let (low, high) = (source.min(destination), source.max(destination));
    let sctp = Statement::of("sctp", "RFC 9260 sections 8.2 and 8.3");
    Some(Statement { keepalive: matches!(chunk, 4 | 5), ..sctp }.named(format!("ports {low} and {high}")))
}

pub(super) fn of_udp(ports: Ports, packet: Octets<'_>) -> Option<Statement> {
    let echo = |protocol, reference, port| {
        let echo = Statement { port: Some(port), ..Statement::of(protocol, reference) };
        matches!(packet.u8(1), Some(1 | 2)).then_some(echo)
    };
    if ports.has(GTP_U) {
        echo("gtp-u", "3GPP TS 29.281 section 7.2, echo", GTP_U)
    } else if ports.has(GTP_C) {
        echo("gtp-c", "3GPP TS 29.274 section 7.6, T3-RESPONSE and N3-REQUESTS", GTP_C)
    } else if ports.has(PFCP) {
        echo("pfcp", "3GPP TS 29.244 section 6.4, T1 and N1", PFCP)
    } else if ports.has(SIP) {
        sip(packet)
    } else {
        None
    }
}

pub(super) fn of_tcp(ports: Ports, packet: Octets<'_>) -> Option<Statement> {
    if ports.has(SIP) {
        return sip(packet);
    }
    let version_1 = packet.u8(0) == Some(1);
    let code = packet.u32(4).map(|word| word & 0x00ff_ffff);
    (ports.has(DIAMETER) && version_1).then(|| Statement {
        port: Some(DIAMETER),
        keepalive: code == Some(WATCHDOG),
        ..Statement::of("diameter", "RFC 3539 section 3.4.1, Tw")
    })
}

/// OPTIONS, by which SIP peers qualify each other, or an answer to it.
fn sip(packet: Octets<'_>) -> Option<Statement> {
    let answers_options = || {
        let text = packet.0;
        text.split(|octet| *octet == b'\n').take(40).any(|line| {
            let line = line.trim_ascii_end();
            line.get(..5).is_some_and(|name| name.eq_ignore_ascii_case(b"CSeq:"))
                && line.ends_with(b" OPTIONS")
        })
    };
    let qualifies = packet.begins_with(b"OPTIONS ") || packet.begins_with(b"SIP/2.0 ") && answers_options();
    let options = Statement::of("sip-options", "Asterisk qualify; RFC 3261 section 17.1.2, timer F");
    qualifies.then_some(Statement { port: Some(SIP), ..options })
}
