//! Signs of the guest's operating system in its packets: the TTL it sends with, and the order of the options of its SYN.
//!
//! Orders as in the signatures of p0f and nmap: Linux sends mss, sack, timestamps, nop, window scale; Windows mss, nop, window
//! scale, nop, nop, sack; FreeBSD mss, nop, window scale, sack, timestamps. A TTL of 128 is Windows' alone of the three.

use std::collections::BTreeMap;

use etherparse::{TcpSlice, TransportSlice};
use vmgate_facts::{Cause, Fact, SystemFamily, WireSystem};

use crate::flows::packet::Packet;

/// Most options of a SYN that are read: a header has room for 40 bytes.
const MOST_OPTIONS: usize = 40;
/// Most orders of options that are kept.
const MOST_ORDERS: usize = 8;

/// Features of the guest's own packets.
#[derive(Debug, Default)]
pub(super) struct SystemSigns {
    /// Packets by TTL.
    ttls: BTreeMap<u8, u64>,
    /// SYNs by the order of their options.
    orders: BTreeMap<Vec<u8>, u64>,
}

impl SystemSigns {
    /// Takes in a packet.
    pub(super) fn observe(&mut self, packet: &Packet<'_>) {
        let (Some(ip), Some(_)) = (packet.ip, packet.own_address()) else { return };
        // Routers send some protocols with a TTL of 1 or 255 that says nothing.
        let Some(transport @ (TransportSlice::Tcp(_) | TransportSlice::Udp(_))) = &packet.transport else {
            return;
        };
        if ip.destination.is_multicast() {
            return;
        }
        *self.ttls.entry(ip.hops).or_default() += 1;
        if let TransportSlice::Tcp(tcp) = transport
            && let Some(order) = order_of_syn(tcp)
            && (self.orders.len() < MOST_ORDERS || self.orders.contains_key(&order))
        {
            *self.orders.entry(order).or_default() += 1;
        }
    }

    pub(super) fn finish(self) -> WireSystem {
        let most =
            |counts: &BTreeMap<u8, u64>| counts.iter().max_by_key(|(_, count)| **count).map(|(ttl, _)| *ttl);
        let Some(ttl) = most(&self.ttls) else {
            let why = "the guest sent no packet of TCP or UDP in the window";
            return WireSystem { family: Fact::unknown(Cause::NotSupported, why), evidence: why.to_owned() };
        };
        let order = self.orders.iter().max_by_key(|(_, count)| **count).map(|(order, _)| order.as_slice());
        let evidence = match order {
            Some(order) => format!("initial TTL {ttl}; options of its SYN: {}", words(order)),
            None => format!("initial TTL {ttl}; it opened no connection in the window"),
        };
        let family = match (ttl, order) {
            (128, _) => Ok(SystemFamily::Windows),
            (64, Some([2, 4, 8, 1, 3, ..])) => Ok(SystemFamily::Linux),
            (64, Some([2, 1, 3, 4, 8, ..])) => Ok(SystemFamily::Freebsd),
            _ => Err(format!("the packets fit no one system ({evidence})")),
        };
        let family = family.map_or_else(|why| Fact::unknown(Cause::NotSupported, why), Fact::Known);
        WireSystem { family, evidence }
    }
}

/// Kinds of the options of a SYN without ACK, in their order; an answer follows the peer's options.
fn order_of_syn(segment: &TcpSlice<'_>) -> Option<Vec<u8>> {
    if !segment.syn() || segment.ack() {
        return None;
    }
    let mut options = segment.options();
    let mut kinds = Vec::new();
    while let Some((&kind, rest)) = options.split_first()
        && kinds.len() < MOST_OPTIONS
    {
        kinds.push(kind);
        match kind {
            0 => break,
            1 => options = rest,
            // The length counts kind and itself; one below 2 would not move on.
            _ => options = options.get(usize::from(*rest.first()?).max(2)..)?,
        }
    }
    Some(kinds)
}

fn words(order: &[u8]) -> String {
    let word = |kind: &u8| match kind {
        0 => "end".to_owned(),
        1 => "nop".to_owned(),
        2 => "mss".to_owned(),
        3 => "wscale".to_owned(),
        4 => "sack".to_owned(),
        8 => "timestamps".to_owned(),
        other => other.to_string(),
    };
    order.iter().map(word).collect::<Vec<_>>().join(" ")
}
