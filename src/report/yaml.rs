//! The verdict document as YAML, for people who read documents: the same as the JSON report, easier on the eye.
//!
//! YAML cannot always escape what a terminal would obey, so such characters are written out as `\u{…}`: a program
//! that needs the exact names reads the JSON report.

use std::io::{self, Write};

use serde_json::Value;

use super::{json::List, visible};
use crate::verdict::Verdict;

pub(super) fn write(verdicts: &[Verdict], sink: &mut dyn Write) -> io::Result<()> {
    let document = match verdicts {
        [verdict] => serde_json::to_value(verdict),
        several => serde_json::to_value(List::new(several)),
    };
    let mut document = document.map_err(io::Error::from)?;
    neutralise(&mut document);
    serde_yaml::to_writer(sink, &document).map_err(io::Error::other)
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
    }
}
