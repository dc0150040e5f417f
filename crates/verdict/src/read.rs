//! Reads verdict documents: one verdict, or the list that a run over several moves writes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use vmgate_documents::program_document;

use super::{Verdict, VerdictSchema, decide::is_consistent};

/// Verdicts on several moves in one document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Verdicts {
    /// Id of this format.
    pub schema: VerdictsSchema,
    /// The verdicts in the order of the moves.
    pub verdicts: Vec<Verdict>,
}

vmgate_facts::schema_id!(pub VerdictsSchema = "vmgate/verdicts/v1");

/// A file that holds no verdict.
#[derive(Debug, Error)]
#[error("{file} is not a verdict of vmgate: {problem}")]
pub struct InvalidVerdict {
    /// The file as it was named.
    pub file: String,
    /// The problem.
    pub problem: String,
}

/// Schemas that are read.
const EXPECTED: &str = "vmgate/verdict/v1 or vmgate/verdicts/v1";

/// The schema field alone: tells which of the two documents a file is.
#[derive(Deserialize)]
struct Head {
    schema: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Kind {
    One(VerdictSchema),
    Several(VerdictsSchema),
}

/// Reads a verdict or a list of them, JSON or YAML, as `--output json` and `--output yaml` write them. `file` is
/// only for messages. A decision that does not follow from the outcomes in the same document is refused.
pub fn read(file: &str, bytes: &[u8]) -> Result<Vec<Verdict>, InvalidVerdict> {
    let invalid = |problem: String| InvalidVerdict { file: file.to_owned(), problem };
    let wrong = |found: &str| invalid(format!("the `schema` must be {EXPECTED} ({found})"));
    let Head { schema } = program_document(bytes).map_err(|problem| wrong(&problem))?;
    let kind =
        serde_json::from_value(schema.as_str().into()).map_err(|_| wrong(&format!("it is {schema}")))?;
    let verdicts = match kind {
        Kind::One(_) => program_document(bytes).map(|verdict| vec![verdict]),
        Kind::Several(_) => program_document(bytes).map(|list: Verdicts| list.verdicts),
    }
    .map_err(invalid)?;
    match verdicts.iter().find(|verdict| !is_consistent(verdict)) {
        None => Ok(verdicts),
        Some(verdict) => Err(invalid(format!(
            "the {} on {} does not follow from its outcomes: the file was edited; run the check again",
            verdict.decision.word(),
            verdict.moved.vm.label()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn what_was_written_is_read_back() {
        let verdict = sample::no_go();
        let json = serde_json::to_vec(&verdict).unwrap();
        assert_eq!(read("v.json", &json).unwrap(), std::slice::from_ref(&verdict));
        let yaml = serde_yaml::to_string(&verdict).unwrap();
        assert_eq!(read("v.yaml", yaml.as_bytes()).unwrap(), std::slice::from_ref(&verdict));
        let several = Verdicts { schema: VerdictsSchema::V1, verdicts: vec![verdict.clone(), verdict] };
        let json = serde_json::to_vec(&several).unwrap();
        assert_eq!(read("v.json", &json).unwrap(), several.verdicts);
    }

    #[test]
    fn what_is_no_verdict_is_refused_with_the_expected_schema() {
        for text in ["", "{}", "[]", "schema: vmgate/facts/v1", "{\"schema\": \"vmgate/verdict/v2\"}", "{"] {
            let error = read("v.json", text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("vmgate/verdict/v1"), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_verdict_that_was_edited_is_refused() {
        let text = serde_json::to_string(&sample::no_go()).unwrap();
        let go = r#"{"answer":"GO","because":"all-clear"}"#;
        let edits = [
            (r#"{"answer":"NO-GO","because":"rule-violated"}"#, go),
            (r#""effect_now":"block""#, r#""effect_now":"note""#),
            (r#""blocking":4"#, r#""blocking":0"#),
        ];
        for (from, to) in edits {
            assert!(text.contains(from), "{from}");
            let error = read("v.json", text.replacen(from, to, 1).as_bytes()).unwrap_err().to_string();
            assert!(error.contains("does not follow from its outcomes"), "{error}");
        }
    }
}
