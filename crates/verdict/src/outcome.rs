//! What a rule says of one subject, with the facts that decided it.

use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use vmgate_facts::Cause;

/// The step of a migration that a rule belongs to, in the order they happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The destination reserves memory and the path is set up.
    Prepare,
    /// Memory is copied while the guest runs.
    Precopy,
    /// The guest is stopped.
    Stop,
    /// The rest is sent: the blackout.
    Switch,
    /// The guest runs on the destination.
    Resume,
    /// What the organisation demands, beside the five steps.
    Policy,
}

impl Step {
    /// All of them, in the order they happen.
    pub fn all() -> [Self; 6] {
        [Self::Prepare, Self::Precopy, Self::Stop, Self::Switch, Self::Resume, Self::Policy]
    }

    /// Its name, as documents and reports write it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Precopy => "precopy",
            Self::Stop => "stop",
            Self::Switch => "switch",
            Self::Resume => "resume",
            Self::Policy => "policy",
        }
    }
}

/// How bad a violation is, for sorting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing.
    Low,
    /// Service may suffer a little.
    Medium,
    /// Service suffers, or the migration fails.
    High,
    /// The guest or its data may be lost.
    Critical,
}

impl Severity {
    /// Its name, as documents and reports write it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// What a violation or missing evidence does to the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// It is shown and changes nothing.
    Note,
    /// It is shown as a warning; NO-GO only under `--strict`.
    Warn,
    /// NO-GO.
    Block,
}

impl Effect {
    /// Its name, as documents and reports write it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warn => "warn",
            Self::Block => "block",
        }
    }
}

/// What a rule found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The healthy state holds.
    Pass,
    /// It does not hold.
    Fail,
    /// The evidence does not suffice to say.
    Unknown,
    /// The rule has nothing to say here: its `when` is false, or its `foreach` is empty.
    NotApplicable,
}

impl Status {
    /// Its name, as documents and reports write it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Unknown => "unknown",
            Self::NotApplicable => "not-applicable",
        }
    }
}

/// One rule on one subject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Outcome {
    /// The rule's id.
    pub rule: Arc<str>,
    /// The rule's title: the healthy state.
    pub title: Arc<str>,
    /// The step it belongs to.
    pub step: Step,
    /// How bad a violation is.
    pub severity: Severity,
    /// What a violation does.
    pub effect: Effect,
    /// What missing evidence does.
    pub on_unknown: Effect,
    /// What was found.
    pub status: Status,
    /// What it was found on; absent where the rule speaks of the move as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What was found, in a sentence with the values.
    pub message: Arc<str>,
    /// What to do about it; only where the status is fail or unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remediation: Option<String>,
    /// The facts that decided it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Arc<Evidence>>,
    /// The facts that were missing; only where the status is unknown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
    /// Whether a waiver may be laid over it.
    pub waivable: bool,
}

/// A fact that decided an outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Evidence {
    /// Its path, as a rule writes it, with list positions.
    pub path: String,
    /// Its value; long lists and texts are cut.
    pub value: serde_json::Value,
    /// Who obtained it and how; absent where the document does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Arc<str>>,
    /// When it was obtained; absent where the document does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// A fact that an outcome would have needed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Missing {
    /// Its path, as a rule writes it.
    pub path: String,
    /// Why it is not known.
    pub reason: String,
    /// The kind of obstacle.
    pub cause: Cause,
}

impl Outcome {
    /// What this outcome does to the verdict, before waivers: nothing for pass and not-applicable.
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
