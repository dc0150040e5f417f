//! Parsers of configuration formats. Each accepts any text of a bounded size and never panics; it leaves out the parts
//! that it does not understand.

pub(super) mod block;
pub(super) mod duration;
pub(super) mod lines;
pub(super) mod tree;
mod yaml;
