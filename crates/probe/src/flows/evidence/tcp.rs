//! TCP connections: exact counts of each direction from the capture, and from the sampled packets round trips and
//! keepalives.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use etherparse::TransportSlice;
use vmgate_facts::{Cause, Fact, Opener, WireConnection};

use super::{seconds, service};
use crate::flows::{
    directed_flow::{Count, DirectedFlow, FIN, OPENING, RST},
    packet::Packet,
    parse::TCP,
};

/// Most connections whose packets are looked at.
const MOST_SAMPLED: usize = 16_384;
/// Most connections that are listed; a busy proxy has more, and nobody reads them one by one.
pub(super) const MOST_LISTED: usize = 4096;

/// One connection, seen from the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Ends {
    guest: SocketAddr,
    peer: SocketAddr,
    vlan: u16,
    inner_vlan: u16,
}

/// State of one direction by its sampled packets.
#[derive(Debug, Clone, Copy, Default)]
struct Direction {
    /// Sequence number that this end expects next (its last acknowledgement).
    expects: Option<u32>,
    keepalives: u64,
}

/// State of a connection by its sampled packets.
#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    from_guest: Direction,
    to_guest: Direction,
    forwarded: bool,
    /// End in sequence space and time of a segment of the guest that is not acknowledged yet.
    pending: Option<(u32, u64)>,
    /// Shortest round trip to the peer, in nanoseconds.
    round_trip: Option<u64>,
}

/// Sampled packets of all connections.
#[derive(Debug, Default)]
pub(super) struct TcpSamples {
    connections: HashMap<Ends, Sample>,
}

impl TcpSamples {
    /// Takes in a packet.
    pub(super) fn observe(&mut self, packet: &Packet<'_>, nanoseconds: u64) {
        let _ = self.segment(packet, nanoseconds);
    }

    fn segment(&mut self, packet: &Packet<'_>, nanoseconds: u64) -> Option<()> {
        let ip = packet.ip?;
        let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { return None };
        let source = SocketAddr::new(ip.source, tcp.source_port());
        let destination = SocketAddr::new(ip.destination, tcp.destination_port());
        let (sequence, acknowledged) = (tcp.sequence_number(), tcp.acknowledgment_number());
        let data = u32::try_from(ip.body_length.saturating_sub(tcp.header_slice().len())).ok()?;
        let marked = tcp.syn() || tcp.fin();
        let (guest, peer) = if packet.from_guest { (source, destination) } else { (destination, source) };
        let ends = Ends { guest, peer, vlan: packet.vlan, inner_vlan: packet.inner_vlan };
        if !self.connections.contains_key(&ends) && self.connections.len() >= MOST_SAMPLED {
            return None;
        }
        let sample = self.connections.entry(ends).or_default();
        sample.forwarded |= packet.is_forwarded();
        let (own, other) = if packet.from_guest {
            (&mut sample.from_guest, sample.to_guest)
        } else {
            (&mut sample.to_guest, sample.from_guest)
        };
        // RFC 9293 section 3.8.4: a keepalive has a sequence number that the other end has acknowledged already.
        let probe = !marked && !tcp.rst() && data <= 1 && other.expects == Some(sequence.wrapping_add(1));
        own.keepalives = own.keepalives.saturating_add(u64::from(probe));
        own.expects = Some(acknowledged);
        let end = sequence.wrapping_add(data).wrapping_add(u32::from(marked));
        if packet.from_guest && !probe && end != sequence && sample.pending.is_none() {
            sample.pending = Some((end, nanoseconds));
        } else if !packet.from_guest
            && let Some((awaited, sent)) = sample.pending
            && acknowledged.wrapping_sub(awaited) >> 31 == 0
        {
            sample.pending = None;
            // The sample has holes from one second to the next.
            if sent >> 30 == nanoseconds >> 30 {
                let took = nanoseconds.saturating_sub(sent);
                sample.round_trip = Some(sample.round_trip.map_or(took, |least| least.min(took)));
            }
        }
        Some(())
    }

    /// The connections by the counts, the busiest first, and the number of those that are left out.
    pub(super) fn connections(
        &self,
        streams: &[(DirectedFlow, Count)],
        begin: u64,
        end: u64,
    ) -> (Vec<WireConnection>, usize) {
        let mut joined: BTreeMap<Ends, (Option<Count>, Option<Count>)> = BTreeMap::new();
        for (directed, count) in streams.iter().filter(|(directed, _)| directed.protocol == TCP) {
            let (guest, peer) = if directed.from_guest {
                (directed.source, directed.destination)
            } else {
                (directed.destination, directed.source)
            };
            let ends = Ends { guest, peer, vlan: directed.vlan, inner_vlan: directed.inner_vlan };
            let both = joined.entry(ends).or_default();
            *(if directed.from_guest { &mut both.0 } else { &mut both.1 }) = Some(*count);
        }
        // What only came to the tap is another's connection that a switch flooded, or a scan that nobody answered.
        joined.retain(|_, (from_guest, _)| from_guest.is_some());
        let mut connections: Vec<_> = joined
            .into_iter()
            .map(|(ends, (from_guest, to_guest))| {
                let sample = self.connections.get(&ends).copied().unwrap_or_default();
                connection(ends, from_guest, to_guest, sample, begin, end)
            })
            .collect();
        connections.sort_by_key(|one| std::cmp::Reverse(one.packets_from_guest + one.packets_to_guest));
        let left_out = connections.len().saturating_sub(MOST_LISTED);
        connections.truncate(MOST_LISTED);
        (connections, left_out)
    }
}

fn connection(
    ends: Ends,
    from_guest: Option<Count>,
    to_guest: Option<Count>,
    sample: Sample,
    begin: u64,
    end: u64,
) -> WireConnection {
    let counts = || from_guest.iter().chain(&to_guest);
    let flags = |count: Option<Count>| count.map_or(0, |count| count.flags);
    let seen = if flags(from_guest) & OPENING != 0 {
        Some(Opener::Guest)
    } else if flags(to_guest) & OPENING != 0 {
        Some(Opener::Peer)
    } else {
        None
    };
    let opened_by = seen.unwrap_or_else(|| by_ports(ends.guest.port(), ends.peer.port()));
    let first = counts().map(|count| count.first_nanoseconds).min().unwrap_or(begin);
    let last = counts().map(|count| count.last_nanoseconds).max().unwrap_or(begin);
    let packets = |count: Option<Count>| count.map_or(0, |count| count.packets);
    let sent_again = |count: Option<Count>| count.map_or(0, |count| u64::from(count.sent_again));
    let since = |from: u64, to: u64| seconds(to.clamp(begin, end).saturating_sub(from.clamp(begin, end)));
    WireConnection {
        local: ends.guest.to_string(),
        remote: ends.peer.to_string(),
        vlan: Some(ends.vlan).filter(|id| *id != 0),
        opened_by,
        opening_seen: seen.is_some(),
        closing_seen: (flags(from_guest) | flags(to_guest)) & (FIN | RST) != 0,
        forwarded: sample.forwarded,
        age_seconds: match seen {
            Some(_) => Fact::Known(since(first, end)),
            None => Fact::unknown(Cause::NotSupported, "it was opened before vmgate looked at the wire"),
        },
        first_seen_seconds: since(begin, first),
        last_seen_seconds: since(begin, last),
        packets_from_guest: packets(from_guest),
        packets_to_guest: packets(to_guest),
        sent_again_by_guest: sent_again(from_guest),
        sent_again_by_peer: sent_again(to_guest),
        rtt_seconds: sample.round_trip.map_or_else(
            || {
                let why = "no segment of the guest and its acknowledgement were seen close together";
                Fact::unknown(Cause::NotSupported, why)
            },
            |took| Fact::Known(seconds(took)),
        ),
        keepalives_from_guest: sample.from_guest.keepalives,
        keepalives_to_guest: sample.to_guest.keepalives,
        service: service::of(ends.guest.port(), ends.peer.port(), opened_by).map(str::to_owned),
    }
}

/// End that opened a connection, by its ports: a client's port is a high one that its system chose.
fn by_ports(guest: u16, peer: u16) -> Opener {
    /// First ephemeral port of Linux; those of Windows and FreeBSD begin higher, at 49152.
    const FIRST_EPHEMERAL: u16 = 32_768;
    match (guest >= FIRST_EPHEMERAL, peer >= FIRST_EPHEMERAL) {
        (true, false) => Opener::Guest,
        (false, true) => Opener::Peer,
        _ if service::name(peer).is_some() && service::name(guest).is_none() => Opener::Guest,
        _ if service::name(guest).is_some() && service::name(peer).is_none() => Opener::Peer,
        _ => Opener::Unknown,
    }
}
