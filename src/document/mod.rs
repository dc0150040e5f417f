//! YAML documents that people write: rules and their tests, profiles, catalogues, waivers, settings, facts.
//!
//! All documents are read in the same way: parsed with the position of every node, checked against the JSON Schema of a
//! Rust type, and all problems of a file are shown together in the style of rustc, with a caret and a way out.

mod conform;
mod day;
mod node;
mod problem;
pub(crate) mod schema;
mod source;
pub(crate) mod types;
mod unit;
mod yaml;

use std::{
    marker::PhantomData,
    sync::{Arc, LazyLock},
};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

pub(crate) use conform::{conform, conform_node};
pub use day::{Day, InvalidDay};
pub(crate) use node::{Content, Node};
pub(crate) use problem::closest;
pub use problem::{Problem, Problems};
pub(crate) use source::{LARGEST_BYTES, SourceFile};
pub use unit::Unit;
pub(crate) use yaml::{Parsed, parse};

use types::Type;

/// Maximum number of problems of one kind reported for one document; the author corrects these first.
pub(crate) const MOST_PROBLEMS: usize = 200;

/// Type of one kind of document, derived from its Rust type when the first such document is read.
pub(crate) struct Shape<T> {
    ty: LazyLock<Type>,
    of: PhantomData<fn() -> T>,
}

impl<T: JsonSchema + DeserializeOwned> Shape<T> {
    pub(crate) const fn new() -> Self {
        Self { ty: LazyLock::new(schema::type_of_schema::<T>), of: PhantomData }
    }

    /// Type of the document, for checks.
    pub(crate) fn ty(&self) -> &Type {
        &self.ty
    }

    /// Reads a document of this type, or returns all its problems. `more` adds checks that a schema cannot express.
    pub(crate) fn read(
        &self,
        file: &Arc<SourceFile>,
        more: impl FnOnce(&Node) -> Vec<Problem>,
    ) -> Result<(T, Node), Vec<Problem>> {
        self.read_parsed(file, parse(file), more)
    }

    /// Like [`Self::read`], for a document that was already parsed to find out its kind.
    pub(crate) fn read_parsed(
        &self,
        file: &Arc<SourceFile>,
        parsed: Parsed,
        more: impl FnOnce(&Node) -> Vec<Problem>,
    ) -> Result<(T, Node), Vec<Problem>> {
        let Parsed { node, mut problems } = parsed;
        let Some(node) = node else { return Err(problems) };
        problems.extend(conform_node(file, &node, self.ty()));
        problems.extend(more(&node));
        if !problems.is_empty() {
            return Err(problems);
        }
        match serde_json::from_value(node.to_json()) {
            Ok(document) => Ok((document, node)),
            Err(error) => Err(vec![Problem::of_file(&file.name, error.to_string(), "correct the file")]),
        }
    }
}
