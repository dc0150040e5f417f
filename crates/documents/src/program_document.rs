//! Documents that programs write for programs: reports and verdicts, as JSON or YAML.
//!
//! They have no shape here, so that a reader ignores the fields of a newer writer. The YAML is bounded as that of people
//! is: a general YAML parser takes a minute for 200 KB of brackets.

use serde::de::DeserializeOwned;

use crate::{Parsed, Problem, SourceFile, parse};

/// Largest document, in bytes: a report on thousands of moves is below it.
pub const LARGEST_PROGRAM_DOCUMENT: u64 = 256 << 20;
/// Largest document in YAML, whose tree takes more memory.
const LARGEST_YAML: u64 = 32 << 20;

/// Reads a document, JSON if it begins with a brace and YAML otherwise. The error is the first problem, in one line.
pub fn program_document<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let wrong = |error: serde_json::Error| error.to_string();
    if bytes.trim_ascii_start().starts_with(b"{") {
        if bytes.len() as u64 > LARGEST_PROGRAM_DOCUMENT {
            return Err(format!("it is too large: more than {LARGEST_PROGRAM_DOCUMENT} bytes"));
        }
        return serde_json::from_slice(bytes).map_err(wrong);
    }
    let file =
        SourceFile::bounded("", bytes.to_vec(), LARGEST_YAML).map_err(|problem| problem.in_one_line())?;
    let Parsed { node, problems } = parse(&file);
    match (node, problems.first()) {
        (Some(node), None) => serde_json::from_value(node.to_json()).map_err(wrong),
        (_, problem) => Err(problem.map(Problem::in_one_line).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::Value;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Known {
        a: u32,
        b: String,
    }

    #[test]
    fn fields_of_a_newer_writer_are_ignored() {
        let known = Known { a: 1, b: "x: y".into() };
        for text in ["{\"a\": 1, \"b\": \"x: y\", \"c\": []}", "a: 1\nb: 'x: y'\nc: [1]\n"] {
            assert_eq!(program_document::<Known>(text.as_bytes()).unwrap(), known);
        }
    }

    #[test]
    fn what_would_take_for_ever_is_refused() {
        for text in ["[".repeat(1 << 20), "- ".repeat(1 << 20), format!("a: {}", "{a: ".repeat(1 << 18))] {
            let why = program_document::<Value>(text.as_bytes()).unwrap_err();
            assert!(why.contains("nested too deeply"), "{why}");
        }
    }
}
