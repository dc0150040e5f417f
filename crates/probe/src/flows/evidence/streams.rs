//! Packets of IP protocols other than UDP and TCP, by pairs of addresses.

use std::{collections::BTreeMap, net::SocketAddr};

use vmgate_facts::WireProtocol;

use crate::flows::{
    directed_flow::{Count, DirectedFlow},
    parse::TCP,
};

/// Most pairs that are listed.
const MOST_LISTED: usize = 1024;

/// The pairs by protocol and addresses, and the number of those that are left out.
pub(super) fn protocols(streams: &[(DirectedFlow, Count)]) -> (Vec<WireProtocol>, usize) {
    let mut joined: BTreeMap<(u8, SocketAddr, SocketAddr), (u64, u64)> = BTreeMap::new();
    for (directed, count) in streams.iter().filter(|(directed, _)| directed.protocol != TCP) {
        let (guest, peer) = if directed.from_guest {
            (directed.source, directed.destination)
        } else {
            (directed.destination, directed.source)
        };
        let (sent, received) = joined.entry((directed.protocol, guest, peer)).or_default();
        let sum = if directed.from_guest { sent } else { received };
        *sum = sum.saturating_add(count.packets);
    }
    let left_out = joined.len().saturating_sub(MOST_LISTED);
    let text = |end: SocketAddr| if end.port() == 0 { end.ip().to_string() } else { end.to_string() };
    let listed = joined.into_iter().take(MOST_LISTED).map(|((protocol, guest, peer), (sent, received))| {
        WireProtocol {
            protocol,
            local: text(guest),
            remote: text(peer),
            packets_from_guest: sent,
            packets_to_guest: received,
        }
    });
    (listed.collect(), left_out)
}
