//! The verdict document as YAML, for people who read documents: the same as the JSON report, easier on the eye.
//!
//! YAML cannot always escape what a terminal would obey, so such characters are written out as `\u{…}`: a program
//! that needs the exact names reads the JSON report.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

use super::{json::List, visible};
use crate::verdict::{Verdict, VerdictsSchema};

pub(super) fn write(verdicts: &[Verdict], sink: &mut dyn Write) -> io::Result<()> {
    let mut sink = io::BufWriter::new(sink);
    match verdicts {
        [verdict] => sink.write_all(text(verdict)?.as_bytes())?,
        [] => sink.write_all(text(&List::new(&[]))?.as_bytes())?,
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

/// Another document than a verdict.
pub(super) fn document(document: &impl Serialize, sink: &mut dyn Write) -> io::Result<()> {
    sink.write_all(text(document)?.as_bytes())
}

fn text(document: &impl Serialize) -> io::Result<String> {
    let mut document = serde_json::to_value(document)?;
    neutralise(&mut document);
    serde_yaml::to_string(&document).map_err(io::Error::other)
}

fn neutralise(value: &mut Value) {
    match value {
        Value::String(text) => {
            let shown: Vec<_> = text.split('\n').map(visible).collect();
            *text = shown.join("\n");
        }
        Value::Array(items) => items.iter_mut().for_each(neutralise),
        Value::Object(fields) => fields.values_mut().for_each(neutralise),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::{read, sample};

    #[test]
    fn it_reads_back_as_a_verdict_and_holds_nothing_that_is_obeyed() {
        let mut bytes = Vec::new();
        write(&[sample::no_go(), sample::go()], &mut bytes).unwrap();
        let verdicts = read("v.yaml", &bytes).unwrap();
        assert_eq!(verdicts[1], sample::go());
        assert_eq!(verdicts[0].decision, sample::no_go().decision);
        let text = String::from_utf8(bytes).unwrap();
        assert!(!text.chars().any(|c| c != '\n' && super::super::visible::is_obeyed(c)), "{text}");
        let mut none = Vec::new();
        write(&[], &mut none).unwrap();
        assert_eq!(read("v.yaml", &none).unwrap(), []);
    }
}
