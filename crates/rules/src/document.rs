//! The documents that people write: rules and profiles. Their JSON Schemas come from these types.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use vmgate_facts::Unit;
use vmgate_verdict::{Effect, Severity, Step};

/// A rule: one statement about a healthy migration.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "expressions are read from the document with their positions")]
pub(crate) struct RuleDocument {
    /// Names this format.
    pub(crate) schema: RuleSchema,
    /// The rule's name: kebab-case, the healthy state. The file is called `<id>.yaml`.
    #[schemars(example = &"destination-memory-fits")]
    pub(crate) id: String,
    /// The healthy state, in a sentence without a full stop.
    #[schemars(example = &"The destination has memory for the VM")]
    pub(crate) title: String,
    /// The step of a migration that it belongs to.
    pub(crate) step: Step,
    /// How bad a violation is, for sorting.
    pub(crate) severity: Severity,
    /// What a violation does to the verdict.
    pub(crate) effect: Effect,
    /// What missing evidence does to the verdict; the same as `effect` where it is left out.
    pub(crate) on_unknown: Option<Effect>,
    /// The rule applies only where this holds. It speaks of the move as a whole.
    #[schemars(example = &"vm.huge_page_bytes == null")]
    pub(crate) when: Option<String>,
    /// Variables and the lists whose items they take: the rule is evaluated for each.
    pub(crate) foreach: Option<BTreeMap<String, String>>,
    /// Names for expressions that are used below.
    #[serde(rename = "let")]
    pub(crate) bindings: Option<BTreeMap<String, String>>,
    /// The healthy state as an expression.
    #[schemars(example = &"destination.memory.available_bytes >= vm.memory_max_bytes")]
    pub(crate) assert: String,
    /// What an outcome of `foreach` is about, with `{expressions}`.
    #[schemars(example = &"{c.local} -> {c.remote}")]
    pub(crate) subject: Option<String>,
    /// What was found, with the values and the limit, with `{expressions}`.
    pub(crate) message: String,
    /// Why it matters.
    pub(crate) rationale: String,
    /// What to do about a violation, with commands where there are some, with `{expressions}`.
    pub(crate) remediation: String,
    /// Where the reader can look it up.
    #[serde(default)]
    pub(crate) references: Vec<Reference>,
    /// Values that profiles and vmgate.yaml can set, used as `params.name`.
    #[serde(default)]
    pub(crate) params: BTreeMap<String, ParamDocument>,
    /// Facts older than this many seconds count as unknown.
    #[schemars(example = 600.0)]
    pub(crate) max_age: Option<f64>,
    /// Words to find the rule by.
    #[serde(default)]
    pub(crate) tags: Vec<String>,
    /// Why the rule should not be used any more, and what to use instead.
    pub(crate) deprecated: Option<String>,
    /// Whether a waiver may be laid over a violation.
    #[serde(default = "yes")]
    pub(crate) waivable: bool,
    /// The shipped rule that this one takes the place of.
    pub(crate) replaces: Option<String>,
}

fn yes() -> bool {
    true
}

/// The names of the rule format that this version reads.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
pub(crate) enum RuleSchema {
    /// The first format.
    #[serde(rename = "vmgate/rule/v1")]
    V1,
}

/// Where a reader can look something up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// What it is called.
    pub title: String,
    /// Where it is.
    pub url: String,
}

/// A parameter of a rule.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ParamDocument {
    /// What kind of value it is.
    #[serde(rename = "type")]
    pub(crate) kind: ParamKind,
    /// Unit of a number; taken from the name's ending where it is left out.
    pub(crate) unit: Option<ParamUnit>,
    /// Least value of a number.
    pub(crate) min: Option<f64>,
    /// Greatest value of a number.
    pub(crate) max: Option<f64>,
    /// The value where nobody sets another.
    pub(crate) default: serde_json::Value,
    /// What it means, in a sentence.
    pub(crate) help: String,
}

/// Kinds of parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ParamKind {
    /// True or false.
    Bool,
    /// A whole number.
    Int,
    /// A number.
    Double,
    /// A text.
    String,
    /// A list of texts.
    Strings,
}

/// Units of parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ParamUnit {
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// Bytes per second.
    BytesPerSecond,
    /// A part of a whole.
    Ratio,
    /// A plain number.
    None,
}

impl ParamUnit {
    pub(crate) fn unit(self) -> Unit {
        match self {
            Self::Bytes => Unit::BYTES,
            Self::Seconds => Unit::SECONDS,
            Self::BytesPerSecond => Unit::BYTES_PER_SECOND,
            Self::Ratio => Unit::Ratio,
            Self::None => Unit::Count,
        }
    }
}

/// A profile: values for the parameters of rules, for one kind of guests.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "the schema is checked when the document is read")]
pub(crate) struct ProfileDocument {
    /// Names this format.
    pub(crate) schema: ProfileSchema,
    /// For whom it is.
    pub(crate) title: String,
    /// Values by rule and parameter.
    #[serde(default)]
    pub(crate) params: BTreeMap<String, BTreeMap<String, serde_json::Value>>,
}

/// The names of the profile format that this version reads.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
pub(crate) enum ProfileSchema {
    /// The first format.
    #[serde(rename = "vmgate/profile/v1")]
    V1,
}
