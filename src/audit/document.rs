//! The audit document, `vmgate/audit/v1`.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use vmgate_facts::Cause;
use vmgate_verdict::ExitCode;

/// Every VM of some hosts, with the destinations that it could go to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Names this format.
    pub schema: AuditSchema,
    /// The time that the rules were held against.
    pub evaluated_at: Timestamp,
    /// The hosts, in the order they were named.
    pub hosts: Vec<AuditedHost>,
    /// The VMs that run on them, by host and name.
    pub vms: Vec<AuditedVm>,
    /// What to do first: the obstacles that keep most VMs where they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first: Vec<FirstStep>,
    /// How it differs from an earlier audit; absent where it was held against none (`--baseline`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<AuditSince>,
    /// Missing evidence by its cause, each with one way out.
    pub undecided: Vec<Undecided>,
}

/// An obstacle at one host, and how much is gained if it is removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FirstStep {
    /// The rule that is violated.
    pub rule: String,
    /// The destination at which it is.
    pub host: String,
    /// VMs that can go nowhere now and could go there if this alone were gone.
    pub frees: usize,
    /// VMs that it keeps from that host, alone or with others.
    pub blocks: usize,
    /// Their names.
    pub vms: Vec<String>,
    /// What was found on the first of them.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remediation: Option<String>,
}

/// How an audit differs from an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditSince {
    /// When the earlier audit was made.
    pub evaluated_at: Timestamp,
    /// Obstacles that were not there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub new: Vec<Obstacle>,
    /// Obstacles that were there and are not any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fixed: Vec<Obstacle>,
    /// How many obstacles are as they were.
    pub unchanged: usize,
    /// VMs that the earlier audit saw and this one does not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<String>,
}

/// What keeps a VM from a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Obstacle {
    /// The VM.
    pub vm: String,
    /// The host that it cannot go to.
    pub destination: String,
    /// The rule that is violated.
    pub rule: String,
    /// What it was found on; absent where the rule speaks of the move as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What was found.
    pub message: String,
}

/// The names of the audit format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AuditSchema {
    /// The first format.
    #[serde(rename = "vmgate/audit/v1")]
    V1,
}

/// A host that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditedHost {
    /// What people call it.
    pub name: String,
    /// Its URI, without secrets.
    pub uri: String,
    /// VMs that run there.
    pub running: usize,
    /// VMs that are only defined there; they are not audited.
    pub idle: usize,
    /// Why it did not answer; absent where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
}

/// A VM and where it could go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditedVm {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// The host it runs on.
    pub host: String,
    /// Every other host.
    pub destinations: Vec<Destination>,
}

/// Another host, seen from a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// The host.
    pub host: String,
    /// Whether the VM could go there.
    pub answer: Answer,
    /// Why not: every rule that is violated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<Reason>,
    /// What would be worse there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Reason>,
    /// Rules that lack evidence which an audit should have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undecided: Vec<String>,
}

/// Whether a VM could go to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Nothing that was looked at stands in its way.
    Yes,
    /// A rule that blocks is violated.
    No,
    /// Nothing is violated, and evidence is missing that an audit should have.
    Undecided,
}

/// A rule that is violated.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// The rule's id.
    pub rule: String,
    /// What it was found on; absent where the rule speaks of the move as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What was found.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remediation: Option<String>,
}

/// Evidence that is missing for one cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Undecided {
    /// The obstacle.
    pub cause: Cause,
    /// Whether it is only what an audit never looks at: guests, the path, dirty rates.
    pub by_design: bool,
    /// The rules that lack it.
    pub rules: Vec<String>,
    /// What was said when it was tried.
    pub reasons: Vec<String>,
    /// What to do so that it is known.
    pub way_out: String,
}

impl AuditedVm {
    /// Whether there is a host that it could go to.
    pub fn can_move(&self) -> bool {
        self.destinations.iter().any(|destination| destination.answer == Answer::Yes)
    }
}

impl Audit {
    /// Whether every VM has a host that it could go to.
    pub fn everybody_can_move(&self) -> bool {
        self.vms.iter().all(AuditedVm::can_move)
    }

    /// How the command ends: 20 where a VM can go nowhere because rules are violated, 21 where evidence is missing to say so.
    pub fn exit(&self) -> ExitCode {
        let stuck = || self.vms.iter().filter(|vm| !vm.can_move());
        let refused_everywhere =
            |vm: &AuditedVm| vm.destinations.iter().all(|destination| destination.answer == Answer::No);
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
