//! BFD: the peer gives the guest up after the guest's detect multiplier times the slower of both intervals.

use super::{
    layers::Ports,
    statement::{Statement, microseconds},
};
use crate::flows::octets::Octets;

/// Ports of control packets: one hop, several hops, ports of a LAG, seamless BFD.
const PORTS: [u16; 4] = [3784, 4784, 6784, 7784];
const UP: u8 = 3;

pub(super) fn of_udp(ports: Ports, packet: Octets<'_>) -> Option<Statement> {
    if !PORTS.contains(&ports.destination) {
        return None;
    }
    let [version, state, multiplier, length] = packet.array(0)?;
    if version >> 5 != 1 || length < 24 || multiplier == 0 {
        return None;
    }
    let statement = Statement::of("bfd", "RFC 5880 section 6.8.4, detection time");
    Some(
        Statement {
            active: state >> 6 == UP,
            interval: Some(microseconds(packet.u32(12)?)),
            least_interval: Some(microseconds(packet.u32(16)?)),
            multiplier: Some(u32::from(multiplier)),
            ..statement
        }
        .named(discriminators(packet.u32(4)?, packet.u32(8)?)),
    )
}

/// Name of the session, the same in both directions.
fn discriminators(mine: u32, yours: u32) -> String {
    format!("discriminators {:#x} and {:#x}", mine.min(yours), mine.max(yours))
}
