//! What the flow capture must do, on made frames and on real interfaces.

mod agreement;
mod frames;
mod namespace;
mod parsing;
mod wire;

pub(crate) use frames::{ethernet, ipv4};
pub(crate) use parsing::hostile;
