//! Two simpler forecasts on the same inputs, for comparison.

use serde::{Deserialize, Serialize};
use vmgate_facts::trace::DirtyTrace;

/// Forecast of a simpler model.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Baseline {
    pub(crate) converges: bool,
    #[serde(deserialize_with = "crate::or_nan")]
    pub(crate) total_seconds: f64,
    #[serde(deserialize_with = "crate::or_nan")]
    pub(crate) bytes: f64,
    #[serde(deserialize_with = "crate::or_nan")]
    pub(crate) blackout_seconds: f64,
}

/// The mean dirty rate of one second over the link's nominal bandwidth: M/B · 1/(1 − ρ) of Clark et al. (2005), and a
/// blackout as long as the downtime limit.
pub(crate) fn mean_rate(trace: &DirtyTrace, link_mbit: u64, limit_seconds: f64) -> Baseline {
    let bandwidth = link_mbit as f64 / 8.0 * 1e6;
    let ratio = trace.dirty_rate().rate_bytes_per_second as f64 / bandwidth;
    let converges = ratio < 1.0;
    let bytes = if converges { trace.ram_bytes as f64 / (1.0 - ratio) } else { f64::INFINITY };
    Baseline { converges, total_seconds: bytes / bandwidth, bytes, blackout_seconds: limit_seconds }
}

/// Rounds that are tried before the model gives up.
const MOST_ROUNDS: u32 = 50;
/// Ratio of a round to the one before from which further rounds do not help.
const NO_PROGRESS: f64 = 0.98;

/// The working-set model: each round sends the unique pages that were dirtied during the one before, D(t), over the
/// measured goodput, until they fit into the limit. Zero pages are left out.
pub(crate) fn working_set(trace: &DirtyTrace, goodput: f64, limit_seconds: f64) -> Baseline {
    let windows = trace.dirty_windows();
    let dirtied = |seconds: f64| -> f64 {
        let mut below = (0.0, 0.0);
        for window in &windows {
            let here = (window.window_seconds, window.dirtied_bytes as f64);
            if here.0 >= seconds {
                return below.1 + (here.1 - below.1) * (seconds - below.0) / (here.0 - below.0);
            }
            below = here;
        }
        below.1
    };
    let zero = trace.zero.ones() as f64 / trace.zero.len().max(1) as f64;
    let mut left = trace.ram_bytes as f64 * (1.0 - zero);
    let (mut now, mut bytes) = (0.0, 0.0);
    for _ in 0..MOST_ROUNDS {
        let round = left / goodput;
        if round <= limit_seconds && now > 0.0 {
            return Baseline {
                converges: true,
                total_seconds: now + round,
                bytes: bytes + left,
                blackout_seconds: round,
            };
        }
        now += round;
        bytes += left;
        let next = dirtied(round);
        if next > left * NO_PROGRESS && next / goodput > limit_seconds {
            break;
        }
        left = next;
    }
    Baseline {
        converges: false,
        total_seconds: f64::INFINITY,
        bytes: f64::INFINITY,
        blackout_seconds: f64::INFINITY,
    }
}
