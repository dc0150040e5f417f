//! Streams of RTP, which use any port: recognised by their version, a constant source and sequence numbers that go on.

use std::{collections::HashMap, net::SocketAddr};

use vmgate_facts::{Cause, ControlBasis, ControlSession, Fact, FlowDirection};

use super::layers::{Carrier, Message};

/// Most streams, and most flows that may become one.
const MOST_STREAMS: usize = 1024;
/// Packets in order that prove a stream.
const PROOF: u64 = 8;
/// Largest step of the sequence number between two packets that were seen; a capture may be a sample.
const LARGEST_STEP: u16 = 4096;
/// Payload types that stand for RTCP (RFC 5761 section 4).
const RTCP: std::ops::RangeInclusive<u8> = 64..=95;

type Flow = (SocketAddr, SocketAddr, Option<u16>, bool);

/// A flow that looks like RTP.
#[derive(Debug, Clone, Copy)]
struct Stream {
    source: u32,
    payload_type: u8,
    sequence: u16,
    packets: u64,
    /// Packets that the sender sent between the first and the last that were seen.
    sent: u64,
    first: f64,
    last: f64,
}

/// Streams of media in one capture.
#[derive(Debug, Default)]
pub(super) struct MediaTable(HashMap<Flow, Stream>);

impl MediaTable {
    pub(super) fn observe(&mut self, message: &Message<'_>, from_guest: bool, now: f64) {
        let (Carrier::Udp(ports), Some([source, destination])) = (message.carrier, message.addresses) else {
            return;
        };
        let Some([first, second, ..]) = message.payload.array::<12>(0) else { return };
        let (Some(sequence), Some(id)) = (message.payload.u16(2), message.payload.u32(8)) else { return };
        let payload_type = second & 0x7f;
        if first >> 6 != 2 || RTCP.contains(&payload_type) || ports.has(53) {
            return;
        }
        let ends = (SocketAddr::new(source, ports.source), SocketAddr::new(destination, ports.destination));
        let (local, remote) = if from_guest { ends } else { (ends.1, ends.0) };
        let key = (local, remote, message.vlan, from_guest);
        let begun = Stream { source: id, payload_type, sequence, packets: 1, sent: 0, first: now, last: now };
        if let Some(stream) = self.0.get_mut(&key) {
            stream.go_on(begun);
            return;
        }
        if self.0.len() >= MOST_STREAMS {
            self.0.retain(|_, stream| stream.packets >= PROOF);
        }
        if self.0.len() < MOST_STREAMS {
            self.0.insert(key, begun);
        }
    }

    pub(super) fn finish(self) -> impl Iterator<Item = ControlSession> {
        self.0
            .into_iter()
            .filter(|(_, stream)| stream.packets >= PROOF)
            .map(|(flow, stream)| stream.fact(flow))
    }
}

impl Stream {
    /// Adds the next packet of the flow; one that does not go on begins the stream again.
    fn go_on(&mut self, next: Self) {
        let step = next.sequence.wrapping_sub(self.sequence);
        let same = next.source == self.source && next.payload_type == self.payload_type;
        if !same || step == 0 || step > LARGEST_STEP {
            // A packet out of order or sent twice is no proof, and no disproof either.
            let late = same && step > u16::MAX - 64 || same && step == 0;
            if !late && self.packets < PROOF {
                *self = next;
            }
            return;
        }
        self.sequence = next.sequence;
        self.packets = self.packets.saturating_add(1);
        self.sent = self.sent.saturating_add(u64::from(step));
        self.last = next.last;
    }

    fn fact(self, (local, remote, vlan, from_guest): Flow) -> ControlSession {
        #[expect(clippy::cast_precision_loss, reason = "counts of one window")]
        let interval = (self.last - self.first) / self.sent.max(1) as f64;
        let own = |count| if from_guest { count } else { 0 };
        ControlSession {
            protocol: "rtp".to_owned(),
            local: local.to_string(),
            remote: remote.to_string(),
            identity: format!("SSRC {:#010x}, payload type {}", self.source, self.payload_type),
            vlan,
            direction: if from_guest { FlowDirection::FromGuest } else { FlowDirection::ToGuest },
            packets_from_guest: own(self.packets),
            packets_to_guest: self.packets - own(self.packets),
            active: true,
            interval_seconds: Fact::Known(interval),
            keepalive_gap_seconds: if from_guest { interval } else { 0.0 },
            timeout_seconds: Fact::unknown(
                Cause::NotSupported,
                "no time stands in RTP: a gap is heard at once",
            ),
            basis: ControlBasis::None,
            source: "RFC 3550 section 5.1".to_owned(),
            ..ControlSession::default()
        }
    }
}
