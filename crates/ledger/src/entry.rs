//! Entries of the ledger. A field that is added later is optional, so that old records stay readable; a field that a newer
//! vmgate added is ignored, and kept in the record.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strum::{EnumDiscriminants, IntoStaticStr, VariantArray};
use vmgate_attest::Digest;
use vmgate_facts::{Quantiles, Trial, Version};
use vmgate_judge::change::MovePlan;
use vmgate_verdict::{Counts, Decision, Digests, ExitCode, Move, NameAndUuid, Verdict};

use super::{
    Campaign, Expulsion, NetworkRehearsed, NetworkSilence, Observation, UnknownEntry, campaign::CampaignEvent,
};

/// Entry of the ledger: one event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, EnumDiscriminants)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[strum_discriminants(
    name(EntryKind),
    doc = "Kind of an entry.",
    allow(missing_docs),
    derive(IntoStaticStr, VariantArray),
    strum(serialize_all = "kebab-case")
)]
pub enum Entry {
    /// A move was checked.
    Verdict(VerdictSummary),
    /// A run of a move begins; from here on it reserves its VM.
    RunStarted(RunStarted),
    /// A run is about to take a step.
    Transition(Transition),
    /// A run has ended; its VM is free for other moves.
    RunEnded(RunEnded),
    /// A migration has ended: its forecast and its measured result.
    Migration(Migration),
    /// A migration between two hypervisor versions was rehearsed.
    Rehearsal(Rehearsal),
    /// A rehearsal with an empty copy begins.
    RehearsalStarted(RehearsalStarted),
    /// The switchover was rehearsed on a guests' network.
    NetworkRehearsed(NetworkRehearsed),
    /// A VM was cut off the network, or connected again.
    Isolation(Isolation),
    /// An operator permitted something that would have been refused.
    Override(Override),
    /// The dirty rate of a VM was measured.
    Observation(Observation),
    /// An event of a campaign: a change that several runners execute.
    Campaign(Campaign),
    /// A campaign runner was expelled.
    Expulsion(Expulsion),
    /// An entry that this version cannot read. It is kept, counted and shown, and nothing is concluded from it.
    #[serde(skip)]
    Unknown(UnknownEntry),
}

/// Step of a run, in the order of a successful run; the last three are taken after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum RunStep {
    /// The verdict is compared with VM, hosts and time.
    Gate,
    /// The guest is notified.
    Notify,
    /// Services are stopped and commands run, as the change says.
    Prepare,
    /// The facts are collected and judged again.
    Recheck,
    /// The migration runs.
    Migrate,
    /// The VM is verified on the destination.
    Verify,
    /// The preparation is undone, and the guest is notified that the move has ended.
    Restore,
    /// The move is aborted; the VM stays on the source.
    Abort,
    /// Something is wrong, and an operator must look.
    Fail,
    /// The VM is cut off the network.
    Isolate,
}

/// Ending of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum RunEnding {
    /// The VM runs on the destination, verified.
    Done,
    /// The VM runs on the source.
    Aborted,
    /// An operator must look.
    Failed,
    /// The VM is cut off the network.
    Isolated,
}

/// Verdict without its outcomes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerdictSummary {
    /// The move that was judged.
    #[serde(rename = "move")]
    pub moved: Move,
    /// Id of the change that the move belongs to.
    pub change: Option<String>,
    /// GO or NO-GO.
    pub decision: Decision,
    /// Number of outcomes by status.
    pub counts: Counts,
    /// Ids of the rules that block.
    pub blocking: Vec<String>,
    /// Time of evaluation.
    pub evaluated_at: Timestamp,
    /// True if somebody chose that time: such a verdict permits nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub simulated: bool,
    /// Time from which the verdict is too old to act on.
    pub expires_at: Timestamp,
    /// Forecast of the whole migration, 95th percentile, in seconds; absent without a forecast.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_seconds: Option<f64>,
    /// Forecast of the silence that the guest's peers see (blackout and dark time of its network), 95th percentile, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silence_seconds: Option<f64>,
    /// Way out of what blocks first; absent where nothing blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way_out: Option<String>,
    /// Digests of facts, rules and change.
    pub digests: Digests,
}

/// Start of a run of a move.
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
    /// URI of the source.
    pub from: String,
    /// URI of the destination.
    pub to: String,
    /// Id of the change that the move belongs to.
    pub change: Option<String>,
    /// Digest of the change file.
    pub change_digest: Option<Digest>,
    /// Actions and their undo actions: all that a recovery needs.
    pub plan: MovePlan,
    /// The process that drives it.
    pub driver: Driver,
    /// Socket of the VM's monitor, by which it was named; none for a VM of libvirt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<String>,
    /// True for a trial: the migration is begun and taken back, so that the VM never runs on the destination.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trial: bool,
}

impl RunStarted {
    /// True for a run of the VM with this name, UUID or monitor (`qmp:SOCKET`).
    pub fn is_of(&self, vm: &str) -> bool {
        self.vm.is(vm) || self.monitor.as_ref().is_some_and(|socket| vm.strip_prefix("qmp:") == Some(socket))
    }
}

/// Identity of a process, unique over reboots and reused process ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Driver {
    /// Host name of the machine.
    pub machine: String,
    /// Boot id of the machine's kernel.
    pub boot: String,
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since the boot: a process id may be reused, the pair of both is not.
    pub started_ticks: u64,
}

/// A step of a run, recorded before it is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// Id of the run.
    pub run: String,
    /// UUID of the VM.
    pub vm: String,
    /// The step.
    pub state: RunStep,
    /// Index of the plan's action, from 0.
    pub action: Option<usize>,
    /// State of that action.
    pub mark: Option<ActionState>,
    /// Reason, or observation.
    pub why: Option<String>,
}

/// State of one action of a preparation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActionState {
    /// The action is about to be taken, so from here on it must be undone.
    Doing,
    /// Nothing had to be done, so nothing has to be undone.
    Needless,
    /// The action has been undone.
    Undone,
    /// The action could not be undone.
    NotUndone,
}

/// End of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunEnded {
    /// Id of the run.
    pub run: String,
    /// UUID of the VM.
    pub vm: String,
    /// Ending of the run.
    pub ending: RunEnding,
    /// Exit code of the process.
    pub exit: ExitCode,
    /// The host that the VM runs on; absent if that is not certain.
    pub runs_on: Option<String>,
    /// Reason of the ending.
    pub why: Option<String>,
    /// True if a recovery ended the run.
    pub recovered: bool,
    /// Answer of the hosts, for a trial that was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
}

/// QEMU versions of source and destination, and a machine type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HypervisorPair {
    /// QEMU version on the source.
    pub source_version: Version,
    /// QEMU version on the destination.
    pub destination_version: Version,
    /// The VM's machine type, as libvirt writes it.
    pub machine_type: String,
}

/// Forecast and measured result of a migration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Migration {
    /// Id of the run.
    pub run: String,
    /// The VM.
    pub vm: NameAndUuid,
    /// Source host.
    pub source: NameAndUuid,
    /// Destination host.
    pub destination: NameAndUuid,
    /// Versions and machine type; absent where they are not known.
    pub pair: Option<HypervisorPair>,
    /// Result of the migration.
    pub outcome: MigrationOutcome,
    /// True if it was a rehearsal, on a VM that may be lost.
    #[serde(default)]
    pub rehearsal: bool,
    /// Forecast of the whole duration, seconds, as the verdict had it.
    pub forecast_total_seconds: Option<Quantiles>,
    /// The same before the correction by earlier migrations, seconds: later forecasts are corrected by it. Learning from a
    /// corrected forecast would undo the correction.
    #[serde(default)]
    pub replayed_total_seconds: Option<Quantiles>,
    /// Forecast of the blackout, seconds.
    pub forecast_blackout_seconds: Option<Quantiles>,
    /// Forecast of its blackout before the correction by earlier migrations; absent where none was made or kept.
    #[serde(default)]
    pub replayed_blackout_seconds: Option<Quantiles>,
    /// Forecast of the bytes sent, before the correction by earlier migrations; absent where none was made or kept.
    #[serde(default)]
    pub replayed_sent_bytes: Option<Quantiles>,
    /// Duration as libvirt reports it, seconds.
    pub total_seconds: Option<f64>,
    /// Downtime as QEMU reports it, seconds.
    pub downtime_seconds: Option<f64>,
    /// Bytes sent.
    pub sent_bytes: Option<u64>,
    /// Pre-copy rounds over the memory.
    pub rounds: Option<u64>,
    /// QEMU's downtime limit at the end, seconds.
    pub downtime_limit_seconds: Option<f64>,
    /// Throttle of auto-converge at the end, in percent of the guest's CPU time.
    pub throttle_percent: Option<u64>,
    /// Silence of the VM's interfaces; empty where nobody listened.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silences: Vec<NetworkSilence>,
}

/// Outcome of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MigrationOutcome {
    /// The VM runs on the destination, verified.
    Completed,
    /// Post-migration failure: the VM runs on the destination, but something that worked before does not.
    Suffers,
    /// The migration was aborted.
    Aborted,
    /// The migration failed.
    Failed,
}

/// Rehearsal of a migration between two versions, on a VM that may be lost or with an empty copy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rehearsal {
    /// The VM.
    pub vm: NameAndUuid,
    /// Versions at both ends.
    pub pair: HypervisorPair,
    /// True if the VM also came back.
    pub there_and_back: bool,
    /// True if the rehearsal succeeded.
    pub passed: bool,
    /// Operator or program.
    pub by: String,
    /// Remark.
    pub note: Option<String>,
    /// Details of a rehearsal with an empty copy; absent if the VM itself was moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twin: Option<vmgate_facts::Rehearsal>,
}

/// Start of a rehearsal with an empty copy. It reserves nothing: of the VM itself nothing is touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RehearsalStarted {
    /// Id of the rehearsal.
    pub run: String,
    /// The VM as it was named.
    pub name: String,
    /// Libvirt URI of the source.
    pub from: String,
    /// Libvirt URI of the destination.
    pub to: String,
    /// Operator.
    pub by: String,
    /// The process that makes it.
    pub driver: Driver,
}

/// Isolation: a VM's interfaces were cut at the hypervisor, or connected again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Isolation {
    /// The VM.
    pub vm: NameAndUuid,
    /// The host it runs on.
    pub host: NameAndUuid,
    /// True if the VM was isolated, false if it was connected again.
    pub action: IsolationAction,
    /// MAC addresses of the interfaces that were changed.
    pub interfaces: Vec<String>,
    /// Time until the last of them was changed, seconds.
    pub took_seconds: f64,
    /// Reason.
    pub reason: String,
    /// Operator.
    pub by: String,
    /// Folder of the evidence.
    pub evidence: Option<String>,
    /// Id of the run that caused it.
    pub run: Option<String>,
}

/// Direction of an isolation: off the network, or back on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IsolationAction {
    /// Cut off the network.
    Isolated,
    /// Connected again.
    Released,
}

/// Override: something was permitted that would have been refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// The VM.
    pub vm: NameAndUuid,
    /// Source host; absent if it is not known.
    pub source: Option<NameAndUuid>,
    /// Destination host.
    pub destination: NameAndUuid,
    /// Gate that would have refused it, with its reason.
    pub refused_by: String,
    /// Person who answers for the override.
    pub by: String,
    /// Reason.
    pub reason: String,
    /// Time of the event, by the clock of the host that permitted it; absent if the record was made at once.
    #[serde(default)]
    pub at: Option<Timestamp>,
    /// End of an override that was set; absent for a VM that came in under one.
    #[serde(default)]
    pub until: Option<Timestamp>,
}

impl Entry {
    /// Name of its kind in the records.
    pub fn kind_name(&self) -> &str {
        match self {
            Self::Unknown(unknown) => &unknown.kind,
            known => EntryKind::from(known).name(),
        }
    }

    /// Person or runner that the entry itself names as its author, as far as it names one.
    pub fn claimed_author(&self) -> Option<&str> {
        match self {
            Self::Rehearsal(entry) => Some(&entry.by),
            Self::RehearsalStarted(entry) => Some(&entry.by),
            Self::NetworkRehearsed(entry) => Some(&entry.by),
            Self::Isolation(entry) => Some(&entry.by),
            Self::Override(entry) => Some(&entry.by),
            Self::Campaign(entry) => match &entry.event {
                CampaignEvent::WaveOpened { by, .. } | CampaignEvent::Steered { by, .. } => Some(by),
                _ => None,
            },
            Self::Expulsion(entry) => Some(&entry.by),
            _ => None,
        }
    }
}

impl EntryKind {
    /// Every kind that this version reads.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::VARIANTS.iter().copied().filter(|kind| *kind != Self::Unknown)
    }

    /// Name in the records.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl RunStep {
    /// Name in the records.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl RunEnding {
    /// Name in the records.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl From<&Verdict> for VerdictSummary {
    fn from(verdict: &Verdict) -> Self {
        let blocking =
            verdict.with_effect(vmgate_verdict::Effect::Block).map(|judged| judged.outcome.rule.to_string());
        let mut blocking: Vec<String> = blocking.collect();
        blocking.dedup();
        let forecast = verdict.forecast.as_ref();
        let blocks_nothing = blocking.is_empty();
        let mut first = verdict.with_effect(vmgate_verdict::Effect::Block);
        let remediation = first.find_map(|judged| judged.outcome.remediation.clone());
        let remediation = remediation.map(|text| text.trim_end().to_owned());
        Self {
            moved: verdict.moved.clone(),
            change: verdict.change.id.clone(),
            decision: verdict.decision,
            counts: verdict.counts,
            blocking,
            evaluated_at: verdict.evaluated_at,
            simulated: verdict.simulated,
            expires_at: verdict.expires_at,
            total_seconds: forecast.and_then(|forecast| Some(forecast.total_seconds.known()?.p95)),
            silence_seconds: forecast.and_then(|forecast| {
                let silence = forecast.silence_seconds.known().or(forecast.blackout_seconds.known());
                Some(silence?.p95)
            }),
            way_out: remediation.or_else(|| {
                let missing = verdict.unknown.first().filter(|_| !blocks_nothing);
                missing.map(|group| group.way_out.clone())
            }),
            digests: verdict.digests.clone(),
        }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}", self.pid, self.machine)
    }
}
