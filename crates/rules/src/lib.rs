//! Rules: loaded from YAML, checked against the fact types, evaluated in three-valued logic.
//!
//! `files` finds rule files, `load` checks one (its form by `vmgate_documents`, its expressions by `expr`), `pack` holds all
//! rules with the current parameters, `evaluate` makes outcomes of facts. No I/O after loading, no clock: the same rules,
//! facts and time give the same outcomes. Never collects a fact, and never decides GO or NO-GO. For the crates that
//! forecast and judge, and for the command line.
//!
//! Walls, which the compiler keeps:
//!
//! ```compile_fail
//! use vmgate_collect::collect;
//! ```
//!
//! ```compile_fail
//! use vmgate_reach::SshTarget;
//! ```

#![forbid(unsafe_code)]

pub mod catalogue;
mod document;
mod evaluate;
mod explain;
mod expr;
mod files;
mod lint;
mod load;
mod pack;
mod param;
mod program;
mod reference;
mod root;
#[allow(clippy::module_inception, reason = "the rule itself, among what belongs to rules")]
mod rule;
pub mod test;
mod value;

pub use catalogue::Catalogues;
pub use document::{ParamKind, Reference, SettledBy};
pub use explain::{explain_rule, rules_reference};
pub use files::{RuleSource, pack_files};
pub use lint::lint;
pub use pack::{Pack, Profile};
pub use param::{Param, ParamError, ParamErrors, ParamOrigin, ParamOverrides};
pub use reference::{FactField, NoSuchFact, fact_fields, facts_markdown, facts_reference, schemas};
pub use rule::{Rule, RuleExpressions};

#[cfg(test)]
mod tests;
