//! How one move is to be made: everything that the executor needs, and the ledger keeps for a recovery.

use serde::{Deserialize, Serialize};

use super::{Notify, Settings};

/// Goals, settings and preparation of one move.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Longest silence of the guest that is accepted.
    pub longest_blackout_seconds: f64,
    /// Longest duration of the migration that is accepted; none for no limit.
    pub deadline_seconds: Option<f64>,
    /// How QEMU is to migrate it.
    pub settings: Settings,
    /// Whether the move tries out a pair of hypervisor versions, on a VM that may be lost.
    #[serde(default)]
    pub rehearsal: bool,
    /// How the guest is told; none where it is not.
    pub notify: Option<Notify>,
    /// What is done before, in this order, and undone after, in the other.
    pub actions: Vec<Action>,
}

/// Something that is done before a migration and undone after it, whichever way it ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// What is done.
    pub deed: Deed,
    /// How long it may take, and how long undoing it may take.
    pub time_limit_seconds: f64,
}

/// What an action does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Deed {
    /// Stops a service in the guest, and starts it again if it ran.
    StopService {
        /// Its name, as the guest's service manager knows it.
        service: String,
        /// Names of its processes: what is gone when it is stopped.
        processes: Vec<String>,
    },
    /// Runs a command, and another one to undo it.
    Run {
        /// Where.
        on: RunsOn,
        /// Program and arguments.
        run: Vec<String>,
        /// The same for undoing it; empty where there is nothing to undo. It may be run more than once.
        undo: Vec<String>,
    },
}

/// Where a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RunsOn {
    /// Where vmgate runs.
    #[default]
    Operator,
    /// In the guest, through its agent.
    Guest,
}

/// libvirt's default for the cache of XBZRLE.
const XBZRLE_CACHE_BYTES: u64 = 64 << 20;

impl Plan {
    /// What rules see of this plan.
    pub fn asked(&self) -> vmgate_facts::Change {
        vmgate_facts::Change {
            longest_blackout_seconds: self.longest_blackout_seconds,
            deadline_seconds: self.deadline_seconds,
            bandwidth_limit_bytes_per_second: self.settings.bandwidth_limit_bytes_per_second,
            settings: vmgate_facts::MigrationSettings {
                auto_converge: self.settings.auto_converge == Some(true),
                xbzrle_cache_bytes: (self.settings.xbzrle == Some(true)).then_some(XBZRLE_CACHE_BYTES),
                multifd_channels: self.settings.multifd_channels,
                post_copy: self.settings.post_copy == Some(true),
            },
            rehearsal: self.rehearsal,
            ..vmgate_facts::Change::default()
        }
    }
}

impl From<&vmgate_facts::Change> for Plan {
    /// The plan of a move that is asked for on the command line.
    fn from(change: &vmgate_facts::Change) -> Self {
        Self {
            longest_blackout_seconds: change.longest_blackout_seconds,
            deadline_seconds: change.deadline_seconds,
            settings: Settings {
                bandwidth_limit_bytes_per_second: change.bandwidth_limit_bytes_per_second,
                auto_converge: change.settings.auto_converge.then_some(true),
                xbzrle: change.settings.xbzrle_cache_bytes.is_some().then_some(true),
                multifd_channels: change.settings.multifd_channels,
                post_copy: change.settings.post_copy.then_some(true),
                ..Settings::default()
            },
            rehearsal: change.rehearsal,
            notify: Some(Notify::default()),
            actions: Vec::new(),
        }
    }
}

impl Default for Plan {
    fn default() -> Self {
        Self::from(&vmgate_facts::Change::default())
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.deed {
            Deed::StopService { service, .. } => write!(f, "stop the service {service} in the guest"),
            Deed::Run { on: RunsOn::Operator, run, .. } => write!(f, "run `{}`", run.join(" ")),
            Deed::Run { on: RunsOn::Guest, run, .. } => write!(f, "run `{}` in the guest", run.join(" ")),
        }
    }
}
