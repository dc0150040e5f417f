//! Plan of one move: goals, settings and preparation, which the executor needs and the ledger keeps for recovery.

use serde::{Deserialize, Serialize};
use vmgate_facts::text::ShellWord;

use super::{MoveSettings, Notify};

/// Goals, settings and preparation of one move.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MovePlan {
    /// Longest blackout that is accepted.
    pub longest_blackout_seconds: f64,
    /// Dark time that was measured on the guest's network; none where the forecast derives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_dark_seconds: Option<f64>,
    /// Longest duration of the migration that is accepted; none for no limit.
    pub deadline_seconds: Option<f64>,
    /// Settings of the migration.
    pub settings: MoveSettings,
    /// True if the move tests a pair of hypervisor versions, with a VM that may be lost.
    #[serde(default)]
    pub rehearsal: bool,
    /// Notification of the guest; none if the guest is not notified.
    pub notify: Option<Notify>,
    /// Actions before the move, in this order; they are undone after the move in the reverse order.
    pub actions: Vec<Action>,
}

/// An action before a migration, which is undone after the migration, even if it fails.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// The action itself.
    pub deed: ActionKind,
    /// Time limit of the action, and also of its undoing.
    pub time_limit_seconds: f64,
}

/// Kinds of actions, with their arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum ActionKind {
    /// Stops a service in the guest, and starts it again if it ran.
    StopService {
        /// Name of the service, as the guest's service manager knows it.
        service: String,
        /// Process names of the service, which end when the service is stopped.
        processes: Vec<String>,
    },
    /// Takes a member out of its cluster, and brings it back if it was one.
    TakeOut {
        /// Id of the software in vmgate's catalogue.
        software: String,
        /// Script that succeeds while the others can do without the member.
        proof: String,
        /// Script that takes the member out.
        stop: String,
        /// Script that brings it back.
        start: String,
        /// Names of the processes that end when it is taken out; a name that ends in `*` stands for all with this beginning.
        processes: Vec<String>,
    },
    /// Runs a command, and another command to undo it.
    Run {
        /// Machine on which both commands run.
        on: RunsOn,
        /// Program and arguments of the command.
        run: Vec<String>,
        /// Program and arguments that undo the command; empty if there is nothing to undo. They may run more than once.
        undo: Vec<String>,
    },
}

/// Machine on which a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RunsOn {
    /// The machine of vmgate.
    #[default]
    Operator,
    /// In the guest, through its agent.
    Guest,
}

/// Default of libvirt for the size of the XBZRLE cache.
const XBZRLE_CACHE_BYTES: u64 = 64 << 20;

impl MovePlan {
    /// The plan as rules see it.
    pub fn to_fact(&self) -> vmgate_facts::Change {
        vmgate_facts::Change {
            longest_blackout_seconds: self.longest_blackout_seconds,
            network_dark_seconds: self.network_dark_seconds,
            deadline_seconds: self.deadline_seconds,
            bandwidth_limit_bytes_per_second: self.settings.bandwidth_limit_bytes_per_second,
            settings: vmgate_facts::MigrationSettings {
                auto_converge: self.settings.auto_converge == Some(true),
                xbzrle_cache_bytes: (self.settings.xbzrle == Some(true)).then_some(XBZRLE_CACHE_BYTES),
                multifd_channels: self.settings.multifd_channels,
                post_copy: self.settings.post_copy == Some(true),
                tls: self.settings.tls == Some(true),
            },
            run_by: self.settings.run_by.clone(),
            rehearsal: self.rehearsal,
            ..vmgate_facts::Change::default()
        }
    }
}

impl From<&vmgate_facts::Change> for MovePlan {
    /// The plan of a move that is asked for on the command line.
    fn from(change: &vmgate_facts::Change) -> Self {
        Self {
            longest_blackout_seconds: change.longest_blackout_seconds,
            network_dark_seconds: change.network_dark_seconds,
            deadline_seconds: change.deadline_seconds,
            settings: MoveSettings {
                bandwidth_limit_bytes_per_second: change.bandwidth_limit_bytes_per_second,
                auto_converge: change.settings.auto_converge.then_some(true),
                xbzrle: change.settings.xbzrle_cache_bytes.is_some().then_some(true),
                multifd_channels: change.settings.multifd_channels,
                post_copy: change.settings.post_copy.then_some(true),
                tls: change.settings.tls.then_some(true),
                run_by: change.run_by.clone(),
                ..MoveSettings::default()
            },
            rehearsal: change.rehearsal,
            notify: Some(Notify::default()),
            actions: Vec::new(),
        }
    }
}

impl Default for MovePlan {
    fn default() -> Self {
        Self::from(&vmgate_facts::Change::default())
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // As a person would have to type it to do the same.
        let typed =
            |run: &[String]| run.iter().map(|word| ShellWord(word).to_string()).collect::<Vec<_>>().join(" ");
        match &self.deed {
            ActionKind::StopService { service, .. } => write!(f, "stop the service {service} in the guest"),
            ActionKind::TakeOut { software, .. } => {
                write!(f, "take {software} in the guest out of its cluster")
            }
            ActionKind::Run { on: RunsOn::Operator, run, .. } => write!(f, "run `{}`", typed(run)),
            ActionKind::Run { on: RunsOn::Guest, run, .. } => {
                write!(f, "run `{}` in the guest", typed(run))
            }
        }
    }
}
