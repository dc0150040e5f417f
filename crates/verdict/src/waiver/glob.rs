//! Patterns of waivers: `*` and `?` over a whole text. Subjects are full of dots and brackets, so a regular expression would be
//! wrong in most hands: `10.0.0.7` would fit `10a0b0c7`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vmgate_facts::text::glob;

/// A pattern in which `*` stands for any text, `?` for one character, and everything else for itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Glob(String);

impl Glob {
    /// Takes any text as a pattern.
    pub fn new(pattern: impl Into<String>) -> Self {
        Self(pattern.into())
    }

    /// The pattern as it was written.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// True if the whole text fits. Costs at most the product of both lengths, however hostile a guest's name is.
    pub fn fits(&self, text: &str) -> bool {
        glob::fits(&self.0, text)
    }
}
