//! The verdict document, `vmgate/verdict/v1`: the decision on one move with everything it rests on.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Digests, ExitCode, BaselineComparison, WaiverProblem, waiver::Day};
use crate::{
    fact::{Cause, Change, Forecast},
    rule::{Effect, Outcome},
};

/// GO or NO-GO for one move, with all outcomes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// Names this format.
    pub schema: VerdictSchema,
    /// What reached it.
    pub tool: Tool,
    /// The time that the rules and waivers were held against.
    pub evaluated_at: Timestamp,
    /// From then on the evidence is too old to act on.
    pub expires_at: Timestamp,
    /// What was judged.
    #[serde(rename = "move")]
    pub moved: Move,
    /// What was asked for: the change it belongs to, with its limits.
    pub change: Change,
    /// The answer.
    pub decision: Decision,
    /// Whether warnings were to count as a failure of the check (`--strict`).
    pub strict: bool,
    /// How many there are of what.
    pub counts: Counts,
    /// All outcomes: what blocks, then warnings, notes, waived ones, passes; within these by step and severity.
    pub outcomes: Vec<JudgedOutcome>,
    /// Missing evidence by its cause, each with one way out; without what is waived.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<UnknownGroup>,
    /// Waivers that did not do what their owner meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiver_problems: Vec<WaiverProblem>,
    /// The predicted migration; absent where none was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<Forecast>,
    /// How it differs from an earlier verdict; absent where it was held against none (`--baseline`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<BaselineComparison>,
    /// What it was reached from.
    pub digests: Digests,
}

/// The names of the verdict format that this version reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VerdictSchema {
    /// The first format.
    #[serde(rename = "vmgate/verdict/v1")]
    V1,
}

/// The program that reached a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// One VM, from a source host to a destination host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Move {
    /// The VM.
    pub vm: NameAndUuid,
    /// The host it runs on.
    pub source: NameAndUuid,
    /// The host it is to go to.
    pub destination: NameAndUuid,
    /// Where in a file the move is asked for; absent where it came from the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_in: Option<FileLine>,
}

/// What a VM or host is called.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NameAndUuid {
    /// Its name; absent where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its UUID; absent where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileLine {
    /// The file as it was named on the command line.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
}

/// The answer and the class of its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "answer", content = "because")]
pub enum Decision {
    /// Nothing blocks.
    #[serde(rename = "GO")]
    Go(GoReason),
    /// Something blocks, or nothing was looked at.
    #[serde(rename = "NO-GO")]
    NoGo(NoGoReason),
}

/// Why it is GO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GoReason {
    /// No rule has anything against it.
    AllClear,
    /// Nothing blocks, but there are warnings.
    WithWarnings,
}

/// Why it is NO-GO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NoGoReason {
    /// A rule that blocks is violated; there may be missing evidence besides.
    RuleViolated,
    /// No rule that blocks is violated, but some cannot be decided.
    EvidenceMissing,
    /// There were no rules, or none applied: nobody looked, so nobody can say GO.
    NothingEvaluated,
}

/// How many outcomes there are of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Different rules.
    pub rules: usize,
    /// Outcomes in which the healthy state holds.
    pub pass: usize,
    /// Outcomes in which it does not, waived or not.
    pub fail: usize,
    /// Outcomes that could not be decided, waived or not.
    pub unknown: usize,
    /// Rules that have nothing to say here.
    pub not_applicable: usize,
    /// Outcomes that a waiver lies over.
    pub waived: usize,
    /// Outcomes that block.
    pub blocking: usize,
    /// Outcomes that warn.
    pub warnings: usize,
    /// Outcomes that are only noted.
    pub notes: usize,
}

/// An outcome with what was made of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JudgedOutcome {
    /// What the rule found.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What it does to the decision; absent for a pass, a rule that does not apply, and a waived finding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect_now: Option<Effect>,
    /// The waiver that lies over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiver: Option<AppliedWaiver>,
}

/// Who waived a finding, why, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AppliedWaiver {
    /// Who answers for it.
    pub owner: String,
    /// Why it is safe.
    pub reason: String,
    /// Where it was agreed.
    pub ticket: String,
    /// The last day on which it holds, UTC.
    pub until: Day,
}

/// Missing evidence with one cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnknownGroup {
    /// The obstacle; absent where a rule could not be evaluated for another reason than a missing fact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The gravest effect of its outcomes.
    pub effect: Effect,
    /// How many outcomes it leaves undecided.
    pub count: usize,
    /// The ids of their rules, sorted.
    pub rules: Vec<String>,
    /// What was said by those who tried, sorted, each once.
    pub reasons: Vec<String>,
    /// The one thing to do about it.
    pub way_out: String,
}

impl Verdict {
    /// The code to exit with for this verdict alone.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::of(self)
    }

    /// Whether a migration may run on it at `now`: GO, not expired, and without warnings where they were to count.
    pub fn permits_migration(&self, now: Timestamp) -> bool {
        self.exit_code() == ExitCode::Go && now < self.expires_at
    }

    /// The outcomes with this effect on the decision.
    pub fn with_effect(&self, effect: Effect) -> impl Iterator<Item = &JudgedOutcome> {
        self.outcomes.iter().filter(move |judged| judged.effect_now == Some(effect))
    }

    /// The outcomes that a waiver lies over.
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

    /// The class of its reason in words that end a sentence.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Go(GoReason::AllClear) => "nothing speaks against it",
            Self::Go(GoReason::WithWarnings) => "nothing blocks, but there are warnings",
            Self::NoGo(NoGoReason::RuleViolated) => "a rule is violated",
            Self::NoGo(NoGoReason::EvidenceMissing) => "evidence is missing",
            Self::NoGo(NoGoReason::NothingEvaluated) => "no rule was evaluated",
        }
    }
}

impl NameAndUuid {
    /// The name, else the UUID, else what it is not.
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
