//! What was proven and measured on the path, out of both ends' accounts.

use super::End;
use crate::fact::{Cause, Fact, Goodput};

/// Part of the cap above which a stream counts as held back by it.
const HELD_RATIO: f64 = 0.95;

/// The largest packet that passes both ways.
pub(super) fn mtu(source: &End, destination: &End) -> Fact<u32> {
    let there = source.with_peer(|peer| peer.largest_packet_bytes.clone());
    let back = destination.with_peer(|peer| peer.largest_packet_bytes.clone());
    there.and_then(|there| back.map(|back| there.min(back)))
}

/// The round-trip time that the source saw.
pub(super) fn rtt(source: &End) -> Fact<f64> {
    source.with_peer(|peer| {
        peer.tried.as_ref().and_then(|tried| match tried.rtt_seconds {
            Some(rtt) => Fact::Known(rtt),
            None => Fact::unknown(Cause::NotSupported, tried.detail.clone()),
        })
    })
}

/// What the destination took of the stream; `cap` is what the stream was allowed, none where there was to be none.
#[allow(clippy::cast_precision_loss)] // no link carries 2^53 bytes a second
pub(super) fn goodput(destination: &End, cap: Option<u64>) -> Fact<Goodput> {
    let Some(cap) = cap else {
        return Fact::unknown(Cause::NotAllowed, "it was not measured: --measure-goodput MIB_PER_S allows it");
    };
    destination.with_peer(|peer| {
        peer.tried.as_ref().and_then(|tried| match tried.rates {
            Some(rates) => Fact::Known(Goodput {
                mean_bytes_per_second: rates.mean_bytes_per_second,
                p5_bytes_per_second: rates.p5_bytes_per_second,
                p95_bytes_per_second: rates.p95_bytes_per_second,
                window_seconds: rates.window_seconds,
                carried_bytes: rates.carried_bytes,
                cap_bytes_per_second: cap,
                held_at_cap: rates.mean_bytes_per_second as f64 >= HELD_RATIO * cap as f64,
            }),
            None => Fact::unknown(Cause::NotSupported, tried.detail.clone()),
        })
    })
}
