//! The document of a rule's tests, as people write it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value as Json;

use vmgate_verdict::Status;

/// The tests of one rule. The file is called `<id>.test.yaml` and stands beside the rule.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "the schema is checked when the document is read")]
pub(crate) struct TestDocument {
    /// Names this format.
    pub(crate) schema: TestSchema,
    /// The rule's id.
    pub(crate) rule: String,
    /// What the rule must find, case by case: at least one that passes, fails, is unknown, and shows the remediation.
    pub(crate) cases: Vec<CaseDocument>,
}

/// The names of the test format that this version reads.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
pub(crate) enum TestSchema {
    /// The first format.
    #[serde(rename = "vmgate/rule-test/v1")]
    V1,
}

/// One case.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "facts are read from the document with their positions")]
pub(crate) struct CaseDocument {
    /// What the case is, in words.
    #[schemars(example = &"one byte too little")]
    pub(crate) name: String,
    /// The facts to begin with: a file of `fixtures/`, without its ending.
    #[schemars(example = &"idle-vm")]
    pub(crate) given: String,
    /// Facts that differ, by path: `vm.nics[0].tap: vnet3`, `vm.nics[+]: {…}` adds one, `!unknown "why"`, `!absent`.
    pub(crate) set: Option<BTreeMap<String, Json>>,
    /// The predicted migration; what is left out is unknown.
    pub(crate) forecast: Option<Json>,
    /// The time of the check; the fixture's `collected_at` where it is left out.
    pub(crate) now: Option<Timestamp>,
    /// Values for parameters of the rule.
    pub(crate) params: Option<BTreeMap<String, Json>>,
    /// What the rule must find.
    pub(crate) expect: Expect,
    /// The case that fails and whose remediation was followed here.
    pub(crate) remediates: Option<String>,
}

/// What a rule must find.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Expect {
    /// The worst of all outcomes: fail, then unknown, then pass, then not-applicable.
    Overall(Status),
    /// These outcomes, each once; every outcome that is not listed must pass.
    Outcomes(Vec<ExpectedOutcome>),
}

/// One outcome that a rule must have.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExpectedOutcome {
    /// What was found.
    pub(crate) status: Status,
    /// What it was found on, exactly.
    pub(crate) subject: Option<String>,
    /// A part of the message, or `/a regular expression/`.
    pub(crate) message: Option<String>,
}
