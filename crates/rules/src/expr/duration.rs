//! Parser of durations in CEL's notation: `1h30m`, `90s`, `1.5s`, `250ms`.

use jiff::SignedDuration;

/// Parses a duration; none if the text is not a duration.
pub(crate) fn parse(text: &str) -> Option<SignedDuration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let factor = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * factor;
        rest = tail;
    }
    SignedDuration::try_from_secs_f64(if negative { -seconds } else { seconds }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_cel() {
        assert_eq!(parse("1h30m"), Some(SignedDuration::from_secs(5400)));
        assert_eq!(parse("-1.5s"), Some(SignedDuration::from_millis(-1500)));
        assert_eq!(parse("250ms"), Some(SignedDuration::from_millis(250)));
        for text in ["", "-", "1", "s", "1d", "1 s", "1..5s"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
