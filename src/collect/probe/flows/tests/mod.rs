//! What the flow capture must do, on made frames and on real interfaces.

mod agreement;
mod frames;
mod namespace;
mod parsing;
mod wire;
