//! The verdict document, `vmgate/verdict/v1`: the decision on one move with all evidence.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BaselineComparison, Digests, ExitCode, WaiverProblem, waiver::Day};
use crate::{
    fact::{Cause, Change, Forecast},
    rule::{Effect, Outcome},
};

/// GO or NO-GO for one move, with all outcomes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// Id of this format.
    pub schema: VerdictSchema,
    /// Program that made the verdict.
    pub tool: Tool,
    /// Time of the evaluation.
    pub evaluated_at: Timestamp,
    /// Time from which the evidence is too old to act on.
    pub expires_at: Timestamp,
    /// The move that was judged.
    #[serde(rename = "move")]
    pub moved: Move,
    /// The change that the move belongs to, with its limits.
    pub change: Change,
    /// GO or NO-GO, with the class of the reason.
    pub decision: Decision,
    /// True if warnings counted as a failure of the check (`--strict`).
    pub strict: bool,
    /// Number of outcomes of each kind.
    pub counts: Counts,
    /// All outcomes: blocking ones, then warnings, notes, waived ones, passes; within these by step and severity.
    pub outcomes: Vec<JudgedOutcome>,
    /// Missing evidence by cause, each with one way out; waived outcomes are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<UnknownGroup>,
    /// Waivers without effect, with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiver_problems: Vec<WaiverProblem>,
    /// Forecast of the migration; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<Forecast>,
    /// Difference from an earlier verdict; absent without `--baseline`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<BaselineComparison>,
    /// Digests of the inputs.
    pub digests: Digests,
}

/// Ids of the verdict format that this version reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VerdictSchema {
    /// The first format.
    #[serde(rename = "vmgate/verdict/v1")]
    V1,
}

/// The program that made a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// Name of the program.
    pub name: String,
    /// Version of the program.
    pub version: String,
}

/// One VM, from a source host to a destination host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Move {
    /// The VM.
    pub vm: NameAndUuid,
    /// The host that the VM runs on.
    pub source: NameAndUuid,
    /// The host that the VM is to move to.
    pub destination: NameAndUuid,
    /// Line of the change file that asks for the move; absent for a move from the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_in: Option<FileLine>,
}

/// Name and UUID of a VM or host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NameAndUuid {
    /// Name; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// UUID; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileLine {
    /// The file as it was named on the command line.
    pub file: String,
    /// Line number, from 1.
    pub line: u32,
}

/// GO or NO-GO, with the class of the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "answer", content = "because")]
pub enum Decision {
    /// No rule blocks.
    #[serde(rename = "GO")]
    Go(GoReason),
    /// A rule blocks, or no rule was evaluated.
    #[serde(rename = "NO-GO")]
    NoGo(NoGoReason),
}

/// Reason for GO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GoReason {
    /// All rules pass or only note.
    AllClear,
    /// No rule blocks, but there are warnings.
    WithWarnings,
}

/// Reason for NO-GO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NoGoReason {
    /// A blocking rule is violated; evidence may be missing as well.
    RuleViolated,
    /// No blocking rule is violated, but at least one cannot be decided.
    EvidenceMissing,
    /// There were no rules, or none applied: without an evaluation there is no GO.
    NothingEvaluated,
}

/// Number of outcomes of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Number of different rules.
    pub rules: usize,
    /// Outcomes whose rule holds.
    pub pass: usize,
    /// Outcomes whose rule is violated, waived or not.
    pub fail: usize,
    /// Outcomes that could not be decided, waived or not.
    pub unknown: usize,
    /// Outcomes of rules that do not apply to this move.
    pub not_applicable: usize,
    /// Outcomes that a waiver applies to.
    pub waived: usize,
    /// Outcomes that block.
    pub blocking: usize,
    /// Outcomes that warn.
    pub warnings: usize,
    /// Outcomes that are only noted.
    pub notes: usize,
}

/// An outcome with its effect on the decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JudgedOutcome {
    /// Outcome of the rule.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Effect on the decision; absent for a pass, a rule that does not apply, and a waived finding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect_now: Option<Effect>,
    /// The waiver that applies to the outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiver: Option<AppliedWaiver>,
}

/// A waiver that applies to a finding: owner, reason, ticket and last valid day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AppliedWaiver {
    /// Person or team responsible for the waiver.
    pub owner: String,
    /// Reason why the waiver is safe.
    pub reason: String,
    /// Ticket in which the waiver was agreed.
    pub ticket: String,
    /// Last valid day, UTC.
    pub until: Day,
}

/// Missing evidence with one cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnknownGroup {
    /// Cause of the missing facts; absent if a rule could not be evaluated although its facts are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The gravest effect of the undecided outcomes.
    pub effect: Effect,
    /// Number of undecided outcomes.
    pub count: usize,
    /// Ids of the undecided rules, sorted.
    pub rules: Vec<String>,
    /// Error texts of the collectors, sorted, each once.
    pub reasons: Vec<String>,
    /// The way out: the one thing to do.
    pub way_out: String,
}

impl Verdict {
    /// Exit code for this verdict alone.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::of(self)
    }

    /// True if a migration may run at `now`: GO, not expired, and without warnings under `--strict`.
    pub fn permits_migration(&self, now: Timestamp) -> bool {
        self.exit_code() == ExitCode::Go && now < self.expires_at
    }

    /// The outcomes with this effect on the decision.
    pub fn with_effect(&self, effect: Effect) -> impl Iterator<Item = &JudgedOutcome> {
        self.outcomes.iter().filter(move |judged| judged.effect_now == Some(effect))
    }

    /// The outcomes that a waiver applies to.
    pub fn waived(&self) -> impl Iterator<Item = &JudgedOutcome> {
        self.outcomes.iter().filter(|judged| judged.waiver.is_some())
    }
}

impl Decision {
    /// GO or NO-GO.
    pub fn word(self) -> &'static str {
        match self {
            Self::Go(_) => "GO",
            Self::NoGo(_) => "NO-GO",
        }
    }

    /// The class of the reason, in words that end a sentence.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Go(GoReason::AllClear) => "no rule objects",
            Self::Go(GoReason::WithWarnings) => "no rule blocks, but there are warnings",
            Self::NoGo(NoGoReason::RuleViolated) => "a rule is violated",
            Self::NoGo(NoGoReason::EvidenceMissing) => "evidence is missing",
            Self::NoGo(NoGoReason::NothingEvaluated) => "no rule was evaluated",
        }
    }
}

impl NameAndUuid {
    /// The name, else the UUID, else `(unknown)`.
    pub fn label(&self) -> &str {
        self.name.as_deref().or(self.uuid.as_deref()).unwrap_or("(unknown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_decision_is_two_words_in_a_document() {
        let decision = Decision::NoGo(NoGoReason::EvidenceMissing);
        let text = serde_json::to_string(&decision).unwrap();
        assert_eq!(text, r#"{"answer":"NO-GO","because":"evidence-missing"}"#);
        assert_eq!(serde_json::from_str::<Decision>(&text).unwrap(), decision);
        let crossed = r#"{"answer":"GO","because":"evidence-missing"}"#;
        assert!(serde_json::from_str::<Decision>(crossed).is_err(), "GO for missing evidence must not parse");
    }
}
