//! Values in messages: bytes as GiB, seconds with few digits, lists with commas.

use vmgate_facts::Unit;

use super::eval::Val;

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

/// A number without rounding.
pub(crate) fn exact(value: f64, unit: Unit, bare: bool) -> String {
    match unit {
        _ if bare => value.to_string(),
        Unit::BYTES => format!("{value} bytes"),
        Unit::BYTES_PER_SECOND => format!("{value} B/s"),
        Unit::SECONDS => format!("{value} s"),
        _ => value.to_string(),
    }
}

/// A value as text; `bare` leaves the unit out.
pub(crate) fn show(value: &Val<'_>, unit: Unit, bare: bool) -> String {
    let unit = if bare { Unit::Count } else { unit };
    match value {
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
        Val::List(items) => {
            let shown: Vec<String> = items.iter().take(10).map(|item| show(item, unit, bare)).collect();
            let more = items.len().saturating_sub(10);
            let tail = if more > 0 { format!(", and {more} more") } else { String::new() };
            if shown.is_empty() { "none".to_owned() } else { shown.join(", ") + &tail }
        }
        Val::Node(value, path) => match value.scalar_or_list(*path) {
            Some(value) => show(&value, unit, bare),
            None => "…".to_owned(),
        },
        Val::Unknown => "(unknown)".to_owned(),
    }
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
}
