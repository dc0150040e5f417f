//! Parser of durations in configuration: `1500`, `1500ms`, `5 seconds`, `1m30s`, `PT5S`.

/// Longest duration that is accepted: no cluster waits longer than a year for a member.
const LONGEST_SECONDS: f64 = 366.0 * 86_400.0;

/// Seconds of a duration; `bare` is the unit, in seconds, of a number without one. None if it is not a duration.
pub(crate) fn seconds(text: &str, bare: f64) -> Option<f64> {
    let text = text.trim().trim_matches(['"', '\'']).trim();
    if text.len() > 64 {
        return None;
    }
    let sum = match text.strip_prefix(['P', 'p']) {
        Some(rest) => iso(rest)?,
        None => match number(text)? {
            (value, "") => value * bare,
            _ => sum_of_units(text, unit)?,
        },
    };
    // Usually written in milliseconds: rounding removes the error of the multiplication.
    let sum = (sum * 1e6).round() / 1e6;
    (sum.is_finite() && (0.0..=LONGEST_SECONDS).contains(&sum)).then_some(sum)
}

/// Parses ISO 8601 without its P, only units of fixed length: `1DT2H3M4.5S`.
fn iso(text: &str) -> Option<f64> {
    let (date, time) = text.split_once(['T', 't']).unwrap_or((text, ""));
    let part = |text: &str, unit: fn(&str) -> Option<f64>| {
        if text.is_empty() { Some(0.0) } else { sum_of_units(text, unit) }
    };
    let units_of_time = |unit: &str| match unit {
        "H" | "h" => Some(3600.0),
        "M" | "m" => Some(60.0),
        "S" | "s" => Some(1.0),
        _ => None,
    };
    if date.is_empty() && time.is_empty() {
        return None;
    }
    Some(part(date, |unit| matches!(unit, "D" | "d").then_some(86_400.0))? + part(time, units_of_time)?)
}

fn sum_of_units(text: &str, unit: fn(&str) -> Option<f64>) -> Option<f64> {
    let mut rest = text;
    let mut sum = 0.0;
    while !rest.is_empty() {
        let (value, after) = number(rest)?;
        let after = after.trim_start();
        let end = after.find(|c: char| !c.is_alphabetic() && c != 'µ').unwrap_or(after.len());
        let (name, tail) = after.split_at_checked(end)?;
        sum += value * unit(name)?;
        rest = tail.trim_start();
    }
    Some(sum)
}

/// The number at the start of a text, and the rest of the text.
fn number(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end)?;
    Some((digits.parse().ok()?, rest))
}

fn unit(name: &str) -> Option<f64> {
    Some(match name.to_ascii_lowercase().as_str() {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" | "msec" | "msecs" | "millis" | "millisecond" | "milliseconds" => 1e-3,
        "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
        "h" | "hr" | "hour" | "hours" => 3600.0,
        "d" | "day" | "days" => 86_400.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::guest::software::format::duration::*;

    #[test]
    fn every_way_to_write_a_time() {
        for (text, bare, expected) in [
            ("1500", 0.001, 1.5),
            ("1500ms", 1.0, 1.5),
            ("5s", 0.001, 5.0),
            ("5 seconds", 0.001, 5.0),
            ("\"30s\"", 1.0, 30.0),
            ("'7'", 1.0, 7.0),
            ("1m30s", 1.0, 90.0),
            ("1h 5m", 1.0, 3900.0),
            ("250us", 1.0, 0.00025),
            ("PT5S", 1.0, 5.0),
            ("PT0.5S", 1.0, 0.5),
            ("PT1M30S", 1.0, 90.0),
            ("P1DT1S", 1.0, 86_401.0),
            ("0.25", 1.0, 0.25),
            ("5", 0.1, 0.5),
        ] {
            assert_eq!(seconds(text, bare), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "ms",
            "abc",
            "-5",
            "5 parsecs",
            "PT",
            "P",
            "P1M",
            "1..2",
            "1e9",
            "NaN",
            "inf",
            "9999999999999 d",
        ] {
            assert_eq!(seconds(text, 1.0), None, "{text}");
        }
        assert_eq!(seconds(&"9".repeat(400), 1.0), None);
    }

    proptest! {
        #[test]
        fn no_text_panics_and_no_time_is_absurd(text in "\\PC{0,40}", units in "[0-9.]{0,8}( ?(ms|s|µ|PT|H|M|S|é)){0,4}") {
            for text in [text, units] {
                if let Some(seconds) = seconds(&text, 1.0) {
                    prop_assert!((0.0..=LONGEST_SECONDS).contains(&seconds));
                }
            }
        }
    }
}
