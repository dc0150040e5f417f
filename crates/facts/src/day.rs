//! Calendar day in waivers: written as `2026-11-23` only, always UTC.
//!
//! A misread month or a local midnight would extend a waiver; one notation and one clock avoid both.

use std::{fmt, str::FromStr};

use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};
use schemars::JsonSchema;
use thiserror::Error;

/// A calendar day in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(with = "String", inline, extend("format" = "date", "pattern" = r"^\d{4}-\d{2}-\d{2}$"))]
pub struct Day(Date);

/// A text that is not a day.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` is not a day: expected year-month-day such as 2026-11-23")]
pub struct InvalidDay(pub String);

impl Day {
    /// Day in UTC at this time.
    pub fn of(time: Timestamp) -> Self {
        Self(time.to_zoned(TimeZone::UTC).date())
    }

    /// Number of days from `earlier` to this day; negative if this day is before `earlier`.
    pub fn days_after(self, earlier: Self) -> i32 {
        self.0.since(earlier.0).map_or(0, |span| span.get_days())
    }

    /// Adds `days` to this day, up to the last day of the calendar.
    #[must_use]
    pub fn plus(self, days: i32) -> Self {
        Self(self.0.saturating_add(days.days()))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

crate::serde_by_text!(Day);

impl FromStr for Day {
    type Err = InvalidDay;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = text.len() == 10
            && text.bytes().enumerate().all(|(position, byte)| match position {
                4 | 7 => byte == b'-',
                _ => byte.is_ascii_digit(),
            });
        let date = if plain { text.parse().ok() } else { None };
        date.map(Self).ok_or_else(|| InvalidDay(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_one_notation() {
        let day: Day = "2026-11-23".parse().unwrap();
        assert_eq!(day.to_string(), "2026-11-23");
        for text in [
            "",
            "23.11.2026",
            "11/23/2026",
            "2026-11-31",
            "2026-2-3",
            "20261123",
            "2026-11-23T00:00",
            " 2026-11-23",
            "2026-11-23Z",
            "+2026-11-2",
            "2026-W47-1",
            "٢٠٢٦-١١-٢٣",
        ] {
            assert_eq!(text.parse::<Day>(), Err(InvalidDay(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn the_day_of_a_time_is_that_of_utc() {
        let day = |text: &str| Day::of(text.parse().unwrap()).to_string();
        assert_eq!(day("2026-11-23T23:59:59.999Z"), "2026-11-23");
        assert_eq!(day("2026-11-24T00:30:00+01:00"), "2026-11-23");
    }

    #[test]
    fn days_are_counted_over_months_and_the_end_of_the_calendar() {
        let day = |text: &str| text.parse::<Day>().unwrap();
        assert_eq!(day("2027-02-01").days_after(day("2026-11-03")), 90);
        assert_eq!(day("2026-11-03").days_after(day("2027-02-01")), -90);
        assert_eq!(day("2026-11-03").plus(90), day("2027-02-01"));
        assert_eq!(day("9999-12-31").plus(1), day("9999-12-31"));
    }
}
