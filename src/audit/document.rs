//! Audit document, `vmgate/audit/v1`.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vmgate_facts::Cause;
use vmgate_verdict::ExitCode;

/// An audit: every VM of some hosts, with its possible destinations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Audit {
    /// Name and version of this format.
    pub schema: AuditSchema,
    /// Time at which the rules were evaluated.
    pub evaluated_at: Timestamp,
    /// True if somebody chose that time (`--at`); absent where false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub simulated: bool,
    /// Hosts, in the order they were named.
    pub hosts: Vec<AuditedHost>,
    /// VMs that run on these hosts, by host and name.
    pub vms: Vec<AuditedVm>,
    /// First steps: the obstacles whose removal helps most VMs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first: Vec<FirstStep>,
    /// Differences from an earlier audit; absent without `--baseline`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<AuditDifferences>,
    /// Missing evidence by cause, each with a way out.
    pub undecided: Vec<MissingEvidence>,
}

/// A first step: an obstacle at one destination, and the gain of its removal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FirstStep {
    /// Id of the rule that is violated.
    pub rule: String,
    /// The destination with the obstacle.
    pub host: String,
    /// Number of VMs that have no destination now, and could move there without this obstacle.
    pub frees: usize,
    /// Number of VMs that the obstacle blocks from that host, alone or with other obstacles.
    pub blocks: usize,
    /// Names of these VMs.
    pub vms: Vec<String>,
    /// Finding for the first of these VMs.
    pub message: String,
    /// Way out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remediation: Option<String>,
}

/// Differences between an audit and an earlier audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct AuditDifferences {
    /// Time of the earlier audit.
    pub evaluated_at: Timestamp,
    /// Obstacles that the earlier audit did not have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub new: Vec<Obstacle>,
    /// Obstacles of the earlier audit that no longer exist.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fixed: Vec<Obstacle>,
    /// Number of obstacles in both audits.
    pub unchanged: usize,
    /// VMs of the earlier audit that this audit does not have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<String>,
}

/// An obstacle: a violated rule that blocks a VM from a destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Obstacle {
    /// Name of the VM.
    pub vm: String,
    /// The destination that the VM cannot move to.
    pub destination: String,
    /// Id of the rule that is violated.
    pub rule: String,
    /// Item of `foreach` that the finding is about; absent if the rule is about the whole move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The finding.
    pub message: String,
}

vmgate_facts::schema_id!(pub AuditSchema = "vmgate/audit/v1");

/// A host of the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct AuditedHost {
    /// Name for people.
    pub name: String,
    /// Connection URI, without secrets.
    pub uri: String,
    /// Number of VMs that run on the host.
    pub running: usize,
    /// Number of VMs that are defined on the host but do not run; they are not audited.
    pub idle: usize,
    /// Reason why the host did not answer; absent if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
}

/// A VM with its possible destinations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct AuditedVm {
    /// Name of the VM, as libvirt knows it.
    pub name: String,
    /// UUID of the VM.
    pub uuid: String,
    /// The host that the VM runs on.
    pub host: String,
    /// Every other host, as a destination.
    pub destinations: Vec<AuditedDestination>,
}

/// A host as a possible destination of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct AuditedDestination {
    /// Name of the host.
    pub host: String,
    /// Answer to the question whether the VM could move there.
    pub answer: MoveAnswer,
    /// Violated rules that block the move.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<RuleViolation>,
    /// Violated rules that only warn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<RuleViolation>,
    /// Ids of rules without the evidence that an audit should have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undecided: Vec<String>,
}

/// Answer to the question whether a VM could move to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MoveAnswer {
    /// No rule that was evaluated blocks the move.
    Yes,
    /// A blocking rule is violated.
    No,
    /// No blocking rule is violated, but evidence is missing that an audit should have.
    Undecided,
}

/// A violated rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RuleViolation {
    /// Id of the rule.
    pub rule: String,
    /// Item of `foreach` that the finding is about; absent if the rule is about the whole move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The finding.
    pub message: String,
    /// Way out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remediation: Option<String>,
}

/// Evidence that is missing because of one cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct MissingEvidence {
    /// Cause.
    pub cause: Cause,
    /// True if an audit never collects this evidence: guests, the path, dirty rates.
    pub by_design: bool,
    /// Ids of the rules that need this evidence.
    pub rules: Vec<String>,
    /// Reasons, as the collectors reported them.
    pub reasons: Vec<String>,
    /// Action that makes the evidence available.
    pub way_out: String,
}

impl AuditedVm {
    /// True if the VM has a possible destination.
    pub fn can_move(&self) -> bool {
        self.destinations.iter().any(|destination| destination.answer == MoveAnswer::Yes)
    }
}

impl Audit {
    /// Exit code of the command: 20 if a VM has no destination because rules are violated, 21 if evidence is missing.
    pub fn exit(&self) -> ExitCode {
        let stuck = || self.vms.iter().filter(|vm| !vm.can_move());
        let refused_everywhere =
            |vm: &AuditedVm| vm.destinations.iter().all(|destination| destination.answer == MoveAnswer::No);
        if self.vms.is_empty() && self.hosts.iter().all(|host| host.lost.is_none()) {
            ExitCode::NothingEvaluated
        } else if stuck().any(refused_everywhere) {
            ExitCode::RuleViolated
        } else if stuck().next().is_some() || self.hosts.iter().any(|host| host.lost.is_some()) {
            ExitCode::EvidenceMissing
        } else {
            ExitCode::Go
        }
    }
}
