//! The verdict document, `vmgate/verdict/v1`: the decision on one move with everything it rests on.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ExitCode, Since, WaiverProblem, waiver::Day};
use crate::{Effect, Outcome};
use vmgate_attest::{Decision, Digest, Named, Permit, Predicate};
use vmgate_facts::{Cause, Change, Forecast};

/// The digests of everything that went into a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Digests {
    /// Of the facts document as it was read or written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub facts: Option<Digest>,
    /// Of all rule files with their parameters, see [`Digest::of_parts`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<Digest>,
    /// Of the waiver files; absent where none was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waivers: Option<Digest>,
    /// Of the change file; absent where none was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<Digest>,
}

/// GO or NO-GO for one move, with all outcomes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
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
    pub outcomes: Vec<Judged>,
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
    pub since: Option<Since>,
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
#[schemars(deny_unknown_fields)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// One VM, from a source host to a destination host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Move {
    /// The VM.
    pub vm: Named,
    /// The host it runs on.
    pub source: Named,
    /// The host it is to go to.
    pub destination: Named,
    /// Where in a file the move is asked for; absent where it came from the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_in: Option<Place>,
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Place {
    /// The file as it was named on the command line.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
}

/// How many outcomes there are of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
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
pub struct Judged {
    /// What the rule found.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What it does to the decision; absent for a pass, a rule that does not apply, and a waived finding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect_now: Option<Effect>,
    /// The waiver that lies over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiver: Option<Waived>,
}

/// Who waived a finding, why, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Waived {
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
#[schemars(deny_unknown_fields)]
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

impl Predicate for Verdict {
    const TYPE: &'static str = Permit::TYPE;

    fn facts(&self) -> Option<Digest> {
        self.digests.facts
    }

    fn label(&self) -> &str {
        self.moved.vm.label()
    }
}

impl Verdict {
    /// The code to exit with for this verdict alone.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::of(self)
    }

    /// Whether a migration may run on it at `now`: GO, not expired, and without warnings where they were to count.
    pub fn lets_pass(&self, now: Timestamp) -> bool {
        self.exit_code() == ExitCode::Go && now < self.expires_at
    }

    /// The outcomes with this effect on the decision.
    pub fn with_effect(&self, effect: Effect) -> impl Iterator<Item = &Judged> {
        self.outcomes.iter().filter(move |judged| judged.effect_now == Some(effect))
    }

    /// The outcomes that a waiver lies over.
    pub fn waived(&self) -> impl Iterator<Item = &Judged> {
        self.outcomes.iter().filter(|judged| judged.waiver.is_some())
    }
}
