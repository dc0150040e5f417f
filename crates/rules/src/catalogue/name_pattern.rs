//! Patterns of whole names, with the parts that they capture.

use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A regular expression for a whole name, in the syntax of the regex crate; its groups have names.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("format" = "regex"))]
pub struct NamePattern {
    text: String,
    whole: Regex,
}

impl NamePattern {
    /// The named groups of a name that matches as a whole; none for another name.
    pub(super) fn parts<'a>(&self, name: &'a str) -> Option<impl Fn(&str) -> Option<&'a str>> {
        let found = self.whole.captures(name)?;
        Some(move |group: &str| found.name(group).map(|part| part.as_str()))
    }
}

impl TryFrom<String> for NamePattern {
    type Error = regex::Error;

    fn try_from(text: String) -> Result<Self, regex::Error> {
        Ok(Self { whole: Regex::new(&format!("^(?:{text})$"))?, text })
    }
}

impl From<NamePattern> for String {
    fn from(pattern: NamePattern) -> Self {
        pattern.text
    }
}

impl PartialEq for NamePattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}
