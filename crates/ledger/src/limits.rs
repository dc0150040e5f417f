//! Limits on concurrent moves: always one per VM, and as many per host and link as the site allows.

use std::fmt;

use thiserror::Error;
use vmgate_judge::change::Limits;

use super::{OpenRun, entry::RunStarted};

/// Refusal to begin a move now.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}", .why.text(.run, .vm))]
pub struct Refusal {
    /// The conflict with other moves.
    pub why: MoveConflict,
    /// Id of the open run.
    pub run: String,
    /// VM of that run.
    pub vm: String,
}

/// Conflict of a move with open runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MoveConflict {
    /// The VM is being moved already.
    SameVm {
        /// Process that drives that move.
        driver: String,
    },
    /// The limit of moves from this source is reached.
    Source(String, u32),
    /// The limit of moves to this destination is reached.
    Destination(String, u32),
    /// The limit of moves between these hosts is reached.
    Link(String, String, u32),
}

impl MoveConflict {
    fn text(&self, run: &str, vm: &str) -> String {
        let at_most = |what: fmt::Arguments, limit: &u32| {
            let moves = if *limit == 1 { "move" } else { "moves" };
            format!(
                "at most {limit} {moves} {what} may run at once, and run {run} (VM {vm}) is open: wait for its end, raise the limit, \
                 or run `vmgate recover` if it was left behind"
            )
        };
        match self {
            Self::SameVm { driver } => format!(
                "{vm} is being moved already: run {run} by {driver} has not ended. Wait for its end, or run `vmgate recover` \
                 if it was left behind"
            ),
            Self::Source(host, limit) => at_most(format_args!("from {host}"), limit),
            Self::Destination(host, limit) => at_most(format_args!("to {host}"), limit),
            Self::Link(one, other, limit) => at_most(format_args!("between {one} and {other}"), limit),
        }
    }
}

/// Reason why `run` may not begin beside the runs that are open.
pub(super) fn refuse(limits: &Limits, run: &RunStarted, open: &[OpenRun]) -> Option<Refusal> {
    let refusal = |other: &OpenRun, why| Refusal {
        why,
        run: other.run.run.clone(),
        vm: other.run.vm.label().to_owned(),
    };
    if let Some(other) = open.iter().find(|other| other.run.vm.uuid == run.vm.uuid) {
        let driver = other.run.driver.to_string();
        return Some(refusal(other, MoveConflict::SameVm { driver }));
    }
    let label = |named: &vmgate_verdict::NameAndUuid| named.label().to_owned();
    let full = |fits: &dyn Fn(&RunStarted) -> bool, limit: u32| {
        let mut others = open.iter().filter(|other| fits(&other.run));
        let first = others.next()?;
        (1 + others.count() >= limit as usize).then_some(first)
    };
    let source = &run.source.uuid;
    let destination = &run.destination.uuid;
    if let Some(other) = full(&|other| other.source.uuid == *source, limits.per_source) {
        return Some(refusal(other, MoveConflict::Source(label(&run.source), limits.per_source)));
    }
    if let Some(other) = full(&|other| other.destination.uuid == *destination, limits.per_destination) {
        let why = MoveConflict::Destination(label(&run.destination), limits.per_destination);
        return Some(refusal(other, why));
    }
    let same_link = |other: &RunStarted| {
        (&other.source.uuid, &other.destination.uuid) == (source, destination)
            || (&other.source.uuid, &other.destination.uuid) == (destination, source)
    };
    full(&same_link, limits.per_link).map(|other| {
        refusal(other, MoveConflict::Link(label(&run.source), label(&run.destination), limits.per_link))
    })
}
