//! Values in messages: bytes as GiB, seconds with few digits, lists with commas.

use std::fmt::Write;

use vmgate_facts::Unit;

use super::eval::Val;
use crate::value::Value;

/// Units that a message itself writes after a value, so that only the bare number is printed: `{x / 1048576} MiB`.
const WRITTEN_UNITS: [&str; 27] = [
    "s", "ms", "seconds", "second", "minutes", "min", "h", "hours", "bytes", "byte", "B", "kB", "KB", "KiB",
    "MB", "MiB", "GB", "GiB", "TiB", "B/s", "kB/s", "KiB/s", "MB/s", "MiB/s", "GB/s", "GiB/s", "%",
];

/// True if the text after a value already names the unit.
pub(crate) fn names_unit(after: &str) -> bool {
    let word = after.trim_start_matches([' ', '\n', '\u{a0}']);
    let word = word.split(|c: char| c.is_whitespace() || ",;:.)!?-{".contains(c)).next().unwrap_or_default();
    WRITTEN_UNITS.contains(&word) || word.ends_with("bit/s") || word.starts_with("bytes")
}

/// A number without meaningless digits.
pub(crate) fn number(value: f64) -> String {
    if value.fract().abs() < f64::EPSILON && value.abs() < 1e15 {
        return format!("{value:.0}");
    }
    let digits = match value.abs() {
        size if size >= 100.0 => 1,
        size if size >= 1.0 => 2,
        size if size >= 0.01 => 3,
        _ => 6,
    };
    let text = format!("{value:.digits$}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text.is_empty() || text == "-" || text == "-0" { "0".to_owned() } else { text.to_owned() }
}

fn bytes(value: f64) -> String {
    const STEPS: [(f64, &str); 4] =
        [(1_099_511_627_776.0, "TiB"), (1_073_741_824.0, "GiB"), (1_048_576.0, "MiB"), (1024.0, "KiB")];
    match STEPS.iter().find(|(size, _)| value.abs() >= *size) {
        Some((size, name)) => format!("{} {name}", number(value / size)),
        None => format!("{} bytes", number(value)),
    }
}

/// A number with its unit.
pub(crate) fn quantity(value: f64, unit: Unit) -> String {
    match unit {
        Unit::BYTES => bytes(value),
        Unit::BYTES_PER_SECOND => format!("{}/s", bytes(value).replace(" bytes", " B")),
        Unit::SECONDS => format!("{} s", number(value)),
        _ => number(value),
    }
}

/// The value as a number; none if the value is not a number.
pub(crate) fn as_number(value: &Val<'_>) -> Option<f64> {
    match value {
        #[allow(clippy::cast_precision_loss, reason = "only compared with what was printed of it")]
        Val::Int(value) => Some(*value as f64),
        Val::Double(value) => Some(*value),
        _ => None,
    }
}

/// Numbers of one unit that look the same and differ, each with as many digits as it takes to tell them apart. Bytes are
/// counted in full, after the rounded number.
pub(crate) fn apart(values: &[f64], unit: Unit, bare: bool) -> Vec<String> {
    if !bare && matches!(unit, Unit::BYTES | Unit::BYTES_PER_SECOND) {
        let name = if unit == Unit::BYTES { "bytes" } else { "B/s" };
        let full = digits_apart(values);
        return values
            .iter()
            .zip(full)
            .map(|(value, full)| format!("{} ({full} {name})", quantity(*value, unit)))
            .collect();
    }
    let unit = if !bare && unit == Unit::SECONDS { " s" } else { "" };
    digits_apart(values).into_iter().map(|digits| format!("{digits}{unit}")).collect()
}

/// Numbers with the fewest digits behind the point with which those that differ look different.
fn digits_apart(values: &[f64]) -> Vec<String> {
    let written = |digits: usize| -> Vec<String> {
        let text = |value: &f64| {
            let text = format!("{value:.digits$}");
            if digits == 0 { text } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() }
        };
        values.iter().map(text).collect()
    };
    let differ = |texts: &Vec<String>| {
        let pairs = values.iter().zip(texts);
        pairs.clone().all(|(value, text)| {
            pairs.clone().all(|(other, same)| text != same || value.total_cmp(other).is_eq())
        })
    };
    (0..=15).map(written).find(differ).unwrap_or_else(|| values.iter().map(f64::to_string).collect())
}

/// A value as text; `bare` leaves the unit out. None for a value that is not known: a text never says `(unknown)`.
pub(crate) fn show(value: &Val<'_>, unit: Unit, bare: bool) -> Option<String> {
    let unit = if bare { Unit::Count } else { unit };
    Some(match value {
        Val::Null => "none".to_owned(),
        Val::Bool(true) => "yes".to_owned(),
        Val::Bool(false) => "no".to_owned(),
        #[allow(clippy::cast_precision_loss, reason = "rounded for display anyway")]
        Val::Int(value) => match unit {
            Unit::BYTES | Unit::BYTES_PER_SECOND | Unit::SECONDS => quantity(*value as f64, unit),
            _ => value.to_string(),
        },
        Val::Double(value) => quantity(*value, unit),
        Val::Text(text) => text.to_string(),
        Val::Version(version) => version.to_string(),
        Val::Time(time) => time.to_string(),
        Val::Duration(span) => quantity(span.as_secs_f64(), Unit::SECONDS),
        Val::List(items) => return list(items, unit, bare),
        Val::Node(Value::Unknown(_), _) | Val::Unknown => return None,
        Val::Node(value, path) => match value.scalar_or_list(*path) {
            Some(value) => return show(&value, unit, bare),
            None => "…".to_owned(),
        },
    })
}

/// Items of a list, the first ten of them; none if none of them is known.
fn list(items: &[Val<'_>], unit: Unit, bare: bool) -> Option<String> {
    const MOST: usize = 10;
    if items.is_empty() {
        return Some("none".to_owned());
    }
    let known: Vec<String> = items.iter().filter_map(|item| show(item, unit, bare)).collect();
    let mut text = known.get(..MOST).unwrap_or(&known).join(", ");
    if known.len() > MOST {
        let _ = write!(text, ", and {} more", known.len() - MOST);
    }
    if known.len() < items.len() {
        let _ = write!(text, ", and {} not known", items.len() - known.len());
    }
    (!known.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_printed_for_people() {
        assert_eq!(quantity(4_294_967_296.0, Unit::BYTES), "4 GiB");
        assert_eq!(quantity(1_250_000_000.0, Unit::BYTES_PER_SECOND), "1.16 GiB/s");
        assert_eq!(quantity(512.0, Unit::BYTES), "512 bytes");
        assert_eq!(quantity(0.300_000_001, Unit::SECONDS), "0.3 s");
        assert_eq!(quantity(924.64, Unit::SECONDS), "924.6 s");
        assert_eq!(quantity(0.000_2, Unit::Ratio), "0.0002");
        assert_eq!(quantity(-0.000_000_01, Unit::Ratio), "0");
        assert_eq!(number(60.0), "60");
        assert!(
            names_unit(" s; the blackout")
                && names_unit(" MB/s")
                && names_unit(" Gbit/s")
                && !names_unit(" so")
        );
    }

    #[test]
    fn numbers_that_differ_get_the_digits_that_tell_them_apart_and_no_more() {
        let written = |values: &[f64], unit| apart(values, unit, false).join(" | ");
        assert_eq!(written(&[2.002_284_880_577_425, 2.0], Unit::SECONDS), "2.002 s | 2 s");
        assert_eq!(written(&[0.300_000_4, 0.3], Unit::SECONDS), "0.3000004 s | 0.3 s");
        assert_eq!(written(&[1.0, 1.0 + f64::EPSILON], Unit::Ratio), "1 | 1.0000000000000002");
        assert_eq!(
            written(&[4_294_967_297.0, 4_294_967_296.0], Unit::BYTES),
            "4 GiB (4294967297 bytes) | 4 GiB (4294967296 bytes)"
        );
        assert_eq!(apart(&[0.1 + 0.2, 0.3], Unit::SECONDS, true).join(" | "), "0.30000000000000004 | 0.3");
    }

    #[test]
    fn an_unknown_item_is_counted_and_an_unknown_value_is_no_text() {
        let list = |items: Vec<Val<'static>>| show(&Val::List(std::rc::Rc::new(items)), Unit::Count, false);
        assert_eq!(list(vec![Val::Int(3), Val::Unknown]).as_deref(), Some("3, and 1 not known"));
        assert_eq!(list(vec![Val::Unknown]), None);
        assert_eq!(list(Vec::new()).as_deref(), Some("none"));
        assert_eq!(show(&Val::Unknown, Unit::Count, false), None);
    }
}
