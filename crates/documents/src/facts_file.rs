//! Reader of facts files, written by `vmgate collect`, by hand or by another tool.

use std::{path::Path, sync::Arc};

use serde_json::Value;
use vmgate_facts::Facts;

use crate::{Problem, Problems, Shape, SourceFile, conform};

/// Largest facts file that is read, in bytes: that of a guest with as many sockets as the probe lists and as many
/// processes is below it.
const LIMIT: u64 = 32 << 20;

static FACTS: Shape<Facts> = Shape::new();

/// Reads a facts file, YAML or JSON. Returns all problems of the file together.
pub fn read(path: &Path) -> Result<Facts, Problems> {
    document(&SourceFile::read(path, LIMIT)?)
}

/// Parses a facts file from bytes. `name` is only for messages.
pub fn parse(name: &str, bytes: &[u8]) -> Result<Facts, Problems> {
    document(&SourceFile::bounded(name, bytes.to_vec(), LIMIT)?)
}

fn document(file: &Arc<SourceFile>) -> Result<Facts, Problems> {
    match json(&file.text) {
        Some(facts) => Ok(facts),
        None => yaml(file),
    }
}

/// Parses JSON without problems; its own parser is faster, and knows escapes that YAML does not.
fn json(text: &str) -> Option<Facts> {
    let document: Value = text.trim_start().starts_with('{').then(|| serde_json::from_str(text).ok())??;
    conform(&document, FACTS.ty()).is_empty().then(|| serde_json::from_value(document).ok())?
}

fn yaml(file: &Arc<SourceFile>) -> Result<Facts, Problems> {
    let (facts, _) = FACTS.read(file, |_| Vec::new()).map_err(|mut problems| {
        if let [only] = problems.as_mut_slice()
            && only.message() == "is empty"
        {
            *only = Problem::of_file(
                &file.name,
                "is empty",
                "run `vmgate collect` again: the last run was interrupted",
            );
        }
        problems
    })?;
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use jiff::Timestamp;

    use super::*;

    fn written(content: &[u8]) -> Result<Facts, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("facts.yaml");
        fs::write(&path, content).unwrap();
        read(&path).map_err(|problems| problems.to_string())
    }

    #[test]
    fn yaml_and_json_come_back_as_they_went() {
        let facts = Facts::empty(Timestamp::UNIX_EPOCH);
        assert_eq!(written(serde_yaml::to_string(&facts).unwrap().as_bytes()).unwrap(), facts);
        assert_eq!(written(serde_json::to_string(&facts).unwrap().as_bytes()).unwrap(), facts);
        assert_eq!(written(serde_json::to_string_pretty(&facts).unwrap().as_bytes()).unwrap(), facts);
    }

    #[test]
    fn what_is_no_facts_file_is_refused_with_its_name_and_place() {
        let whole =
            "schema: vmgate/facts/v1\ncollected_at: 2026-11-23T00:00:00Z\nvm: {name: web1, vcpus: 2}\n";
        let cases: [(&[u8], &str); 10] = [
            (b"", "is empty"),
            (b" \n\n", "is empty"),
            (b"\xff\xfe\x00", "not UTF-8"),
            (&whole.as_bytes()[..whole.len() - 12], "facts.yaml:3:"),
            (b"schema: vmgate/facts/v2\ncollected_at: 2026-11-23T00:00:00Z\n", "facts.yaml:1:9"),
            (b"schema: vmgate/facts/v1\ncollected_at: yesterday\n", "`yesterday` is not a time"),
            (
                b"schema: vmgate/facts/v1\ncollected_at: 2026-11-23T00:00:00Z\nguset: {}\n",
                "did you mean `guest`?",
            ),
            (b"{\"schema\": \"vmgate/facts/v1\",\n\t\"guset\": {}}", "facts.yaml:2:"),
            (b"{\"schema\": \"vmgate/facts/v1\", \"vm\": {}, \"vm\": {}}", "`collected_at` is missing"),
            (b"[1, 2, 3]", "expected a mapping with `schema`, `collected_at`"),
        ];
        for (content, sign) in cases {
            let error = written(content).unwrap_err();
            assert!(error.contains("facts.yaml") && error.contains(sign), "{sign}: {error}");
        }
        assert!(read(Path::new("/no/such/file")).unwrap_err().to_string().contains("cannot be read"));
        assert!(read(Path::new("/")).unwrap_err().to_string().contains("is a directory"));
    }

    #[test]
    fn a_huge_file_is_refused_before_it_is_parsed() {
        let error = written(&vec![b'#'; usize::try_from(LIMIT).unwrap() + 2]).unwrap_err();
        assert!(error.contains("is too large"), "{error}");
    }

    #[test]
    fn deep_nesting_is_an_error_not_a_crash() {
        for text in ["[".repeat(200_000), "{\"a\":".repeat(200_000), "- ".repeat(200_000)] {
            assert!(written(text.as_bytes()).unwrap_err().contains("nested too deeply"));
        }
        let bomb = written(b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n").unwrap_err();
        assert!(bomb.contains("anchors and aliases are not supported"), "{bomb}");
    }
}
