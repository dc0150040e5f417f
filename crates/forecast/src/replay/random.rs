//! Pseudo-random numbers that depend on the seed alone: SplitMix64 (Steele, Lea, Flood 2014).

use super::settings::Interval;

/// Stream of pseudo-random numbers.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Uniform in [0, 1).
    pub(super) fn unit(&mut self) -> f64 {
        to_unit(self.next())
    }

    /// Uniform between two numbers.
    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Uniform in an interval.
    pub(super) fn within(&mut self, range: Interval) -> f64 {
        self.between(range.low, range.high)
    }

    /// In an interval whose scale is not known: as likely in any part of it as in another of the same ratio of its ends.
    pub(super) fn scale_within(&mut self, range: Interval) -> f64 {
        if range.low <= 0.0 {
            return self.within(range);
        }
        range.low * libm::pow(range.high / range.low, self.unit())
    }

    /// Approximately normal with mean 0 and standard deviation 1: the sum of twelve uniform numbers less six.
    pub(super) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

/// Scatters the bits of a number.
pub(super) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// The upper bits as a number in [0, 1).
pub(super) fn to_unit(number: u64) -> f64 {
    (number >> 11) as f64 / (1_u64 << 53) as f64
}
