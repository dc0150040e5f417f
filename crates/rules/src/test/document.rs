//! Document of a rule's tests, as people write it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value as Json;
use vmgate_verdict::Status;

/// The tests of one rule. The file name is `<id>.test.yaml`, in the folder of the rule.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(title = "vmgate rule test")]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "the schema is checked when the document is read")]
pub(crate) struct TestDocument {
    /// Name and version of this format.
    pub(crate) schema: TestSchema,
    /// The rule's id.
    pub(crate) rule: String,
    /// Cases, each with the expected outcomes: at least one that passes, one that fails, one that is unknown and one that shows the
    /// remediation.
    pub(crate) cases: Vec<CaseDocument>,
}

vmgate_facts::schema_id!(pub(crate) TestSchema = "vmgate/rule-test/v1");

/// One case.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "facts are read from the document with their positions")]
pub(crate) struct CaseDocument {
    /// Description of the case, in words.
    #[schemars(example = &"one byte too little")]
    pub(crate) name: String,
    /// The facts to start from: a file in `fixtures/`, without its ending.
    #[schemars(example = &"idle-vm")]
    pub(crate) given: String,
    /// Facts that differ, by path: `vm.nics[0].tap: vnet3`; `vm.nics[+]: {…}` adds an item; values may be `!unknown "reason"` and `!absent`.
    pub(crate) set: Option<BTreeMap<String, Json>>,
    /// The predicted migration; fields that are left out are unknown.
    pub(crate) forecast: Option<Json>,
    /// The time of the check; the fixture's `collected_at` if left out.
    pub(crate) now: Option<Timestamp>,
    /// Values for parameters of the rule.
    pub(crate) params: Option<BTreeMap<String, Json>>,
    /// The expected outcomes.
    pub(crate) expect: Expect,
    /// Name of a failing case whose remediation was applied in this case.
    pub(crate) remediates: Option<String>,
}

/// Expected outcomes of a rule.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Expect {
    /// The worst status of all outcomes: fail, then unknown, then pass, then not-applicable.
    Overall(Status),
    /// These outcomes, each once; every other outcome must pass.
    Outcomes(Vec<ExpectedOutcome>),
}

/// One expected outcome.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExpectedOutcome {
    /// Expected status.
    pub(crate) status: Status,
    /// Expected subject, exactly.
    pub(crate) subject: Option<String>,
    /// A part of the expected message, or `/a regular expression/`.
    pub(crate) message: Option<String>,
}
