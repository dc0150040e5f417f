//! What was proven and measured on the path, out of both ends' accounts.

use super::PathEnd;
use crate::fact::{Cause, Fact, Goodput, Unknown};

/// Part of a stream's time, not spent in waiting for the path, from which on the path did not decide its rate.
const HELD_RATIO: f64 = 0.5;

/// The largest packet that passes both ways.
pub(super) fn mtu(source: &PathEnd, destination: &PathEnd) -> Fact<u32> {
    let there = source.with_peer(|peer| peer.largest_packet_bytes.clone());
    let back = destination.with_peer(|peer| peer.largest_packet_bytes.clone());
    there.and_then(|there| back.map(|back| there.min(back)))
}

/// The round-trip time that the source saw.
pub(super) fn rtt(source: &PathEnd) -> Fact<f64> {
    source.with_peer(|peer| {
        peer.tried.as_ref().and_then(|tried| match tried.rtt_seconds {
            Some(rtt) => Fact::Known(rtt),
            None => Fact::unknown(Cause::NotSupported, tried.detail.clone()),
        })
    })
}

/// What the destination took of the stream. `cap` is what the stream was allowed, or why there was none.
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
