//! Rules: loaded from YAML, checked against the fact types, evaluated in three-valued logic.

pub mod catalogue;
mod outcome;

pub use outcome::{Effect, Evidence, Missing, Outcome, Severity, Status, Step};
