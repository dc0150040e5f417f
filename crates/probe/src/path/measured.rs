//! Measured figures of the path (MTU, RTT, goodput), combined from the answers of both ends.

use vmgate_facts::{Cause, Fact, Goodput, Unknown};

use crate::path::PathEnd;

/// Share of a stream's time without waiting for the path, from which on the cap and not the path decided its rate.
const HELD_RATIO: f64 = 0.5;

/// Largest packet that passes in both directions.
pub(super) fn mtu(source: &PathEnd, destination: &PathEnd) -> Fact<u32> {
    let there = source.with_peer(|peer| peer.largest_packet_bytes.clone());
    let back = destination.with_peer(|peer| peer.largest_packet_bytes.clone());
    there.and_then(|there| back.map(|back| there.min(back)))
}

/// Round-trip time that the source measured.
pub(super) fn rtt(source: &PathEnd) -> Fact<f64> {
    source.with_peer(|peer| {
        peer.tried.as_ref().and_then(|tried| match tried.rtt_seconds {
            Some(rtt) => Fact::Known(rtt),
            None => Fact::unknown(Cause::NotSupported, tried.detail.clone()),
        })
    })
}

/// Goodput of the stream at the destination. `cap` is the cap of the stream, or the reason for which there was none.
pub(super) fn goodput(source: &PathEnd, destination: &PathEnd, cap: Result<u64, Unknown>) -> Fact<Goodput> {
    let cap = match cap {
        Ok(cap) => cap,
        Err(why) => return Fact::Unknown(why),
    };
    let held = source.with_peer(|peer| {
        peer.tried.as_ref().and_then(|tried| match tried.held_ratio {
            Some(ratio) => Fact::Known(ratio >= HELD_RATIO),
            None => Fact::unknown(Cause::NotSupported, tried.detail.clone()),
        })
    });
    let rates = destination.with_peer(|peer| {
        peer.tried.as_ref().and_then(|tried| match tried.rates {
            Some(rates) => Fact::Known(rates),
            None => Fact::unknown(Cause::NotSupported, tried.detail.clone()),
        })
    });
    held.and_then(|held_at_cap| {
        rates.map(|rates| Goodput {
            mean_bytes_per_second: rates.mean_bytes_per_second,
            p5_bytes_per_second: rates.p5_bytes_per_second,
            p95_bytes_per_second: rates.p95_bytes_per_second,
            window_seconds: rates.window_seconds,
            carried_bytes: rates.carried_bytes,
            cap_bytes_per_second: cap,
            held_at_cap,
        })
    })
}
