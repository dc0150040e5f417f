//! Recovery after a crash: the ledger has the runs that were left behind, and both hosts are asked where their VMs are.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use vmgate_ledger::{
    Entry, Ledger, LedgerError, OpenRun, Record,
    entry::{RunEnding, RunStep},
};
use vmgate_verdict::ExitCode;

use super::{
    Hosts, VmLocation,
    driver::{self, DriverState},
    isolate::IsolationContext,
    journal::Journal,
    notify::MoveNotice,
    post_migration_failure::{IsolationResult, cut_off, write_down},
    resolve,
    restore::PendingUndo,
};

/// Author of an isolation that a crashed run was about to make and the recovery repeats.
const BY: &str = "vmgate recover";

/// An open run after a recovery.
#[derive(Debug)]
pub struct RecoveredRun {
    /// Id of the run.
    pub run: String,
    /// The VM.
    pub vm: String,
    /// Result of the recovery.
    pub result: RecoveryResult,
}

/// Result of the recovery of a run.
#[derive(Debug)]
pub enum RecoveryResult {
    /// The run's process still runs, or may still run, so the run was left alone.
    StillDriven(String),
    /// The run has ended: the VM runs on this host alone, and the preparation is undone.
    Ended {
        /// Name of the host.
        host: String,
        /// True if that is the destination.
        moved: bool,
    },
    /// The VM runs on the destination and does not work as before: the run was about to cut it off, which the recovery did.
    Isolated {
        /// Name of the host.
        host: String,
        /// Result of the isolation.
        cut_off: IsolationResult,
    },
    /// The VM runs on this host, but an action could not be undone; the run stays open.
    NotRestored {
        /// Name of the host.
        host: String,
        /// Actions that could not be undone, each with the reason.
        left: Vec<String>,
    },
    /// The VM runs on neither host: it was shut down or crashed, as it may without vmgate. The run has ended.
    Stopped(VmLocation),
    /// Not certain where the VM runs, or how often; the run stays open.
    Unclear(VmLocation),
    /// The URIs in the ledger cannot be parsed.
    UnusableUris(String),
}

impl fmt::Display for RecoveryResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StillDriven(by) => write!(f, "left alone: the move is driven by {by}"),
            Self::Ended { host, moved } => {
                let role = if *moved { "destination" } else { "source" };
                write!(f, "the VM runs on the {role} {host}; the preparation is undone")
            }
            Self::Isolated { host, cut_off } => {
                write!(f, "the VM runs on the destination {host} but does not work as before; {cut_off}")
            }
            Self::NotRestored { host, left } => write!(
                f,
                "the VM runs on {host}, but this could not be undone: {}. Undo it by hand, or run `vmgate recover` again",
                left.join("; ")
            ),
            Self::Stopped(seen) => {
                write!(f, "the VM does not run: {seen}. Start it on one host only, where it is defined")
            }
            Self::Unclear(seen) => write!(
                f,
                "somebody must look: {seen}. vmgate started and stopped nothing; run `vmgate recover` again when both hosts answer"
            ),
            Self::UnusableUris(why) => write!(f, "the host URIs in the ledger cannot be used: {why}"),
        }
    }
}

impl RecoveryResult {
    /// True if the run has ended, so that nothing is left to recover.
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Ended { .. } | Self::Isolated { .. } | Self::Stopped(_))
    }

    /// Exit code of the process.
    pub fn exit(&self) -> ExitCode {
        match self {
            Self::StillDriven(_) | Self::Ended { .. } => ExitCode::Go,
            Self::UnusableUris(_) => ExitCode::Internal,
            Self::NotRestored { .. } | Self::Isolated { .. } | Self::Stopped(_) | Self::Unclear(_) => {
                ExitCode::OperatorNeeded
            }
        }
    }
}

/// Finishes or rolls back every run that was left behind. `elsewhere` includes runs that began on another machine,
/// whose process cannot be checked.
pub fn recover(
    ledger: &Ledger,
    timeout: Duration,
    elsewhere: bool,
) -> Result<Vec<RecoveredRun>, LedgerError> {
    let open = ledger.open_runs()?;
    Ok(open.iter().map(|open| recover_run(ledger, open, timeout, elsewhere)).collect())
}

fn recover_run(ledger: &Ledger, open: &OpenRun, timeout: Duration, elsewhere: bool) -> RecoveredRun {
    let run = &open.run;
    let result = match driver::driver_state(&run.driver) {
        DriverState::Alive => RecoveryResult::StillDriven(run.driver.to_string()),
        DriverState::Elsewhere if !elsewhere => RecoveryResult::StillDriven(format!(
            "{}, which cannot be checked from here (give --elsewhere if that process is gone)",
            run.driver
        )),
        DriverState::Gone | DriverState::Elsewhere => match (run.from.parse(), run.to.parse()) {
            (Ok(from), Ok(to)) => {
                let journal = Journal { ledger, run, by_recovery: true };
                finish_run(&journal, open, &Hosts::new(from, to, timeout))
            }
            (from, to) => RecoveryResult::UnusableUris(
                [from.err(), to.err()].into_iter().flatten().map(|error| error.to_string()).collect(),
            ),
        },
    };
    RecoveredRun { run: run.run.clone(), vm: run.vm.label().to_owned(), result }
}

/// Time since the migration began; `None` if the run did not reach that step.
fn migrating_for(history: &[Record]) -> Option<Duration> {
    let began = history.iter().find(
        |record| matches!(&record.entry, Entry::Transition(transition) if transition.state == RunStep::Migrate),
    )?;
    Some(Timestamp::now().duration_since(began.at).try_into().unwrap_or_default())
}

/// Reason of an isolation that the run was about to make when it was left behind; `None` if it was not.
fn isolation_begun(history: &[Record]) -> Option<&str> {
    history.iter().find_map(|record| match &record.entry {
        Entry::Transition(transition) if transition.state == RunStep::Isolate => {
            Some(transition.why.as_deref().unwrap_or_default())
        }
        _ => None,
    })
}

pub(super) fn finish_run(journal: &Journal, open: &OpenRun, hosts: &Hosts) -> RecoveryResult {
    let vm = journal.vm();
    // A run that never reached its migration has changed nothing on the hosts: any job there belongs to somebody else.
    let seen = match migrating_for(&open.history) {
        Some(ago) if resolve::end_job(&vm, hosts, ago) => resolve::settle(&vm, hosts),
        _ => VmLocation::settle(&vm, hosts),
    };
    let (line, moved) = if seen.only_on_source() {
        (&hosts.source, false)
    } else if seen.only_on_destination() {
        (&hosts.destination, true)
    } else if seen.source.is_absent() && seen.destination.is_absent() {
        let why = format!("the VM has stopped: {seen}");
        journal.end(RunEnding::Failed, ExitCode::OperatorNeeded, None, Some(&why));
        return RecoveryResult::Stopped(seen);
    } else {
        journal.note(RunStep::Fail, None, Some(&format!("recovery: {seen}")));
        return RecoveryResult::Unclear(seen);
    };
    let host = line.name().to_owned();
    // Cut off before the preparation is undone: undoing takes time, and the VM could do harm meanwhile.
    let cut_off = isolation_begun(&open.history).filter(|_| moved).map(|trouble| {
        let cut_off = cut_off(&vm, hosts, BY, trouble);
        if let IsolationResult::Isolated { isolated, .. } = &cut_off {
            let context = IsolationContext {
                host_uuid: open.run.destination.uuid.clone(),
                by: BY.to_owned(),
                reason: trouble.to_owned(),
                evidence: None,
                run: Some(open.run.run.clone()),
            };
            write_down(journal.ledger, &isolated.entry(context));
        }
        cut_off
    });
    let mut to_undo = PendingUndo::of(&open.history);
    let news = if moved { MoveNotice::After } else { MoveNotice::Stayed };
    let left = match line.domain(&vm) {
        Ok(domain) => to_undo.undo(journal, &domain, news),
        Err(error) => vec![error.to_string()],
    };
    if !left.is_empty() {
        return RecoveryResult::NotRestored { host, left };
    }
    if let Some(cut_off) = cut_off {
        let why = format!("it was left behind, and recovered; {cut_off}");
        journal.end(cut_off.ending(), ExitCode::OperatorNeeded, Some(&host), Some(&why));
        return RecoveryResult::Isolated { host, cut_off };
    }
    let (ending, exit) =
        if moved { (RunEnding::Done, ExitCode::Go) } else { (RunEnding::Aborted, ExitCode::NotFinished) };
    journal.end(ending, exit, Some(&host), Some("it was left behind, and recovered"));
    RecoveryResult::Ended { host, moved }
}

#[cfg(test)]
mod tests {
    use vmgate_ledger::entry::Transition;

    use super::*;

    #[test]
    fn a_vm_that_was_about_to_be_cut_off_is_told_by_its_reason() {
        let entered = |state, why: Option<&str>| {
            let entry = Entry::Transition(Transition {
                run: "r1".to_owned(),
                vm: "uuid".to_owned(),
                state,
                action: None,
                mark: None,
                why: why.map(str::to_owned),
            });
            Record::sample(Timestamp::UNIX_EPOCH, entry)
        };
        let verified = entered(RunStep::Verify, None);
        assert_eq!(isolation_begun(std::slice::from_ref(&verified)), None);
        assert_eq!(
            isolation_begun(&[verified, entered(RunStep::Isolate, Some("it is deaf"))]),
            Some("it is deaf")
        );
    }
}
