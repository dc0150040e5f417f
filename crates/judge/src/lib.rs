//! The pure way from facts to a verdict: a policy (rules, parameters, catalogues, waivers) judges the facts of one move.
//!
//! Also the change documents that name moves, and the rules that hold on the way back. No clock, no network and no
//! process: only the files that people write are read here.

pub mod change;
mod policy;
pub mod way_back;

pub use policy::{InvalidPolicy, Policy, VerdictRequest};
