//! Execution of moves: migrates VMs, and only on a GO. The one part of vmgate that changes a VM.
//!
//! The result of a migration is always read from both hosts afterwards, never from what libvirt's call
//! returned: either the VM runs on one host alone, and the result names the host, or somebody must look. Every step is in the
//! ledger before it is taken, so that `recover` can finish a run that a crash left behind. Parses no command line and prints
//! nothing. Only the command line may depend on it: whoever can is able to ask for a change.
//!
//! Walls, which the compiler keeps: the hand is private, and a pass has no constructor but a verdict.
//!
//! ```compile_fail
//! use vmgate_execute::hand::migrate;
//! ```
//!
//! ```compile_fail
//! fn pass(verdict: vmgate_verdict::Verdict) -> vmgate_execute::Pass {
//!     vmgate_execute::Pass { verdict }
//! }
//! ```
//!
//! A trial has a pass of its own, with which nobody migrates.
//!
//! ```compile_fail
//! fn pass(trial: vmgate_execute::TrialPass) -> vmgate_execute::Pass {
//!     trial.into()
//! }
//! ```

#![deny(unsafe_code)]

pub mod campaign;
mod door;
mod driver;
mod gate;
mod guard;
#[allow(unsafe_code, reason = "raw calls to libvirt: the one place that changes a VM")]
mod hand;
mod hosts;
pub mod isolate;
mod journal;
mod judge;
mod managed_migration;
mod migration;
mod migration_record;
mod network_rehearsal;
mod notify;
pub mod nova;
mod permits;
mod post_migration_failure;
mod prepare;
mod recover;
mod rehearse;
mod resolve;
mod restore;
mod run;
mod silence;
mod take_over;
mod trial;
mod verify;
mod vm_location;

use std::{net::IpAddr, sync::atomic::AtomicBool, time::Duration};

pub use door::Door;
pub use gate::{GateRefusal, GateRequest, Pass};
pub use guard::ConvergenceEstimate;
pub use hosts::{HostConnection, Hosts};
pub use judge::Judge;
pub use migration::{ForecastLeft, Progress};
pub use network_rehearsal::NetworkRehearsalOrder;
pub use permits::{PermitDesk, cancel_after};
pub use post_migration_failure::{EvidenceOptions, IsolationResult};
pub use recover::{DoorOf, RecoveredRun, RecoveryResult, RunOrder, recover};
pub use rehearse::{ClearedTwins, HostFiles, NotRehearsed, RehearsalOrder, clear_twins, rehearsal_started};
pub use take_over::{current_driver, has_moved, take_over};
use thiserror::Error;
pub use trial::{TrialOrder, TrialPass};
pub use vm_location::VmLocation;
use vmgate_facts::Facts;
use vmgate_judge::change::{Limits, MovePlan};
use vmgate_ledger::{Ledger, NetworkSilence, Refusal, entry::RunStep};
use vmgate_libvirt::JobStats;
use vmgate_verdict::ExitCode;

/// One move that is to be executed.
pub struct Assignment<'a> {
    /// Permission from the gate.
    pub pass: Pass,
    /// Facts that the verdict was reached on; `None` for a saved verdict.
    pub verdict_facts: Option<Facts>,
    /// Collects and judges the move again before it starts.
    pub judge: &'a Judge<'a>,
    /// Goals, settings and preparation.
    pub plan: &'a MovePlan,
    /// Address at the destination that takes the traffic; libvirt's own choice where there is none.
    pub migrate_address: Option<IpAddr>,
    /// Limits on the number of concurrent moves.
    pub limits: Limits,
    /// Way to the destination's hook.
    pub permits: &'a dyn PermitDesk,
    /// Door to the manager that runs the migration; none where vmgate asks libvirt.
    pub door: Option<&'a Door>,
    /// Options for the evidence that is saved if the VM is cut off the network.
    pub evidence_options: EvidenceOptions,
}

/// Progress event of a run.
#[derive(Debug)]
pub enum Event<'a> {
    /// The run is about to take this step.
    Entering(RunStep),
    /// Progress of the migration.
    Migrating(&'a Progress),
}

/// Result of a move that is done and verified.
#[derive(Debug)]
pub struct CompletedMove {
    /// Id of the run.
    pub run: String,
    /// Duration from the start of the run to the end of the verification.
    pub duration: Duration,
    /// Statistics of libvirt on the completed job; `None` where libvirt gave none.
    pub job_stats: Option<JobStats>,
    /// Silence of the VM's interfaces, as the source host heard it; empty where nobody could listen.
    pub silences: Vec<NetworkSilence>,
}

/// Failure of a move, by where the VM is now.
#[derive(Debug, Error)]
pub enum MoveFailure {
    /// Nothing was done, because VM or hosts are not those of the verdict, or a host or the ledger failed.
    #[error("the migration was not started: {0}")]
    NotStarted(String),
    /// Nothing was done, because another move blocks this one.
    #[error("the migration was not started: {0}")]
    Busy(Refusal),
    /// The move was aborted or failed, and the VM still runs on the source.
    #[error("{why}; the VM still runs on {host}")]
    Stayed {
        /// Reason of the abort or failure.
        why: String,
        /// The source host's name.
        host: String,
        /// Exit code of the process.
        exit: ExitCode,
    },
    /// Not certain that the VM runs, or that it runs only once.
    #[error(
        "{why}; somebody must look: {vm_location}. vmgate isolated and stopped nothing. Run `vmgate recover`: it asks both \
         hosts again and finishes the move if the answers are clear"
    )]
    Unclear {
        /// Reason of the failure.
        why: String,
        /// State of the VM on both hosts.
        vm_location: VmLocation,
    },
    /// The VM runs on the destination alone, but something that worked before does not.
    #[error("the VM runs on {host}, but {problem}; somebody must look: {cut_off}")]
    PostMigration {
        /// The destination host's name.
        host: String,
        /// Everything that does not work, in words.
        problem: String,
        /// Result of the isolation, where the change asks for it.
        cut_off: Box<IsolationResult>,
    },
    /// The VM runs on the destination alone, and its manager's record does not say so.
    #[error("the migration is done and the VM runs on {host}, but {difference}")]
    RecordDiffers {
        /// The destination host's name.
        host: String,
        /// The difference, with its cure.
        difference: String,
    },
    /// The VM runs on one host alone, but the preparation could not be undone.
    #[error(
        "{why}; the VM runs on {host}, but this could not be undone: {}. Undo it by hand, or run `vmgate recover` to try again",
        .left.join("; ")
    )]
    NotRestored {
        /// Name of the host that the VM runs on.
        host: String,
        /// Result of the move, in words.
        why: String,
        /// Actions that could not be undone, each with the reason.
        left: Vec<String>,
    },
}

impl MoveFailure {
    /// Exit code of the process.
    pub fn exit(&self) -> ExitCode {
        match self {
            Self::NotStarted(_) => ExitCode::Internal,
            Self::Busy(_) => ExitCode::RuleViolated,
            Self::Stayed { exit, .. } => *exit,
            Self::Unclear { .. }
            | Self::PostMigration { .. }
            | Self::RecordDiffers { .. }
            | Self::NotRestored { .. } => ExitCode::OperatorNeeded,
        }
    }
}

impl Hosts {
    /// Executes a move and writes every step into the ledger. `stop` aborts the move; `watch` receives its progress.
    pub fn carry_out(
        &self,
        assignment: &Assignment,
        ledger: &Ledger,
        stop: &AtomicBool,
        watch: &mut dyn FnMut(Event),
    ) -> Result<CompletedMove, MoveFailure> {
        run::carry_out(self, assignment, ledger, stop, watch)
    }
}
