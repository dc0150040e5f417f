//! Mean rate of a stream and its spread, from the arrival times of its bytes.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

/// Length of the parts over which the spread is computed.
const PART: Duration = Duration::from_millis(100);

/// Rates and size of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Mean without the first part, in which TCP is in slow start.
    pub mean_bytes_per_second: u64,
    /// Rate that 5 % of the parts were below.
    pub p5_bytes_per_second: u64,
    /// Rate that 5 % of the parts were above.
    pub p95_bytes_per_second: u64,
    /// All bytes that arrived.
    pub carried_bytes: u64,
    /// Time from the start to the last byte.
    pub window_seconds: f64,
}

impl Rates {
    /// Computes the rates from arrivals: time since the start, and bytes. None if fewer than two parts lie between the
    /// first and the last, which is too short for a measurement.
    pub(super) fn of(arrivals: &[(Duration, usize)]) -> Option<Self> {
        let mut parts: BTreeMap<u128, u64> = BTreeMap::new();
        for (at, bytes) in arrivals {
            let part = parts.entry(at.as_nanos() / PART.as_nanos()).or_default();
            *part = part.saturating_add(u64::try_from(*bytes).ok()?);
        }
        let (first, last) = (*parts.keys().next()?, *parts.keys().next_back()?);
        // The last part is not full, the first is TCP's slow start; a part without a byte counts as 0.
        let mut full: Vec<u64> =
            (first + 1..last).map(|part| parts.get(&part).copied().unwrap_or(0)).collect();
        if full.len() < 2 {
            return None;
        }
        let a_second = |bytes: u64| bytes.saturating_mul(10);
        let count = u64::try_from(full.len()).ok()?;
        let mean = a_second(full.iter().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes))) / count;
        full.sort_unstable();
        let quantile = |percent: usize| full.get((full.len() - 1) * percent / 100).copied().map(a_second);
        Some(Self {
            mean_bytes_per_second: mean,
            p5_bytes_per_second: quantile(5)?,
            p95_bytes_per_second: quantile(95)?,
            carried_bytes: parts.values().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes)),
            window_seconds: arrivals.last()?.0.as_secs_f64(),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::host::trial::rate::*;

    #[test]
    fn the_slow_start_is_left_out_and_a_gap_is_not() {
        let at = |milliseconds| Duration::from_millis(milliseconds);
        let mut arrivals = vec![(at(10), 1)];
        arrivals.extend((1..10).filter(|part| *part != 5).map(|part| (at(part * 100 + 50), 1000)));
        arrivals.push((at(1001), 7));
        let rates = Rates::of(&arrivals).unwrap();
        assert_eq!(rates.carried_bytes, 8008);
        assert_eq!(rates.mean_bytes_per_second, 8000 * 10 / 9);
        assert_eq!((rates.p5_bytes_per_second, rates.p95_bytes_per_second), (0, 10_000));
        assert_eq!(Rates::of(&arrivals[..2]), None);
        assert_eq!(Rates::of(&[]), None);
    }
}
