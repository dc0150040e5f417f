//! Migrates VMs, and only on a GO. The one part of vmgate that changes a host.
//!
//! Whatever happens, the end of a migration is told from what both hosts say afterwards, not from what libvirt
//! returned: either the VM runs on one host alone, and it is said which, or somebody must look. Every step is in the
//! ledger before it is taken, so that `recover` can end what a crash left behind.

mod account;
mod driver;
mod gate;
mod guard;
mod hosts;
pub mod isolate;
mod journal;
mod judge;
mod migration;
mod notify;
mod prepare;
mod recover;
mod resolve;
mod restore;
mod run;
mod suffering;
mod take_over;
mod verify;
mod whereabouts;

use std::{net::IpAddr, sync::atomic::AtomicBool, time::Duration};

use thiserror::Error;

pub use gate::{Asked, Pass, Refused};
pub use guard::Outlook;
pub use hosts::{Hosts, Line};
pub use judge::Judge;
pub use migration::Progress;
pub use recover::{Fate, Recovered, recover};
pub use suffering::{CutOff, Keeper};
pub use take_over::{driver, has_moved, take_over};
pub use whereabouts::Whereabouts;

use crate::{
    change::{Limits, MovePlan},
    collect::libvirt::JobStats,
    fact::Facts,
    ledger::{Ledger, Refusal, entry::State},
    verdict::ExitCode,
};

/// A move that is to be made.
pub struct Assignment<'a> {
    /// The right to make it.
    pub pass: Pass,
    /// The facts that the verdict was reached on; none where it was saved.
    pub earlier: Option<Facts>,
    /// How it is judged again.
    pub judge: &'a Judge<'a>,
    /// Goals, settings and preparation.
    pub plan: &'a MovePlan,
    /// Address at the destination that takes the traffic; libvirt's own choice where there is none.
    pub migrate_address: Option<IpAddr>,
    /// How many moves may run at once.
    pub limits: Limits,
    /// Who keeps the evidence where the VM has to be cut off the network.
    pub keeper: Keeper,
}

/// What a run tells while it runs.
#[derive(Debug)]
pub enum Event<'a> {
    /// It takes this step.
    Entering(State),
    /// The migration is so far.
    Migrating(&'a Progress),
}

/// A migration that is done and verified.
#[derive(Debug)]
pub struct Done {
    /// Id of the run.
    pub run: String,
    /// How long it took from the start to the end of the verification.
    pub took: Duration,
    /// libvirt's own account of it; `None` where it gave none.
    pub account: Option<JobStats>,
}

/// A migration that did not end as it should.
#[derive(Debug, Error)]
pub enum Undone {
    /// Nothing was done, because something was not as the verdict says.
    #[error("the migration was not started: {0}")]
    NotStarted(String),
    /// Nothing was done, because another move stands in the way.
    #[error("the migration was not started: {0}")]
    Busy(Refusal),
    /// It was stopped or failed, and the VM runs where it was.
    #[error("{why}; the VM runs on {host}, where it was")]
    Stayed {
        /// What stopped it.
        why: String,
        /// The source host's name.
        host: String,
        /// How the process ends.
        exit: ExitCode,
    },
    /// It is not certain that the VM runs, or that it runs once.
    #[error(
        "{why}; somebody must look: {whereabouts}. Nothing was isolated or stopped; `vmgate recover` looks again and ends \
         what can be ended"
    )]
    Unclear {
        /// What went wrong.
        why: String,
        /// What both hosts say.
        whereabouts: Whereabouts,
    },
    /// The VM runs on the destination alone, but something that worked before does not.
    #[error("the VM runs on {host}, but {trouble}; somebody must look: {cut_off}")]
    Suffers {
        /// The destination host's name.
        host: String,
        /// What does not work.
        trouble: String,
        /// What was done about it.
        cut_off: Box<CutOff>,
    },
    /// The VM runs on one host alone, but what was prepared could not be undone.
    #[error(
        "{why}; the VM runs on {host}, but this could not be undone: {}. Do it by hand, or `vmgate recover` tries again",
        .left.join("; ")
    )]
    NotRestored {
        /// The host it runs on.
        host: String,
        /// How the move went.
        why: String,
        /// What could not be undone, and why.
        left: Vec<String>,
    },
}

impl Undone {
    /// How the process ends.
    pub fn exit(&self) -> ExitCode {
        match self {
            Self::NotStarted(_) => ExitCode::Internal,
            Self::Busy(_) => ExitCode::RuleViolated,
            Self::Stayed { exit, .. } => *exit,
            Self::Unclear { .. } | Self::Suffers { .. } | Self::NotRestored { .. } => {
                ExitCode::OperatorNeeded
            }
        }
    }
}

impl Hosts {
    /// Carries a move out, and writes every step of it into the ledger. `stop` aborts it; `watch` is told how far it is.
    pub fn carry_out(
        &self,
        assignment: &Assignment,
        ledger: &Ledger,
        stop: &AtomicBool,
        watch: &mut dyn FnMut(Event),
    ) -> Result<Done, Undone> {
        run::carry_out(self, assignment, ledger, stop, watch)
    }
}
