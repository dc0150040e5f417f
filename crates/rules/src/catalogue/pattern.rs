//! Regular expressions of catalogues, compiled when the catalogue is read.

use regex::bytes::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Limit on the memory of one compiled pattern.
const SIZE_LIMIT_BYTES: usize = 256 * 1024;

/// A regular expression in the syntax of the regex crate, which takes time linear in the text. Its classes (`\s`, `\d`) are
/// those of ASCII: command lines and configuration files need no others, and such patterns compile ten times faster.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(inline, extend("format" = "regex"))]
pub struct Pattern(Regex);

/// A text that is not a regular expression, or is too large.
#[derive(Debug, Error)]
#[error("`{text}` is not a regular expression: {}", last_line(problem))]
pub struct InvalidPattern {
    text: String,
    problem: regex::Error,
}

/// Last line of the parser's message, without its drawing of the place.
fn last_line(problem: &regex::Error) -> String {
    let text = problem.to_string();
    let line = text.lines().last().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

impl Pattern {
    /// True if the pattern matches somewhere in the text.
    pub fn is_in(&self, text: &str) -> bool {
        self.0.is_match(text.as_bytes())
    }

    /// Captures of the first group, one for every match in the text.
    pub fn captures<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .captures_iter(text.as_bytes())
            .filter_map(|found| found.get(1))
            .filter_map(|group| str::from_utf8(group.as_bytes()).ok())
    }

    /// Number of capture groups, the whole match not counted.
    pub fn groups(&self) -> usize {
        self.0.captures_len() - 1
    }

    /// Pattern as it was written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl TryFrom<String> for Pattern {
    type Error = InvalidPattern;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        RegexBuilder::new(&text)
            .unicode(false)
            .size_limit(SIZE_LIMIT_BYTES)
            .build()
            .map(Self)
            .map_err(|problem| InvalidPattern { text, problem })
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.as_str().to_owned()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}
