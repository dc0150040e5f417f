//! The verdict document, `vmgate/verdict/v1`: the decision on one move with all evidence.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vmgate_attest::{
    Basis, CLOCK_SKEW, Decision, Digest, NameAndUuid, NoAuthority, Permit, Predicate, Validity,
};
use vmgate_facts::{Cause, Change, Forecast};

use super::{Alternative, BaselineComparison, ExitCode, VALID_FOR, WaiverProblem, waiver::Day};
use crate::{Effect, Outcome};

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
    /// Id of this format.
    pub schema: VerdictSchema,
    /// Program that made the verdict.
    pub tool: Tool,
    /// Time of the evaluation: of the machine's clock, unless the verdict is simulated.
    pub evaluated_at: Timestamp,
    /// True if the verdict was evaluated at a time that somebody chose (`--at`): it shows what would be, and permits nothing.
    /// Absent where false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub simulated: bool,
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
    /// The other destinations that were judged for the VM, best first; absent where one destination was named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<Alternative>,
    /// Digests of the inputs.
    pub digests: Digests,
    /// Rules and facts that it rests on, with their origins; absent in verdicts of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<Basis>,
}

vmgate_facts::schema_id!(pub VerdictSchema = "vmgate/verdict/v1");

/// The program that made a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Tool {
    /// Name of the program.
    pub name: String,
    /// Version of the program.
    pub version: String,
}

/// One VM, from a source host to a destination host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Move {
    /// The VM.
    pub vm: NameAndUuid,
    /// The host that the VM runs on.
    pub source: NameAndUuid,
    /// The host that the VM is to move to.
    pub destination: NameAndUuid,
    /// Address at the destination for the migration traffic; absent where libvirt chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrate_address: Option<String>,
    /// Line of the change file that asks for the move; absent for a move from the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_in: Option<FileLine>,
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FileLine {
    /// The file as it was named on the command line.
    pub file: String,
    /// Line number, from 1.
    pub line: u32,
}

/// Numbers of outcomes, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
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
#[schemars(deny_unknown_fields)]
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
#[schemars(deny_unknown_fields)]
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
    /// Exit code for this verdict alone.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::of(self)
    }

    /// Its times.
    pub fn validity(&self) -> Validity {
        Validity { evaluated_at: self.evaluated_at, expires_at: self.expires_at, simulated: self.simulated }
    }

    /// Checks that something may act on it at `now`, a time of this machine's clock: not simulated, not from the future, on
    /// fresh facts, and not valid for longer than a verdict is. Expiry and GO are other questions.
    pub fn check_authority(&self, now: Timestamp) -> Result<(), NoAuthority> {
        self.validity().check(now, CLOCK_SKEW, VALID_FOR)
    }

    /// True if a migration may run at `now`: GO, with authority, not expired, and without warnings under `--strict`.
    pub fn permits_migration(&self, now: Timestamp) -> bool {
        self.exit_code() == ExitCode::Go && now < self.expires_at && self.check_authority(now).is_ok()
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
