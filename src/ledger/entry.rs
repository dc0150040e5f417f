//! What can be written down. A field that is added later is optional, so that old records stay readable.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Campaign, Expulsion, Observation};
use crate::{
    change::MovePlan,
    fact::{Quantiles, Version},
    verdict::{Counts, Decision, Digest, Digests, ExitCode, Move, NameAndUuid, Verdict},
};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Entry {
    /// A move was checked.
    Verdict(VerdictGiven),
    /// A run of a move begins; from here it holds its VM.
    RunStarted(RunStarted),
    /// A run is about to take a step.
    Transition(Transition),
    /// A run is over; it no longer holds its VM.
    RunEnded(RunEnded),
    /// A migration ended: what was forecast and what came.
    Migration(Migration),
    /// A pair of hypervisor versions was tried.
    Rehearsal(Rehearsal),
    /// A VM was cut off the network, or let back.
    Isolation(Isolation),
    /// Somebody let something pass that would have been refused.
    Override(Override),
    /// A VM was watched dirtying its memory.
    Observation(Observation),
    /// A change that several runners carry out goes on.
    Campaign(Campaign),
    /// A runner can act no more.
    Expulsion(Expulsion),
}

/// The kinds of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// [`Entry::Verdict`]
    Verdict,
    /// [`Entry::RunStarted`]
    RunStarted,
    /// [`Entry::Transition`]
    Transition,
    /// [`Entry::RunEnded`]
    RunEnded,
    /// [`Entry::Migration`]
    Migration,
    /// [`Entry::Rehearsal`]
    Rehearsal,
    /// [`Entry::Isolation`]
    Isolation,
    /// [`Entry::Override`]
    Override,
    /// [`Entry::Observation`]
    Observation,
    /// [`Entry::Campaign`]
    Campaign,
    /// [`Entry::Expulsion`]
    Expulsion,
}

/// The states of a run, in the order of a run that goes well; the last three are ways out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The verdict is held against VM, hosts and time.
    Gate,
    /// The guest is told.
    Notify,
    /// Services are stopped and commands run, as the change says.
    Prepare,
    /// Volatile facts are taken again.
    Recheck,
    /// The migration runs.
    Migrate,
    /// The VM is looked at on the destination.
    Verify,
    /// What was prepared is undone, and the guest is told that it is over.
    Restore,
    /// The move is given up; the VM stays where it was.
    Abort,
    /// Something is wrong that somebody must look at.
    Fail,
    /// The VM is cut off the network.
    Isolate,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// The VM runs on the destination, verified.
    Done,
    /// The VM runs where it was.
    Aborted,
    /// Somebody must look.
    Failed,
    /// The VM is cut off the network.
    Isolated,
}

/// A verdict, without its outcomes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerdictGiven {
    /// What was judged.
    #[serde(rename = "move")]
    pub moved: Move,
    /// Id of the change that it belongs to.
    pub change: Option<String>,
    /// The answer.
    pub decision: Decision,
    /// How many outcomes there were of what.
    pub counts: Counts,
    /// Ids of the rules that block.
    pub blocking: Vec<String>,
    /// When it was reached.
    pub evaluated_at: Timestamp,
    /// From then on it is too old to act on.
    pub expires_at: Timestamp,
    /// What it was reached from.
    pub digests: Digests,
}

/// A run of a move.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunStarted {
    /// Id of the run.
    pub run: String,
    /// The VM.
    pub vm: NameAndUuid,
    /// The host it runs on.
    pub source: NameAndUuid,
    /// The host it is to go to.
    pub destination: NameAndUuid,
    /// Libvirt URI of the source.
    pub from: String,
    /// Libvirt URI of the destination.
    pub to: String,
    /// Id of the change that it belongs to.
    pub change: Option<String>,
    /// Digest of the change file.
    pub change_digest: Option<Digest>,
    /// What is to be done, and undone: all that a recovery needs.
    pub plan: MovePlan,
    /// The process that drives it.
    pub driver: Driver,
}

/// A process, told from all others before and after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Driver {
    /// Name of the machine it runs on.
    pub machine: String,
    /// The kernel's id of this boot of the machine.
    pub boot: String,
    /// Its process id.
    pub pid: u32,
    /// When it started, in clock ticks since the boot: a process id is used again, both together are not.
    pub started_ticks: u64,
}

/// A run takes a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// Id of the run.
    pub run: String,
    /// UUID of the VM.
    pub vm: String,
    /// The step.
    pub state: State,
    /// Which of the plan's actions it is about, from 0.
    pub action: Option<usize>,
    /// What is known of that action.
    pub mark: Option<Mark>,
    /// Why, or what was seen.
    pub why: Option<String>,
}

/// Where one action of a preparation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// It is about to be done, so from here on it is to be undone.
    Doing,
    /// There was nothing to do, so there is nothing to undo.
    Needless,
    /// It has been undone.
    Undone,
    /// It could not be undone.
    NotUndone,
}

/// A run is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEnded {
    /// Id of the run.
    pub run: String,
    /// UUID of the VM.
    pub vm: String,
    /// How it ended.
    pub ending: Ending,
    /// What the process says when it ends.
    pub exit: ExitCode,
    /// The host that the VM runs on; absent where that is not certain.
    pub runs_on: Option<String>,
    /// Why it ended so.
    pub why: Option<String>,
    /// Whether a recovery ended it.
    pub recovered: bool,
}

/// Hypervisor versions and a machine type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// QEMU at the source.
    pub source_version: Version,
    /// QEMU at the destination.
    pub destination_version: Version,
    /// The VM's machine type, as libvirt writes it.
    pub machine_type: String,
}

/// What was forecast of a migration, and what came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Migration {
    /// Id of the run.
    pub run: String,
    /// The VM.
    pub vm: NameAndUuid,
    /// Where it came from.
    pub source: NameAndUuid,
    /// Where it went to.
    pub destination: NameAndUuid,
    /// Versions and machine type; absent where they are not known.
    pub pair: Option<Pair>,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether it was a rehearsal, on a VM that may be lost.
    #[serde(default)]
    pub rehearsal: bool,
    /// Forecast of the whole duration, seconds, as the verdict had it.
    pub forecast_total_seconds: Option<Quantiles>,
    /// The same before earlier migrations corrected it, seconds: what later ones are corrected by. Learning from what
    /// was corrected already would take back the correction.
    #[serde(default)]
    pub replayed_total_seconds: Option<Quantiles>,
    /// Forecast of the blackout, seconds.
    pub forecast_blackout_seconds: Option<Quantiles>,
    /// The duration that libvirt gives, seconds.
    pub total_seconds: Option<f64>,
    /// The downtime that QEMU gives, seconds.
    pub downtime_seconds: Option<f64>,
    /// Bytes that were sent.
    pub sent_bytes: Option<u64>,
    /// Rounds over the memory.
    pub rounds: Option<u64>,
    /// The longest stop that QEMU was allowed in the end, seconds.
    pub downtime_limit_seconds: Option<f64>,
    /// How far auto-converge slowed the guest, in percent of its CPU time.
    pub throttle_percent: Option<u64>,
}

/// How a migration ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The VM runs at the destination, verified.
    Completed,
    /// It runs there and something is wrong with it.
    Suffers,
    /// It was stopped before its end.
    Aborted,
    /// It failed.
    Failed,
}

/// A try of a version pair, on a VM that may be lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehearsal {
    /// The VM.
    pub vm: NameAndUuid,
    /// What was tried.
    pub pair: Pair,
    /// Whether the VM also came back.
    pub there_and_back: bool,
    /// Whether it went well.
    pub passed: bool,
    /// Who did it, or what.
    pub by: String,
    /// What was seen.
    pub note: Option<String>,
}

/// A VM's interfaces were cut at the hypervisor, or connected again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Isolation {
    /// The VM.
    pub vm: NameAndUuid,
    /// The host it runs on.
    pub host: NameAndUuid,
    /// Whether it was cut off or let back.
    pub action: IsolationAction,
    /// Hardware addresses of the interfaces that were changed: what a release connects again.
    pub interfaces: Vec<String>,
    /// How long it took until the last of them was changed, seconds.
    pub took_seconds: f64,
    /// Why.
    pub reason: String,
    /// Who asked for it.
    pub by: String,
    /// Where the evidence is kept.
    pub evidence: Option<String>,
    /// The run that it belongs to.
    pub run: Option<String>,
}

/// Off the network, or back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IsolationAction {
    /// Cut off.
    Isolated,
    /// Let back.
    Released,
}

/// Something passed that would have been refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// The VM.
    pub vm: NameAndUuid,
    /// Where it came from; absent where that is not known.
    pub source: Option<NameAndUuid>,
    /// Where it went to.
    pub destination: NameAndUuid,
    /// What would have refused it, and why.
    pub refused_by: String,
    /// Who overrode that.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When it happened, by the clock of the host that let it pass; absent where the record is made at once.
    #[serde(default)]
    pub at: Option<Timestamp>,
    /// Until when it stands, of one that was set; absent for a VM that was let pass.
    #[serde(default)]
    pub until: Option<Timestamp>,
}

impl Entry {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Verdict(_) => Kind::Verdict,
            Self::RunStarted(_) => Kind::RunStarted,
            Self::Transition(_) => Kind::Transition,
            Self::RunEnded(_) => Kind::RunEnded,
            Self::Migration(_) => Kind::Migration,
            Self::Rehearsal(_) => Kind::Rehearsal,
            Self::Isolation(_) => Kind::Isolation,
            Self::Override(_) => Kind::Override,
            Self::Observation(_) => Kind::Observation,
            Self::Campaign(_) => Kind::Campaign,
            Self::Expulsion(_) => Kind::Expulsion,
        }
    }

    /// The run that it belongs to; of a campaign the campaign, of an expulsion the runner.
    pub fn run(&self) -> Option<&str> {
        match self {
            Self::RunStarted(entry) => Some(&entry.run),
            Self::Transition(entry) => Some(&entry.run),
            Self::RunEnded(entry) => Some(&entry.run),
            Self::Migration(entry) => Some(&entry.run),
            Self::Isolation(entry) => entry.run.as_deref(),
            Self::Campaign(entry) => Some(&entry.campaign),
            Self::Expulsion(entry) => Some(&entry.runner),
            Self::Verdict(_) | Self::Rehearsal(_) | Self::Override(_) | Self::Observation(_) => None,
        }
    }

    /// UUID of the VM that it is about.
    pub fn vm(&self) -> Option<&str> {
        match self {
            Self::Verdict(entry) => entry.moved.vm.uuid.as_deref(),
            Self::RunStarted(entry) => entry.vm.uuid.as_deref(),
            Self::Transition(entry) => Some(&entry.vm),
            Self::RunEnded(entry) => Some(&entry.vm),
            Self::Migration(entry) => entry.vm.uuid.as_deref(),
            Self::Rehearsal(entry) => entry.vm.uuid.as_deref(),
            Self::Isolation(entry) => entry.vm.uuid.as_deref(),
            Self::Override(entry) => entry.vm.uuid.as_deref(),
            Self::Observation(entry) => entry.vm.uuid.as_deref(),
            Self::Campaign(_) | Self::Expulsion(_) => None,
        }
    }
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Verdict,
        Self::RunStarted,
        Self::Transition,
        Self::RunEnded,
        Self::Migration,
        Self::Rehearsal,
        Self::Isolation,
        Self::Override,
        Self::Observation,
        Self::Campaign,
        Self::Expulsion,
    ];

    /// Its name, as the records write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Verdict => "verdict",
            Self::RunStarted => "run-started",
            Self::Transition => "transition",
            Self::RunEnded => "run-ended",
            Self::Migration => "migration",
            Self::Rehearsal => "rehearsal",
            Self::Isolation => "isolation",
            Self::Override => "override",
            Self::Observation => "observation",
            Self::Campaign => "campaign",
            Self::Expulsion => "expulsion",
        }
    }
}

impl State {
    /// Its name, as the records write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::Notify => "notify",
            Self::Prepare => "prepare",
            Self::Recheck => "recheck",
            Self::Migrate => "migrate",
            Self::Verify => "verify",
            Self::Restore => "restore",
            Self::Abort => "abort",
            Self::Fail => "fail",
            Self::Isolate => "isolate",
        }
    }
}

impl Ending {
    /// Its name, as the records write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Aborted => "aborted",
            Self::Failed => "failed",
            Self::Isolated => "isolated",
        }
    }
}

impl From<&Verdict> for VerdictGiven {
    fn from(verdict: &Verdict) -> Self {
        let blocking =
            verdict.with_effect(crate::rule::Effect::Block).map(|judged| judged.outcome.rule.to_string());
        let mut blocking: Vec<String> = blocking.collect();
        blocking.dedup();
        Self {
            moved: verdict.moved.clone(),
            change: verdict.change.id.clone(),
            decision: verdict.decision,
            counts: verdict.counts,
            blocking,
            evaluated_at: verdict.evaluated_at,
            expires_at: verdict.expires_at,
            digests: verdict.digests.clone(),
        }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}", self.pid, self.machine)
    }
}
