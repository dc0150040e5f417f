//! A rule as it was loaded, with what is shown of it and what is evaluated.

use std::sync::Arc;

use super::{document::Reference, param::Param, program::Program};
use vmgate_documents::{Node, SourceFile};
use vmgate_verdict::{Effect, Severity, Step};

/// A rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its name.
    pub id: Arc<str>,
    /// The healthy state.
    pub title: Arc<str>,
    /// The step of a migration that it belongs to.
    pub step: Step,
    /// How bad a violation is.
    pub severity: Severity,
    /// What a violation does.
    pub effect: Effect,
    /// What missing evidence does.
    pub on_unknown: Effect,
    /// Why it matters.
    pub rationale: String,
    /// What to do about it, as the rule writes it.
    pub remediation: String,
    /// Where to look it up.
    pub references: Vec<Reference>,
    /// Its parameters with the values that hold.
    pub params: Vec<Param>,
    /// Facts older than this count as unknown.
    pub max_age_seconds: Option<f64>,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Why it should not be used any more.
    pub deprecated: Option<String>,
    /// Whether a waiver may be laid over it.
    pub waivable: bool,
    /// The shipped rule that it takes the place of.
    pub replaces: Option<String>,
    /// The file it was read from.
    pub file: String,
    /// Its expressions as they are written.
    pub texts: Texts,
    pub(crate) program: Program,
    pub(crate) source: Arc<SourceFile>,
    pub(crate) node: Node,
}

/// The expressions of a rule as they are written.
#[derive(Debug, Clone)]
pub struct Texts {
    /// The rule applies where this holds.
    pub when: Option<String>,
    /// Variables and their lists.
    pub foreach: Vec<(String, String)>,
    /// Names and their expressions.
    pub lets: Vec<(String, String)>,
    /// The healthy state.
    pub assert: String,
    /// What an outcome is about.
    pub subject: Option<String>,
    /// What was found.
    pub message: String,
}
