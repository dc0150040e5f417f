//! Recovery after a crash: the ledger has the runs that were left behind, and both hosts are asked where their VMs are.
//!
//! A record says that a run was left behind, and how far it came. Its commands are not run and its addresses are not used:
//! whoever may write to the ledger would run programs here. Both come from the operator, as a [`RunOrder`].

use std::{fmt, time::Duration};

use jiff::Timestamp;
use vmgate_collect::HostedVm;
use vmgate_facts::{Uri, text::plain};
use vmgate_judge::change::MovePlan;
use vmgate_ledger::{
    Entry, Ledger, LedgerError, OpenRun, Record,
    entry::{RunEnding, RunStarted, RunStep},
};
use vmgate_verdict::{ExitCode, NameAndUuid};

use super::{
    Door, Hosts, VmLocation,
    door::DoorQuestion,
    driver::{self, DriverState},
    isolate::IsolationContext,
    journal::Journal,
    managed_migration,
    notify::MoveNotice,
    post_migration_failure::{IsolationResult, cut_off, write_down},
    resolve,
    restore::PendingUndo,
};

/// Author of an isolation that a crashed run was about to make and the recovery repeats.
const BY: &str = "vmgate recover";

/// Order of a run, by the word of the operator: a change file of the digest that the record names, or the command line.
#[derive(Debug, Clone, PartialEq)]
pub struct RunOrder {
    /// Name or UUID of the VM.
    pub vm: String,
    /// URI of the source.
    pub from: Uri,
    /// URI of the destination.
    pub to: Uri,
    /// Id of the change; none for a single move.
    pub change: Option<String>,
    /// Goals, settings and preparation.
    pub plan: MovePlan,
}

impl RunOrder {
    /// Connections to the hosts of the order, opened on the first use.
    pub(super) fn hosts(&self, timeout: Duration) -> Hosts {
        Hosts::new(self.from.clone(), self.to.clone(), timeout)
    }
}

/// An open run after a recovery.
#[derive(Debug)]
pub struct RecoveredRun {
    /// Id of the run.
    pub run: String,
    /// The VM.
    pub vm: String,
    /// Result of the recovery.
    pub result: RecoveryResult,
    /// The order that was carried out; none if nothing was done.
    pub order: Option<RunOrder>,
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
    /// The run has ended, and the manager that ran the migration has the VM elsewhere in its record, or does not tell.
    RecordDiffers {
        /// Name of the host that the VM runs on.
        host: String,
        /// True if that is the destination.
        moved: bool,
        /// The difference, with its cure.
        difference: String,
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
    /// The operator's order is not known, so that nothing was asked and nothing was run; the run stays open.
    OrderNeeded {
        /// The missing part, and how it is given.
        missing: String,
        /// Steps that a recovery would take, by the record.
        would: Vec<String>,
    },
}

impl fmt::Display for RecoveryResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StillDriven(by) => write!(f, "left alone: the move is driven by {by}"),
            Self::Ended { host, moved } => {
                let role = if *moved { "destination" } else { "source" };
                write!(f, "the VM runs on the {role} {host}; the preparation is undone")
            }
            Self::RecordDiffers { host, difference, .. } => {
                write!(f, "the VM runs on {host} and the preparation is undone, but {difference}")
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
            Self::OrderNeeded { missing, would } => {
                write!(
                    f,
                    "nothing was done: {missing}. By the record, a recovery would then {}",
                    would.join("; ")
                )
            }
        }
    }
}

impl RecoveryResult {
    /// True if the run has ended, so that nothing is left to recover.
    pub fn is_end(&self) -> bool {
        matches!(
            self,
            Self::Ended { .. } | Self::RecordDiffers { .. } | Self::Isolated { .. } | Self::Stopped(_)
        )
    }

    /// True if the VM runs on the destination, as the run wanted.
    pub fn has_moved(&self) -> bool {
        matches!(
            self,
            Self::Ended { moved: true, .. } | Self::RecordDiffers { moved: true, .. } | Self::Isolated { .. }
        )
    }

    /// Exit code of the process.
    pub fn exit(&self) -> ExitCode {
        match self {
            Self::StillDriven(_) | Self::Ended { .. } => ExitCode::Go,
            Self::OrderNeeded { .. }
            | Self::NotRestored { .. }
            | Self::RecordDiffers { .. }
            | Self::Isolated { .. }
            | Self::Stopped(_)
            | Self::Unclear(_) => ExitCode::OperatorNeeded,
        }
    }
}

/// Finishes or rolls back every run that was left behind and that `order_of` knows; the error of `order_of` says what the
/// operator must give. `elsewhere` includes runs that began on another machine, whose process cannot be checked. `door_of` opens
/// the door to the manager that runs an order's migration, whose record is compared.
pub fn recover(
    ledger: &Ledger,
    timeout: Duration,
    elsewhere: bool,
    order_of: &dyn Fn(&RunStarted) -> Result<RunOrder, String>,
    door_of: DoorOf,
) -> Result<Vec<RecoveredRun>, LedgerError> {
    let open = ledger.open_runs()?;
    Ok(open.iter().map(|open| recover_run(ledger, open, timeout, elsewhere, order_of, door_of)).collect())
}

/// Opens the door to the manager that runs the migration of an order, if one does; the error says why it cannot be asked.
pub type DoorOf<'a> = &'a dyn Fn(&RunOrder) -> Result<Option<Door>, String>;

fn recover_run(
    ledger: &Ledger,
    open: &OpenRun,
    timeout: Duration,
    elsewhere: bool,
    order_of: &dyn Fn(&RunStarted) -> Result<RunOrder, String>,
    door_of: DoorOf,
) -> RecoveredRun {
    let run = &open.run;
    let mut carried_out = None;
    let result = match driver::driver_state(&run.driver) {
        DriverState::Alive => RecoveryResult::StillDriven(run.driver.to_string()),
        DriverState::Elsewhere if !elsewhere => RecoveryResult::StillDriven(format!(
            "{}, which cannot be checked from here (give --elsewhere if that process is gone)",
            run.driver
        )),
        DriverState::Gone | DriverState::Elsewhere => match order_of(run) {
            Ok(order) => {
                let order = carried_out.insert(order);
                finish_run(ledger, open, order, &order.hosts(timeout), door_of)
            }
            Err(missing) => RecoveryResult::OrderNeeded { missing, would: by_the_record(open) },
        },
    };
    RecoveredRun { run: run.run.clone(), vm: run.vm.label().to_owned(), result, order: carried_out }
}

/// Steps that a recovery would take if the record told the truth; the text is shown and never used.
fn by_the_record(open: &OpenRun) -> Vec<String> {
    let run = &open.run;
    let hosts = format!("ask `{}` and `{}` where the VM is", plain(&run.from), plain(&run.to));
    let pending = PendingUndo::of(&open.history).actions;
    let undone = pending.iter().rev().filter_map(|number| run.plan.actions.get(*number));
    std::iter::once(hosts)
        .chain(undone.map(|action| format!("undo: {}", plain(&action.to_string()))))
        .collect()
}

/// The run as the operator ordered it: of its record only how far it came.
fn as_ordered(run: &RunStarted, order: &RunOrder) -> RunStarted {
    let mut plan = order.plan.clone();
    // The guest was not told, whatever the change says: its way in was not the agent.
    plan.notify = plan.notify.filter(|_| run.plan.notify.is_some());
    RunStarted {
        from: order.from.to_string(),
        to: order.to.to_string(),
        change: order.change.clone(),
        plan,
        ..run.clone()
    }
}

/// Time since the migration began; `None` if the run did not reach that step.
fn migrating_for(history: &[Record]) -> Option<Duration> {
    let began = history.iter().find(
        |record| matches!(&record.entry, Entry::Transition(transition) if transition.state == RunStep::Migrate),
    )?;
    // A record of the future means that the clock was set back: how long ago is not known, so no job passes for the run's own.
    Some(Timestamp::now().duration_since(began.at).try_into().unwrap_or(Duration::MAX))
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

/// The run with the VM's name and UUID by its host: commands get them in their environment.
fn as_the_host_names_it(run: &RunStarted, vm: &HostedVm) -> RunStarted {
    let (name, uuid) = vm.name_and_uuid();
    RunStarted { vm: NameAndUuid { name, uuid }, ..run.clone() }
}

/// Difference between the record of the manager that ran the migration and the host that runs the VM; none where libvirt ran it.
fn difference_of_record(
    run: &RunStarted,
    order: &RunOrder,
    runs_on: &str,
    door_of: DoorOf,
) -> Option<String> {
    let RunStarted { vm, source, destination, .. } = run;
    match door_of(order) {
        Ok(door) => {
            let question = DoorQuestion { vm, source, destination, migration: None };
            managed_migration::settled_difference(&door?, &question, runs_on)
        }
        Err(why) => Some(format!(
            "the manager's record was not read ({why}): look there that it has the VM on {runs_on}"
        )),
    }
}

/// Finishes or rolls back a run of this VM, with the plan that the operator ordered.
pub(super) fn finish_run(
    ledger: &Ledger,
    open: &OpenRun,
    order: &RunOrder,
    hosts: &Hosts,
    door_of: DoorOf,
) -> RecoveryResult {
    let (vm, run) = (order.vm.as_str(), as_ordered(&open.run, order));
    let journal = &Journal { ledger, run: &run, by_recovery: true };
    // A run that never reached its migration has changed nothing on the hosts: any job there belongs to somebody else.
    // The migration of a manager is the manager's: it may go on, or be cleared up there.
    let is_own = open.run.plan.settings.run_by.is_none();
    let seen = match migrating_for(&open.history) {
        Some(ago) if is_own && resolve::end_job(vm, hosts, ago) => {
            if open.run.trial {
                resolve::settle_trial(vm, hosts)
            } else {
                resolve::settle(vm, hosts)
            }
        }
        _ => VmLocation::settle(vm, hosts),
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
    let isolates = moved && run.plan.settings.isolate == Some(true);
    let cut_off = isolation_begun(&open.history).filter(|_| isolates).map(|trouble| {
        let cut_off = cut_off(vm, hosts, BY, trouble);
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
    let left = match line.vm(vm) {
        Ok(found) => {
            let run = &as_the_host_names_it(&run, &found);
            to_undo.undo(&Journal { ledger, run, by_recovery: true }, &found, news)
        }
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
    let named = if moved { &open.run.destination } else { &open.run.source };
    if let Some(difference) = difference_of_record(&open.run, order, named.label(), door_of) {
        journal.end(ending, ExitCode::OperatorNeeded, Some(&host), Some(&difference));
        return RecoveryResult::RecordDiffers { host, moved, difference };
    }
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

    #[test]
    fn a_clock_that_was_set_back_makes_no_job_of_somebody_else_ours() {
        let began = |at| {
            let entry = Entry::Transition(Transition {
                run: "r1".to_owned(),
                vm: "uuid".to_owned(),
                state: RunStep::Migrate,
                action: None,
                mark: None,
                why: None,
            });
            Record::sample(at, entry)
        };
        let (now, day) = (Timestamp::now(), jiff::SignedDuration::from_hours(24));
        let ago = |at| migrating_for(&[began(at)]).unwrap();
        assert!(ago(now - day) >= Duration::from_hours(24));
        assert_eq!(ago(now + day), Duration::MAX, "a job of any age is younger than that");
    }
}
