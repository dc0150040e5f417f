//! Tests of the flow capture, on constructed frames and on real interfaces.

mod agreement;
mod frames;
mod namespace;
mod parsing;
mod wire;

pub(crate) use frames::{ethernet, ipv4};
pub(crate) use parsing::hostile;
