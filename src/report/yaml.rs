//! The verdict document as YAML, for people: the same content as the JSON report.
//!
//! Written here and not by a YAML library: the existing ones take a millisecond per verdict, and do not escape control
//! characters. A string is plain only if no YAML parser can read it as anything else; all others are quoted,
//! with escapes for control and hidden characters and for the commands of CI runners.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use serde::Serialize;
use serde_json::Value;
use vmgate_facts::text::{command_marks, is_control_or_hidden, is_printable_ascii};
use vmgate_verdict::{Verdict, VerdictsSchema};

use super::json::VerdictList;

pub(super) fn write(verdicts: &[Verdict], sink: &mut dyn Write) -> io::Result<()> {
    let mut sink = io::BufWriter::new(sink);
    match verdicts {
        [verdict] => sink.write_all(text(verdict)?.as_bytes())?,
        [] => sink.write_all(text(&VerdictList::new(&[]))?.as_bytes())?,
        // One after the other, so that a long list does not have to be held as a tree.
        several => {
            let schema = serde_json::to_value(VerdictsSchema::V1)?;
            write!(sink, "schema: {}\nverdicts:\n", schema.as_str().unwrap_or_default())?;
            for verdict in several {
                sink.write_all(text(&[verdict])?.as_bytes())?;
            }
        }
    }
    sink.flush()
}

/// Writes a document that is not a verdict.
pub(super) fn document(document: &impl Serialize, sink: &mut dyn Write) -> io::Result<()> {
    sink.write_all(text(document)?.as_bytes())
}

fn text(document: &impl Serialize) -> io::Result<String> {
    let mut yaml = String::with_capacity(1 << 14);
    block(&serde_json::to_value(document)?, 0, &mut yaml);
    Ok(yaml)
}

/// Writes the lines of a value. In a list, the first line follows the dash and is not indented.
fn block(value: &Value, depth: usize, yaml: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (position, (key, value)) in fields.iter().enumerate() {
                if position > 0 {
                    indent(depth, yaml);
                }
                string(key, None, yaml);
                yaml.push(':');
                below(value, depth, yaml);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    indent(depth, yaml);
                }
                yaml.push_str("- ");
                block(item, depth + 1, yaml);
            }
        }
        Value::String(text) => {
            string(text, Some(depth), yaml);
            yaml.push('\n');
        }
        // Null, numbers, and empty lists and objects are written in YAML as in JSON.
        other => {
            let _ = writeln!(yaml, "{other}"); // writing to a String cannot fail
        }
    }
}

/// Writes a value after `key:`: a scalar on the same line, a list or mapping from the next line on.
fn below(value: &Value, depth: usize, yaml: &mut String) {
    let (long, deeper) = match value {
        Value::Object(fields) => (!fields.is_empty(), depth + 1),
        // The dash of a list needs no indentation of its own.
        Value::Array(items) => (!items.is_empty(), depth),
        _ => (false, depth + 1),
    };
    if long {
        yaml.push('\n');
        indent(deeper, yaml);
    } else {
        yaml.push(' ');
    }
    block(value, deeper, yaml);
}

fn indent(depth: usize, yaml: &mut String) {
    for _ in 0..depth {
        yaml.push_str("  ");
    }
}

/// Writes a string: plain, as a block of lines at the given depth, or quoted.
fn string(text: &str, depth: Option<usize>, yaml: &mut String) {
    if is_bare(text) {
        yaml.push_str(text);
    } else if let Some(depth) = depth.filter(|_| is_literal(text)) {
        yaml.push_str("|-");
        for line in text.split('\n') {
            yaml.push('\n');
            indent(if line.is_empty() { 0 } else { depth.max(1) }, yaml);
            yaml.push_str(line);
        }
    } else {
        quoted(text, yaml);
    }
}

/// True if every parser of YAML 1.1 and 1.2 reads the plain text as this string.
fn is_bare(text: &str) -> bool {
    const WORDS: [&str; 8] = ["true", "false", "null", "yes", "no", "on", "off", "nan"];
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && !text.ends_with([' ', ':'])
        && is_printable_ascii(text)
        && !text.contains(": ")
        && !text.contains(" #")
        && text.len() > 1
        && command_marks(text).is_empty()
        && !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// True if the text can be written as a literal block of several lines.
fn is_literal(text: &str) -> bool {
    let shown =
        |line: &str| !line.chars().any(is_escaped) && !line.ends_with(' ') && command_marks(line).is_empty();
    text.contains('\n')
        && !text.starts_with(['\n', ' '])
        && !text.ends_with('\n')
        && text.split('\n').all(shown)
}

fn quoted(text: &str, yaml: &mut String) {
    yaml.push('"');
    let marks = command_marks(text);
    for (at, character) in text.char_indices() {
        let _ = match character {
            '"' | '\\' => write!(yaml, "\\{character}"),
            '\n' => write!(yaml, "\\n"),
            '\t' => write!(yaml, "\\t"),
            _ if !is_escaped(character) && !marks.contains(&at) => write!(yaml, "{character}"),
            '\u{10000}'.. => write!(yaml, "\\U{:08x}", u32::from(character)),
            _ => write!(yaml, "\\u{:04x}", u32::from(character)),
        }; // writing to a String cannot fail
    }
    yaml.push('"');
}

/// True for characters that must be escaped: control and hidden ones, and those that YAML does not allow.
fn is_escaped(character: char) -> bool {
    is_control_or_hidden(character) || u32::from(character) & 0xfffe == 0xfffe
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use vmgate_verdict::{read, sample};

    use super::*;

    #[test]
    fn it_reads_back_as_the_same_verdicts_and_holds_nothing_that_is_obeyed() {
        let mut bytes = Vec::new();
        write(&[sample::no_go(), sample::go()], &mut bytes).unwrap();
        assert_eq!(read("v.yaml", &bytes).unwrap(), [sample::no_go(), sample::go()]);
        let text = String::from_utf8(bytes).unwrap();
        assert!(!text.chars().any(|c| c != '\n' && is_control_or_hidden(c)), "{text}");
        let mut none = Vec::new();
        write(&[], &mut none).unwrap();
        assert_eq!(read("v.yaml", &none).unwrap(), []);
    }

    #[test]
    fn strings_are_plain_where_that_is_certain() {
        for (value, yaml) in [
            ("hv1.example.org", "hv1.example.org\n"),
            ("Move it, or not (later)", "Move it, or not (later)\n"),
            ("2026-11-23", "\"2026-11-23\"\n"),
            ("No", "\"No\"\n"),
            ("a: b", "\"a: b\"\n"),
            ("a ", "\"a \"\n"),
            ("\u{1b}[0m\u{e0041}", "\"\\u001b[0m\\U000e0041\"\n"),
            ("one\n\n  two", "|-\n  one\n\n    two\n"),
            ("one\n", "\"one\\n\"\n"),
            ("one\n::error::two", "\"one\\n::error::two\"\n"),
            ("::error::a", "\":\\u003aerror::a\"\n"),
            ("x ##vso[a] ##[b]", "\"x ##vso\\u005ba] ##\\u005bb]\"\n"),
            ("section_start:1", "\"section_start\\u003a1\"\n"),
        ] {
            assert_eq!(text(&value).unwrap(), yaml);
        }
    }

    fn string() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), "[ -~]{0,6}", "[a-z:# \n\t|>~0-9.eE+-]{0,12}"]
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e12..1e12_f64).prop_map(Value::from),
            string().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((string(), inner), 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_yaml_parser_reads_back_what_was_written(value in value()) {
            let document = json!({ "value": value });
            let yaml = text(&document).unwrap();
            let read: Value = serde_yaml::from_str(&yaml).map_err(|e| TestCaseError::fail(format!("{e}: {yaml}")))?;
            prop_assert_eq!(read, document, "{}", yaml);
        }
    }
}
