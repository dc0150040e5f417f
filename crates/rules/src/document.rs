//! Documents that people write: rules and profiles. Their JSON Schemas come from these types.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vmgate_facts::Unit;
use vmgate_verdict::{Effect, Severity, Step};

/// A rule: one statement about a healthy migration.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(title = "vmgate rule")]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "expressions are read from the document with their positions")]
pub(crate) struct RuleDocument {
    /// Name and version of this format.
    pub(crate) schema: RuleSchema,
    /// The rule's name: kebab-case, the healthy state. The file is called `<id>.yaml`.
    #[schemars(example = &"destination-memory-fits")]
    pub(crate) id: String,
    /// The healthy state, in a sentence without a full stop.
    #[schemars(example = &"The destination has memory for the VM")]
    pub(crate) title: String,
    /// The step of a migration that the rule belongs to.
    pub(crate) step: Step,
    /// Severity of a violation; outcomes are sorted by it.
    pub(crate) severity: Severity,
    /// Effect of a violation on the verdict.
    pub(crate) effect: Effect,
    /// Effect of missing evidence on the verdict; the same as `effect` if left out.
    pub(crate) on_unknown: Option<Effect>,
    /// Condition for the whole move: the rule applies only if this is true.
    #[schemars(example = &"vm.huge_page_bytes == null")]
    pub(crate) when: Option<String>,
    /// Variables, each with a list: the rule is evaluated once for every item.
    pub(crate) foreach: Option<BTreeMap<String, String>>,
    /// Named expressions, for use in the fields below.
    #[serde(rename = "let")]
    pub(crate) bindings: Option<BTreeMap<String, String>>,
    /// The healthy state as an expression.
    #[schemars(example = &"destination.memory.available_bytes >= vm.memory_max_bytes")]
    pub(crate) assert: String,
    /// Name of the item that an outcome of `foreach` is about, with `{expressions}`.
    #[schemars(example = &"{c.local} -> {c.remote}")]
    pub(crate) subject: Option<String>,
    /// Message of a violation: the value and the limit, with `{expressions}`.
    pub(crate) message: String,
    /// Reason for the rule: the harm that a violation does.
    pub(crate) rationale: String,
    /// Way out of a violation, with commands if there are any, with `{expressions}`.
    pub(crate) remediation: String,
    /// Manuals, RFCs and issues that the rule is based on.
    #[serde(default)]
    pub(crate) references: Vec<Reference>,
    /// Values that profiles and vmgate.yaml can set, used as `params.name`.
    #[serde(default)]
    pub(crate) params: BTreeMap<String, ParamDocument>,
    /// Way to settle an outcome that the facts leave unknown, for a rule that asks only if the start of a migration is taken.
    pub(crate) settled_by: Option<SettledBy>,
    /// Facts older than this many seconds count as unknown.
    #[schemars(example = 600.0)]
    pub(crate) max_age: Option<f64>,
    /// Search words for the rule.
    #[serde(default)]
    pub(crate) tags: Vec<String>,
    /// Reason to stop using the rule, and the rule to use instead.
    pub(crate) deprecated: Option<String>,
    /// True if a violation can be waived.
    #[serde(default = "default_true")]
    pub(crate) waivable: bool,
    /// The shipped rule that this rule replaces.
    pub(crate) replaces: Option<String>,
}

fn default_true() -> bool {
    true
}

/// Ways to settle an unknown outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SettledBy {
    /// A trial that both hosts accepted (`vmgate check --trial`): an unknown outcome is then passed.
    Trial,
}

vmgate_facts::schema_id!(pub(crate) RuleSchema = "vmgate/rule/v1");

/// A document that readers can look up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// Title of the document.
    pub title: String,
    /// Web address of the document.
    pub url: String,
}

/// A parameter of a rule.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ParamDocument {
    /// Type of the value.
    #[serde(rename = "type")]
    pub(crate) kind: ParamKind,
    /// Unit of a number; taken from the ending of the name if left out.
    pub(crate) unit: Option<ParamUnit>,
    /// Smallest value that is allowed, for a number.
    pub(crate) min: Option<f64>,
    /// Largest value that is allowed, for a number.
    pub(crate) max: Option<f64>,
    /// Value if neither a profile nor vmgate.yaml sets another.
    pub(crate) default: serde_json::Value,
    /// Meaning of the parameter, in a sentence.
    pub(crate) help: String,
}

/// Types of parameters.
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
    /// A ratio: a part of a whole.
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
#[schemars(title = "vmgate profile")]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "the schema is checked when the document is read")]
pub(crate) struct ProfileDocument {
    /// Name and version of this format.
    pub(crate) schema: ProfileSchema,
    /// The guests that the profile is for.
    pub(crate) title: String,
    /// Values by rule id and parameter name.
    #[serde(default)]
    pub(crate) params: BTreeMap<String, BTreeMap<String, serde_json::Value>>,
}

vmgate_facts::schema_id!(pub(crate) ProfileSchema = "vmgate/profile/v1");
