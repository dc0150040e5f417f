//! YAML documents that people write: rules and their tests, profiles, catalogues, waivers, settings, facts.
//!
//! All documents are read in the same way: parsed with the position of every node, checked against the JSON Schema of a
//! Rust type, and all problems of a file are shown together in the style of rustc, with a caret and a way out. An unknown
//! field is an error. What programs write is read here too, in the same bounds and without a shape. Knows the form of a document and never its meaning; the only I/O is to read the file that is named.
//! For every crate that reads what people write.
//!
//! Walls, which the compiler keeps:
//!
//! ```compile_fail
//! use vmgate_rules::Pack;
//! ```

#![forbid(unsafe_code)]

mod conform;
pub mod facts_file;
mod node;
mod problem;
mod program_document;
pub mod schema;
mod source;
pub mod types;
mod yaml;

use std::{
    marker::PhantomData,
    sync::{Arc, LazyLock},
};

pub use conform::{conform, conform_node};
pub use node::{Content, Node};
pub use problem::{Problem, Problems, closest};
pub use program_document::{LARGEST_PROGRAM_DOCUMENT, program_document};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
pub use source::{LARGEST_BYTES, SourceFile};
use types::Type;
pub use yaml::{Parsed, parse};

/// Most problems of one kind that are looked for in one document: whoever has more begins with these.
pub const MOST_PROBLEMS: usize = 50;

/// The shape of one kind of document, worked out from its Rust type when the first of them is read.
pub struct Shape<T> {
    ty: LazyLock<Type>,
    of: PhantomData<fn() -> T>,
}

impl<T: JsonSchema + DeserializeOwned> Shape<T> {
    /// A shape, worked out when it is first used.
    #[allow(clippy::new_without_default, reason = "shapes are statics")]
    pub const fn new() -> Self {
        Self { ty: LazyLock::new(schema::type_of_schema::<T>), of: PhantomData }
    }

    /// The shape as a type.
    pub fn ty(&self) -> &Type {
        &self.ty
    }

    /// Reads a document of this shape, or says everything that is wrong with it. `more` adds what no schema can say.
    pub fn read(
        &self,
        file: &Arc<SourceFile>,
        more: impl FnOnce(&Node) -> Vec<Problem>,
    ) -> Result<(T, Node), Vec<Problem>> {
        self.read_parsed(file, parse(file), more)
    }

    /// As [`Self::read`], for a document that was parsed to see of which shape it is.
    pub fn read_parsed(
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
