//! Outcome of one rule on one subject, with the facts that decided it.

use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;
use vmgate_facts::Cause;

/// Step of a migration that a rule belongs to, in the order of the steps.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    IntoStaticStr,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Step {
    /// The destination reserves memory and the path is set up.
    Prepare,
    /// Memory is copied while the guest runs.
    Precopy,
    /// The guest is stopped.
    Stop,
    /// The remaining memory is sent: the blackout.
    Switch,
    /// The guest runs on the destination.
    Resume,
    /// Demands of the organisation, in addition to the five steps.
    Policy,
}

impl Step {
    /// All steps, in their order.
    pub fn all() -> [Self; 6] {
        [Self::Prepare, Self::Precopy, Self::Stop, Self::Switch, Self::Resume, Self::Policy]
    }

    /// Name in documents and reports.
    pub fn word(self) -> &'static str {
        self.into()
    }
}

/// Severity of a violation; outcomes are sorted by it.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    IntoStaticStr,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Severity {
    /// The operator may want to know it.
    Low,
    /// The service may be disturbed a little.
    Medium,
    /// The service is disturbed, or the migration fails.
    High,
    /// The guest or its data may be lost.
    Critical,
}

impl Severity {
    /// Name in documents and reports.
    pub fn word(self) -> &'static str {
        self.into()
    }
}

/// Effect of a violation or of missing evidence on the verdict.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    IntoStaticStr,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Effect {
    /// Shown, and the verdict stays the same.
    Note,
    /// Shown as a warning; the verdict is NO-GO only with `--strict`.
    Warn,
    /// The verdict is NO-GO.
    Block,
}

impl Effect {
    /// Name in documents and reports.
    pub fn word(self) -> &'static str {
        self.into()
    }
}

/// Result of a rule.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    IntoStaticStr,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Status {
    /// The assertion of the rule is true.
    Pass,
    /// The assertion of the rule is false: a violation.
    Fail,
    /// A fact is missing that decides the assertion.
    Unknown,
    /// The rule does not apply: its `when` is false, or the list of its `foreach` is empty.
    NotApplicable,
}

impl Status {
    /// Name in documents and reports.
    pub fn word(self) -> &'static str {
        self.into()
    }
}

/// Outcome of one rule on one subject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Outcome {
    /// The rule's id.
    pub rule: Arc<str>,
    /// The rule's title: the healthy state.
    pub title: Arc<str>,
    /// The step that the rule belongs to.
    pub step: Step,
    /// Severity of a violation.
    pub severity: Severity,
    /// Effect of a violation.
    pub effect: Effect,
    /// Effect of missing evidence.
    pub on_unknown: Effect,
    /// Result of the rule.
    pub status: Status,
    /// Item of `foreach` that the outcome is about; absent if the rule is about the whole move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The finding, in a sentence with the values.
    pub message: Arc<str>,
    /// Way out; only if the status is fail or unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remediation: Option<String>,
    /// The facts that decided the outcome.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Arc<Evidence>>,
    /// The facts that were missing; only if the status is unknown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
    /// True if the outcome can be waived.
    pub waivable: bool,
}

/// A fact that decided an outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Evidence {
    /// Path of the fact, as a rule writes it, with list positions.
    pub path: String,
    /// Value of the fact; long lists and texts are cut.
    pub value: serde_json::Value,
    /// Collector and method that obtained the fact; absent if the facts document does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Arc<str>>,
    /// Time at which the fact was obtained; absent if the facts document does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// A fact that was needed for an outcome and is not known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Missing {
    /// Path of the fact, as a rule writes it.
    pub path: String,
    /// Reason why the fact is not known, in words.
    pub reason: String,
    /// Kind of the obstacle.
    pub cause: Cause,
}

impl Outcome {
    /// Effect of this outcome on the verdict, before waivers; none for pass and not-applicable.
    pub fn effect_now(&self) -> Option<Effect> {
        match self.status {
            Status::Fail => Some(self.effect),
            Status::Unknown => Some(self.on_unknown),
            Status::Pass | Status::NotApplicable => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_documents() {
        fn written<T: Serialize>(value: T) -> String {
            serde_json::to_value(value).unwrap().as_str().unwrap().to_owned()
        }
        for step in Step::all() {
            assert_eq!(step.word(), written(step));
        }
        for severity in [Severity::Low, Severity::Medium, Severity::High, Severity::Critical] {
            assert_eq!(severity.word(), written(severity));
        }
        for effect in [Effect::Note, Effect::Warn, Effect::Block] {
            assert_eq!(effect.word(), written(effect));
        }
        for status in [Status::Pass, Status::Fail, Status::Unknown, Status::NotApplicable] {
            assert_eq!(status.word(), written(status));
        }
    }
}
