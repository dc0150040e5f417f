//! A loaded rule: its documentation, its parameters and its checked expressions.

use std::sync::Arc;

use vmgate_documents::{Node, SourceFile};
use vmgate_verdict::{Effect, Severity, Step};

use super::{
    document::{Reference, SettledBy},
    param::Param,
    program::Program,
};

/// A rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Id, in kebab-case.
    pub id: Arc<str>,
    /// Title: the healthy state, in a sentence.
    pub title: Arc<str>,
    /// Step of a migration that the rule belongs to.
    pub step: Step,
    /// Severity of a violation.
    pub severity: Severity,
    /// Effect of a violation.
    pub effect: Effect,
    /// Effect of missing evidence.
    pub on_unknown: Effect,
    /// Reason for the rule: the harm that a violation does.
    pub rationale: String,
    /// Way out of a violation, as the rule writes it.
    pub remediation: String,
    /// Manuals, RFCs and issues that the rule is based on.
    pub references: Vec<Reference>,
    /// Parameters with their current values.
    pub params: Vec<Param>,
    /// Way to settle an unknown outcome.
    pub settled_by: Option<SettledBy>,
    /// Age limit: older facts count as unknown.
    pub max_age_seconds: Option<f64>,
    /// Search words.
    pub tags: Vec<String>,
    /// Reason to stop using the rule.
    pub deprecated: Option<String>,
    /// True if a violation can be waived.
    pub waivable: bool,
    /// Shipped rule that this rule replaces.
    pub replaces: Option<String>,
    /// File that the rule was read from.
    pub file: String,
    /// Expressions as they are written.
    pub texts: RuleExpressions,
    pub(crate) program: Program,
    pub(crate) source: Arc<SourceFile>,
    pub(crate) node: Node,
}

/// The expressions of a rule as they are written.
#[derive(Debug, Clone)]
pub struct RuleExpressions {
    /// Condition under which the rule applies.
    pub when: Option<String>,
    /// Variables with their lists.
    pub foreach: Vec<(String, String)>,
    /// Names with their expressions.
    pub lets: Vec<(String, String)>,
    /// Condition that is true in the healthy state.
    pub assert: String,
    /// Name of the item that an outcome is about.
    pub subject: Option<String>,
    /// Message of a violation.
    pub message: String,
}
