//! The formats that configuration is written in. Each reader takes any text, of a bounded size, and never panics;
//! what it cannot make sense of it leaves out.

pub(super) mod block;
pub(super) mod duration;
pub(super) mod lines;
pub(super) mod tree;
