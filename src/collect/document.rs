//! Facts from a file that `vmgate collect` wrote, or that somebody else did.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use serde_json::Value;
use serde_saphyr::budget::{Budget, BudgetReport, EnforcingPolicy, check_yaml_budget};
use thiserror::Error;

use crate::fact::Facts;

/// Largest facts file: that of a guest with [`MOST_SOCKETS`](super::probe::guest::MOST_SOCKETS) sockets and as many
/// processes is below it.
const LIMIT: u64 = 32 << 20;

/// Deepest nesting of a facts file; the types need less than half of it.
const DEEPEST: usize = 24;

/// A facts file that cannot be used.
#[derive(Debug, Error)]
pub enum DocumentError {
    /// It cannot be read.
    #[error("{path}: cannot read the facts file: {why}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// It is larger than any facts file.
    #[error("{path}: longer than {limit} bytes, which no facts file is: check the name", path = path.display(), limit = LIMIT)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// There is nothing in it.
    #[error("{path}: the facts file is empty: was the collection interrupted?", path = path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It is no text.
    #[error("{path}: the facts file is not UTF-8 text: it is damaged or another file; collect again", path = path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// It does not hold facts, or not all of them. The words name the place.
    #[error("{path}: not a facts file of format vmgate/facts/v1: {why}", path = path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        why: String,
    },
}

/// Says everything in which a document differs from the fact types, each difference with its path.
pub type Conform = fn(&Value) -> Result<(), Vec<String>>;

/// Reads a facts file, YAML or JSON. All that `conform` has against it comes back together.
pub fn read(path: &Path, conform: Conform) -> Result<Facts, DocumentError> {
    let text = text(path)?;
    parse(&text, conform).map_err(|why| DocumentError::Invalid { path: path.to_owned(), why })
}

/// The text of a facts file, bounded, for whoever parses it.
pub fn text(path: &Path) -> Result<String, DocumentError> {
    let path = path.to_owned();
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(LIMIT + 1).read_to_end(&mut bytes));
    match read {
        Err(error) => Err(DocumentError::Unreadable { path, why: error.to_string() }),
        Ok(size) if size as u64 > LIMIT => Err(DocumentError::TooLarge { path }),
        Ok(_) => match String::from_utf8(bytes) {
            Err(_) => Err(DocumentError::NotText { path }),
            Ok(text) if text.trim().is_empty() => Err(DocumentError::Empty { path }),
            Ok(text) => Ok(text),
        },
    }
}

/// Facts from text; JSON is read as such, since its parser names places better, and YAML would take it slower.
fn parse(text: &str, conform: Conform) -> Result<Facts, String> {
    let json = text.trim_start().starts_with('{').then(|| serde_json::from_str(text).ok()).flatten();
    let document: Value = if let Some(document) = json {
        document
    } else {
        check_shape(text)?;
        serde_yaml::from_str(text).map_err(|error| error.to_string())?
    };
    conform(&document).map_err(|problems| problems.join("\n  "))?;
    serde_json::from_value(document).map_err(|error| error.to_string())
}

/// Refuses what would keep the YAML parser busy for minutes: it takes quadratic time over deep nesting, and aliases
/// may blow a small text up. Facts need neither. This parser streams, and stops where it sees enough.
fn check_shape(text: &str) -> Result<(), String> {
    let budget = Budget {
        max_depth: DEEPEST,
        max_aliases: 0,
        max_events: usize::MAX,
        max_nodes: usize::MAX,
        max_total_scalar_bytes: usize::MAX,
        ..Budget::default()
    };
    match check_yaml_budget(text, budget, EnforcingPolicy::AllContent) {
        Ok(BudgetReport { breached: Some(breach), .. }) => {
            Err(format!("nested too deeply, or with aliases ({breach:?})"))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(format!(
            "line {}, column {}: {}",
            error.marker().line(),
            error.marker().col() + 1,
            error.info()
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use jiff::Timestamp;

    use super::*;

    fn written(content: &[u8]) -> Result<Facts, DocumentError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("facts.yaml");
        fs::write(&path, content).unwrap();
        read(&path, crate::rule::conform_facts)
    }

    #[test]
    fn yaml_and_json_come_back_as_they_went() {
        let facts = Facts::empty(Timestamp::UNIX_EPOCH);
        assert_eq!(written(serde_yaml::to_string(&facts).unwrap().as_bytes()).unwrap(), facts);
        assert_eq!(written(serde_json::to_string(&facts).unwrap().as_bytes()).unwrap(), facts);
    }

    #[test]
    fn what_is_no_facts_file_is_refused_with_its_name_and_place() {
        let whole =
            "schema: vmgate/facts/v1\ncollected_at: 2026-11-23T00:00:00Z\nvm: {name: web1, vcpus: 2}\n";
        let cases: [(&[u8], &str); 8] = [
            (b"", "empty"),
            (b" \n\t", "empty"),
            (b"\xff\xfe\x00", "not UTF-8"),
            (&whole.as_bytes()[..whole.len() - 12], "line"),
            (b"schema: vmgate/facts/v2\ncollected_at: 2026-11-23T00:00:00Z\n", "vmgate/facts/v2"),
            (b"schema: vmgate/facts/v1\ncollected_at: yesterday\n", "collected_at"),
            (b"schema: vmgate/facts/v1\ncollected_at: 2026-11-23T00:00:00Z\nguset: {}\n", "guset"),
            (b"[1, 2, 3]", "facts"),
        ];
        for (content, sign) in cases {
            let error = written(content).unwrap_err().to_string();
            assert!(error.contains("facts.yaml") && error.contains(sign), "{error}");
        }
        assert!(matches!(
            read(Path::new("/no/such/file"), |_| Ok(())),
            Err(DocumentError::Unreadable { .. })
        ));
        assert!(matches!(read(Path::new("/"), |_| Ok(())), Err(DocumentError::Unreadable { .. })));
    }

    #[test]
    fn a_huge_file_is_refused_before_it_is_parsed() {
        let error = written(&vec![b'#'; usize::try_from(LIMIT).unwrap() + 2]).unwrap_err();
        assert!(matches!(error, DocumentError::TooLarge { .. }));
    }

    #[test]
    fn deep_nesting_is_an_error_not_a_crash() {
        assert!(written("[".repeat(200_000).as_bytes()).is_err());
        assert!(written("{\"a\":".repeat(200_000).as_bytes()).is_err());
        assert!(written("- ".repeat(200_000).as_bytes()).is_err());
        assert!(written(b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n").is_err());
    }
}
