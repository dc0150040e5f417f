//! Leases of addresses: acknowledgements of a DHCP server to the guest (RFC 2131, 2132).

use std::collections::{BTreeMap, BTreeSet};

use vmgate_facts::{Cause, Fact, WireLease};

use super::packet::{Packet, long, number, v4};

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
const COOKIE: u32 = 0x6382_5363;
const OPTIONS_AT: usize = 240;
const ACKNOWLEDGEMENT: u8 = 5;
/// Most leases that are kept.
const MOST_LEASES: usize = 64;

/// Leases that were granted or renewed in the window.
#[derive(Debug, Default)]
pub(super) struct Leases(BTreeMap<String, WireLease>);

impl Leases {
    /// Takes in a packet of UDP. `own` are the guest's hardware addresses: an answer to another client may be broadcast.
    pub(super) fn observe(&mut self, packet: &Packet<'_>, own: &BTreeSet<[u8; 6]>) {
        if let Some(lease) = lease(packet, own)
            && (self.0.len() < MOST_LEASES || self.0.contains_key(&lease.address))
        {
            self.0.insert(lease.address.clone(), lease);
        }
    }

    pub(super) fn finish(self) -> Vec<WireLease> {
        self.0.into_values().collect()
    }
}

fn lease(packet: &Packet<'_>, own: &BTreeSet<[u8; 6]>) -> Option<WireLease> {
    let ports = (number(packet.body, 0)?, number(packet.body, 2)?);
    let message = packet.body.get(8..)?;
    let client: &[u8; 6] = message.get(28..)?.first_chunk()?;
    if packet.from_guest
        || ports != (SERVER_PORT, CLIENT_PORT)
        || long(message, 236)? != COOKIE
        || !own.contains(client)
    {
        return None;
    }
    let mut found = WireLease {
        address: v4(message, 16)?.to_string(),
        server: packet.ip?.source.to_string(),
        lease_seconds: Fact::unknown(
            Cause::NotSupported,
            "the server's answer states no length of the lease",
        ),
        renews_after_seconds: Fact::default(),
    };
    let (mut acknowledged, mut options) = (false, message.get(OPTIONS_AT..)?);
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
        match (code, long(value, 0)) {
            (53, _) => acknowledged = value.first() == Some(&ACKNOWLEDGEMENT),
            (51, Some(time)) => found.lease_seconds = Fact::Known(f64::from(time)),
            (58, Some(time)) => found.renews_after_seconds = Fact::Known(f64::from(time)),
            (54, Some(_)) => found.server = v4(value, 0)?.to_string(),
            _ => {}
        }
        options = rest;
    }
    if found.renews_after_seconds.known().is_none() {
        found.renews_after_seconds = found.lease_seconds.clone().map(|time| time / 2.0);
    }
    acknowledged.then_some(found)
}
