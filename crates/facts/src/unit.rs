//! Units of numbers. A fact's name ends with its unit, as in Prometheus; rules that compare or add different units do
//! not load.

use std::fmt;

/// The unit of a number, as powers of bytes and seconds, or a special case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    /// A literal, which takes the unit of the other operand.
    Any,
    /// A plain number, such as a count.
    Count,
    /// A part of a whole, or one quantity by another of the same unit.
    Ratio,
    /// Powers of bytes and of seconds; at least one is not zero.
    Of {
        /// Power of bytes.
        bytes: i8,
        /// Power of seconds.
        seconds: i8,
    },
}

impl Unit {
    /// Bytes.
    pub const BYTES: Self = Self::Of { bytes: 1, seconds: 0 };
    /// Seconds.
    pub const SECONDS: Self = Self::Of { bytes: 0, seconds: 1 };
    /// Bytes per second.
    pub const BYTES_PER_SECOND: Self = Self::Of { bytes: 1, seconds: -1 };

    /// Unit at the end of a field's name.
    pub fn of_name(name: &str) -> Self {
        let ends =
            |unit: &str| name == unit || name.strip_suffix(unit).is_some_and(|head| head.ends_with('_'));
        if ends("bytes_per_second") {
            Self::BYTES_PER_SECOND
        } else if ends("bytes") {
            Self::BYTES
        } else if ends("seconds") {
            Self::SECONDS
        } else if ends("ratio") {
            Self::Ratio
        } else {
            Self::Count
        }
    }

    /// True if values of both units can be compared and added.
    pub fn agrees(self, other: Self) -> bool {
        self == other || self == Self::Any || other == Self::Any
    }

    /// The unit of a sum or of one of two values, for units that agree.
    #[must_use]
    pub fn either(self, other: Self) -> Self {
        if self == Self::Any { other } else { self }
    }

    /// The unit of a product: a part of a quantity is that quantity.
    #[allow(clippy::unnested_or_patterns, reason = "nested, they would be tried in another order")]
    #[must_use]
    pub fn times(self, other: Self) -> Self {
        match (self, other) {
            // The order matters: a literal says less than a ratio, and that less than a count.
            (Self::Any, unit)
            | (unit, Self::Any)
            | (Self::Ratio, unit)
            | (unit, Self::Ratio)
            | (Self::Count, unit)
            | (unit, Self::Count) => unit,
            (Self::Of { bytes, seconds }, Self::Of { bytes: b, seconds: s }) => {
                Self::powers(bytes.saturating_add(b), seconds.saturating_add(s))
            }
        }
    }

    /// The unit of a quotient: one quantity by another of its unit is a ratio.
    #[must_use]
    pub fn per(self, other: Self) -> Self {
        match (self, other) {
            (Self::Count, Self::Count) => Self::Ratio,
            (unit @ (Self::Of { .. } | Self::Count | Self::Ratio), Self::Any | Self::Ratio | Self::Count) => {
                unit
            }
            (Self::Of { bytes, seconds }, Self::Of { bytes: b, seconds: s }) => {
                Self::powers(bytes.saturating_sub(b), seconds.saturating_sub(s))
            }
            (_, Self::Of { bytes, seconds }) => {
                Self::powers(bytes.saturating_neg(), seconds.saturating_neg())
            }
            (Self::Any, unit) => unit,
        }
    }

    fn powers(bytes: i8, seconds: i8) -> Self {
        if bytes == 0 && seconds == 0 { Self::Ratio } else { Self::Of { bytes, seconds } }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Any | Self::Count => f.write_str("a plain number"),
            Self::Ratio => f.write_str("a ratio"),
            Self::BYTES => f.write_str("bytes"),
            Self::SECONDS => f.write_str("seconds"),
            Self::BYTES_PER_SECOND => f.write_str("bytes per second"),
            Self::Of { bytes: 0, seconds } => write!(f, "seconds to the power of {seconds}"),
            Self::Of { bytes, seconds: 0 } => write!(f, "bytes to the power of {bytes}"),
            Self::Of { bytes, seconds } => {
                write!(f, "bytes to the power of {bytes} by seconds to the power of {seconds}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_follow_names_and_arithmetic() {
        assert_eq!(Unit::of_name("rate_bytes_per_second"), Unit::BYTES_PER_SECOND);
        assert_eq!(Unit::of_name("seconds"), Unit::SECONDS);
        assert_eq!(Unit::of_name("megabytes"), Unit::Count);
        assert_eq!(Unit::BYTES.per(Unit::BYTES_PER_SECOND), Unit::SECONDS);
        assert_eq!(Unit::SECONDS.times(Unit::BYTES_PER_SECOND), Unit::BYTES);
        assert_eq!(Unit::BYTES.per(Unit::BYTES), Unit::Ratio);
        assert_eq!(Unit::Ratio.times(Unit::SECONDS), Unit::SECONDS);
        assert_eq!(Unit::BYTES.per(Unit::Any), Unit::BYTES);
        assert_eq!(Unit::Ratio.times(Unit::Count), Unit::Count);
        assert_eq!(Unit::Count.times(Unit::Ratio), Unit::Count);
        assert_eq!(Unit::Any.times(Unit::Ratio), Unit::Ratio);
        assert_eq!(Unit::Ratio.times(Unit::Any), Unit::Ratio);
        assert_eq!(Unit::Count.per(Unit::Count), Unit::Ratio);
        assert_eq!(Unit::Count.per(Unit::Ratio), Unit::Count);
        assert!(!Unit::BYTES.agrees(Unit::SECONDS) && Unit::BYTES.agrees(Unit::Any));
        assert!(!Unit::Ratio.agrees(Unit::Count));
    }
}
