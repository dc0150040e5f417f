//! Leases of addresses: answers of a DHCP server to the guest (RFC 2131, 2132; for IPv6 RFC 8415).

use std::collections::{BTreeMap, BTreeSet};

use etherparse::TransportSlice;
use vmgate_facts::{Cause, Fact, WireLease};

use crate::flows::{octets::Octets, packet::Packet};

/// Ports of server and client, for IPv4 and IPv6.
const V4_PORTS: (u16, u16) = (67, 68);
const V6_PORTS: (u16, u16) = (547, 546);
const COOKIE: u32 = 0x6382_5363;
const OPTIONS_AT: usize = 240;
const ACKNOWLEDGEMENT: u8 = 5;
const REPLY: u8 = 7;
/// Most leases that are kept.
const MOST_LEASES: usize = 64;

/// Leases that were granted or renewed in the window.
#[derive(Debug, Default)]
pub(super) struct Leases(BTreeMap<String, WireLease>);

impl Leases {
    /// Takes in a packet. `own` are the guest's hardware addresses: an answer to another client may be broadcast.
    pub(super) fn observe(&mut self, packet: &Packet<'_>, own: &BTreeSet<[u8; 6]>) {
        let Some(TransportSlice::Udp(udp)) = &packet.transport else { return };
        let (Some(ip), false) = (packet.ip, packet.from_guest) else { return };
        let (message, server) = (Octets(udp.payload()), ip.source.to_string());
        match (udp.source_port(), udp.destination_port()) {
            V4_PORTS if message.array(28).is_some_and(|client| own.contains(&client)) => {
                if let Some(lease) = v4(message, server) {
                    self.keep(lease);
                }
            }
            V6_PORTS if own.contains(&packet.stations[1]) && message.u8(0) == Some(REPLY) => {
                self.v6(message, &server);
            }
            _ => {}
        }
    }

    /// Addresses and prefixes of a reply, each in the identity association that has its times.
    fn v6(&mut self, message: Octets<'_>, server: &str) {
        for (association, body) in options(message, 4) {
            // IA_NA and IA_PD: identifier, T1, T2, options. T1 may be left to the client, who takes half of the time
            // that the address is preferred.
            let (3 | 25, Some(t1)) = (association, body.u32(4)) else { continue };
            for (kind, body) in options(body, 12) {
                let found = match kind {
                    5 => body
                        .v6(0)
                        .zip(body.u32(16))
                        .zip(body.u32(20))
                        .map(|((address, preferred), valid)| (address.to_string(), preferred, valid)),
                    26 => body.v6(9).zip(body.u8(8)).zip(body.u32(0)).zip(body.u32(4)).map(
                        |(((prefix, length), preferred), valid)| {
                            (format!("{prefix}/{length}"), preferred, valid)
                        },
                    ),
                    _ => None,
                };
                // A valid lifetime of 0 takes the address back.
                let Some((address, preferred, valid @ 1..)) = found else { continue };
                let renews = if t1 == 0 { f64::from(preferred) / 2.0 } else { f64::from(t1) };
                self.keep(WireLease {
                    address,
                    server: server.to_owned(),
                    lease_seconds: Fact::Known(f64::from(valid)),
                    renews_after_seconds: Fact::Known(renews),
                });
            }
        }
    }

    fn keep(&mut self, lease: WireLease) {
        if self.0.len() < MOST_LEASES || self.0.contains_key(&lease.address) {
            self.0.insert(lease.address.clone(), lease);
        }
    }

    pub(super) fn finish(self) -> Vec<WireLease> {
        self.0.into_values().collect()
    }
}

/// Options of DHCPv6 from an offset on, as far as they are whole: code and body.
fn options(message: Octets<'_>, at: usize) -> impl Iterator<Item = (u16, Octets<'_>)> {
    let mut rest = message.from(at);
    std::iter::from_fn(move || {
        let option = rest?;
        let length = usize::from(option.u16(2)?);
        rest = option.from(4 + length);
        Some((option.u16(0)?, Octets(option.0.get(4..4 + length)?)))
    })
}

/// The acknowledgement of DHCP for IPv4.
fn v4(message: Octets<'_>, server: String) -> Option<WireLease> {
    if message.u32(236)? != COOKIE {
        return None;
    }
    let mut found = WireLease {
        address: message.v4(16)?.to_string(),
        server,
        lease_seconds: Fact::unknown(
            Cause::NotSupported,
            "the server's answer states no length of the lease",
        ),
        renews_after_seconds: Fact::default(),
    };
    let (mut acknowledged, mut options) = (false, message.from(OPTIONS_AT)?.0);
    // Each option takes at least one byte, so that this ends.
    while let Some((&code, rest)) = options.split_first() {
        if code == 255 {
            break;
        }
        if code == 0 {
            options = rest;
            continue;
        }
        let Some((&length, rest)) = rest.split_first() else { break };
        let Some((value, rest)) = rest.split_at_checked(usize::from(length)) else { break };
        let value = Octets(value);
        match (code, value.u32(0)) {
            (53, _) => acknowledged = value.u8(0) == Some(ACKNOWLEDGEMENT),
            (51, Some(time)) => found.lease_seconds = Fact::Known(f64::from(time)),
            (58, Some(time)) => found.renews_after_seconds = Fact::Known(f64::from(time)),
            (54, Some(_)) => found.server = value.v4(0)?.to_string(),
            _ => {}
        }
        options = rest;
    }
    if found.renews_after_seconds.known().is_none() {
        found.renews_after_seconds = found.lease_seconds.clone().map(|time| time / 2.0);
    }
    acknowledged.then_some(found)
}
