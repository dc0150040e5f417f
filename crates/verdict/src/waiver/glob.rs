//! Patterns of waivers: `*` and `?` over a whole text. Subjects are full of dots and brackets, so a regular expression would be
//! wrong in most hands: `10.0.0.7` would fit `10a0b0c7`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use vmgate_facts::text::glob;

/// A pattern in which `*` stands for any text, `?` for one character, and everything else for itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
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

impl JsonSchema for Glob {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Glob".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}
