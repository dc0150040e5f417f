//! Steps of a move: gate, notify, prepare, recheck, migrate, verify, restore. Each step is in the ledger before it
//! is taken, and every way out ends with the restore.

use std::{
    any::Any,
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use jiff::Timestamp;
use vmgate_collect::HostedVm;
use vmgate_facts::{Facts, Forecast, ForecastMethod, Uuid, text::with_causes};
use vmgate_judge::change::MovePlan;
use vmgate_ledger::{
    Entry, Ledger, LedgerError, NetworkSilence,
    entry::{ActionState, MigrationOutcome, RunEnding, RunStarted, RunStep},
};
use vmgate_libvirt::{JobStats, LibvirtError};
use vmgate_verdict::{ExitCode, Verdict};

use super::{
    Assignment, CompletedMove, Event, Hosts, MoveFailure, VmLocation,
    door::DoorQuestion,
    driver, gate,
    guard::Guard,
    journal::Journal,
    managed_migration,
    migration::{self, EndedMigration, Progress},
    notify::{self, GuestAnswer, MoveNotice},
    permits,
    prepare::Preparation,
    resolve,
    restore::PendingUndo,
    silence::Listening,
    verify::Baseline,
};

/// Reason why a run stops.
enum Halt {
    /// Before the migration: the VM was not touched.
    BeforeMigration { why: String, exit: ExitCode },
    /// During or after the migration: both hosts are asked where the VM is.
    Migration { why: String },
    /// The VM runs on the destination, but something that worked before does not.
    PostMigration { problem: String },
}

impl From<LedgerError> for Halt {
    fn from(error: LedgerError) -> Self {
        Self::BeforeMigration {
            why: format!("{error}. vmgate takes no step that it cannot write to the ledger"),
            exit: ExitCode::Internal,
        }
    }
}

/// A run under way.
pub(super) struct Run<'a> {
    pub(super) hosts: &'a Hosts,
    pub(super) assignment: &'a Assignment<'a>,
    pub(super) journal: Journal<'a>,
    stop: &'a AtomicBool,
    pub(super) watch: &'a mut dyn FnMut(Event),
    pub(super) vm: HostedVm,
    pub(super) to_undo: PendingUndo,
    baseline: Option<Baseline>,
    pub(super) facts: Option<Facts>,
    pub(super) ended: Option<EndedMigration>,
    /// Listening to the guest's interfaces from before the migration on.
    listening: Option<Listening>,
    /// Silence of the interfaces that was heard.
    pub(super) silences: Vec<NetworkSilence>,
    /// Verdict of the recheck, which the destination is told.
    rechecked: Option<Verdict>,
    /// Digest of the permit that the destination was given.
    permit: Option<String>,
    /// The downtime limit that the forecast of the recheck rests on.
    downtime_limit_seconds: Option<f64>,
    /// True if the run came to its migration: only then may it change anything on the hosts.
    migrates: bool,
    began: Instant,
}

/// Executes a move.
pub(super) fn carry_out(
    hosts: &Hosts,
    assignment: &Assignment,
    ledger: &Ledger,
    stop: &AtomicBool,
    watch: &mut dyn FnMut(Event),
) -> Result<CompletedMove, MoveFailure> {
    let judged = assignment.pass.verdict().change.run_by.as_deref();
    check_manager(judged, assignment.door.map(|door| door.manager.as_str()))?;
    let vm = check_vm_and_hosts(hosts, assignment)?;
    let monitor = assignment.judge.request.monitor().map(str::to_owned);
    let started = RunStarted { monitor, ..started(hosts, assignment.pass.verdict(), assignment.plan) };
    ledger.begin(&started, &assignment.limits).map_err(|error| match error {
        LedgerError::Refused(refusal) => MoveFailure::Busy(*refusal),
        other => MoveFailure::NotStarted(other.to_string()),
    })?;
    let mut run = Run {
        hosts,
        assignment,
        journal: Journal { ledger, run: &started, by_recovery: false },
        stop,
        watch,
        vm,
        to_undo: PendingUndo::default(),
        baseline: None,
        facts: None,
        ended: None,
        listening: None,
        silences: Vec::new(),
        rechecked: None,
        permit: None,
        downtime_limit_seconds: None,
        migrates: false,
        began: Instant::now(),
    };
    let result =
        catch_unwind(AssertUnwindSafe(|| run.take_steps())).unwrap_or_else(|panic| Err(defect(&*panic)));
    let permit = run.permit.take();
    let ended = run.finish(result);
    // After the VM is seen to: a permit that was not used would let the VM in later, on a verdict that nobody looks at then.
    if let (Err(_), Some(permit)) = (&ended, permit) {
        assignment.permits.withdraw(&permit);
    }
    ended
}

/// Converts a panic of vmgate: the hosts must be asked where the VM is, whatever the step.
fn defect(panic: &(dyn Any + Send)) -> Halt {
    let words = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    let words = words.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    Halt::Migration { why: format!("internal error in vmgate ({words})") }
}

/// Checks that the migration is run by whom the verdict is about: libvirt (none), or one manager.
fn check_manager(judged: Option<&str>, runs: Option<&str>) -> Result<(), MoveFailure> {
    if judged == runs {
        return Ok(());
    }
    let (judged, runs) = (judged.unwrap_or("libvirt alone"), runs.unwrap_or("libvirt alone"));
    Err(MoveFailure::NotStarted(format!(
        "the verdict is for a migration that {judged} runs, but {runs} would run this one: check the move again, with --as for the \
         manager that is to run it"
    )))
}

/// Checks that both hosts are those of the verdict, by UUID, and the migration address too, and returns the VM on the source.
fn check_vm_and_hosts(hosts: &Hosts, assignment: &Assignment) -> Result<HostedVm, MoveFailure> {
    let moved = &assignment.pass.verdict().moved;
    let used = assignment.migrate_address.map(|address| address.to_string());
    if let (Some(used), Some(judged)) = (&used, &moved.migrate_address)
        && !same_address(used, judged)
    {
        return Err(MoveFailure::NotStarted(format!(
            "the migration would go to the address {used}, but the verdict is about {judged}: give the address that was checked, or \
             check again"
        )));
    }
    for (host, meant) in [(&hosts.source, &moved.source), (&hosts.destination, &moved.destination)] {
        let uuid = host.uuid().map_err(|why| {
            MoveFailure::NotStarted(format!(
                "the identity of host {} is not known: {}",
                host.name(),
                why.reason
            ))
        })?;
        if Some(&uuid) != meant.uuid.as_ref() {
            let meant = meant.uuid.as_ref().map(Uuid::as_str).unwrap_or_default();
            let name = host.name();
            return Err(MoveFailure::NotStarted(format!(
                "host {name} has the UUID {uuid}, but the verdict is about host {meant}"
            )));
        }
    }
    let vm = hosts.source.vm(assignment.pass.vm().as_str());
    vm.map_err(|error| MoveFailure::NotStarted(error.to_string()))
}

/// True if both are one IP address, however it is written.
fn same_address(one: &str, other: &str) -> bool {
    let parse = |text: &str| text.parse::<IpAddr>().ok();
    one == other || parse(one).is_some_and(|address| parse(other) == Some(address))
}

/// Record of the start of a run: of a migration, or of a trial of one.
pub(super) fn started(hosts: &Hosts, verdict: &Verdict, plan: &MovePlan) -> RunStarted {
    let driver = driver::this_process();
    let now = Timestamp::now().strftime("%Y%m%dT%H%M%S");
    // Unique among all machines that write to one ledger, and readable: when, and for which VM.
    let vm = verdict.moved.vm.uuid.as_ref().map(Uuid::as_str).unwrap_or_default();
    let vm: String = vm.chars().take(8).collect();
    RunStarted {
        run: format!("{now}-{vm}-{}", driver.pid),
        vm: verdict.moved.vm.clone(),
        source: verdict.moved.source.clone(),
        destination: verdict.moved.destination.clone(),
        from: hosts.source.uri().to_string(),
        to: hosts.destination.uri().to_string(),
        change: verdict.change.id.clone(),
        change_digest: verdict.digests.change,
        plan: plan.clone(),
        driver,
        monitor: None,
        trial: false,
    }
}

impl Run<'_> {
    fn take_steps(&mut self) -> Result<Option<JobStats>, Halt> {
        self.enter(RunStep::Gate)?;
        self.no_other_job()?;
        self.check_abort()?;
        if let Some(notify) = &self.assignment.plan.notify {
            self.enter(RunStep::Notify)?;
            self.to_undo.guest_notified = true;
            let stop = self.stop;
            match notify::notify_guest(&self.vm, notify, MoveNotice::Before, &|| stop.load(Ordering::Relaxed))
            {
                GuestAnswer::Ready(None) => {}
                GuestAnswer::Ready(Some(note)) => self.journal.note(RunStep::Notify, None, Some(&note)),
                GuestAnswer::Objects(why) => {
                    let why = format!("the guest objects: {why}");
                    return Err(Halt::BeforeMigration { why, exit: ExitCode::NotFinished });
                }
            }
        }
        self.prepare()?;
        self.check_abort()?;
        self.recheck()?;
        self.check_abort()?;
        self.migrate()?;
        self.verify()
    }

    fn no_other_job(&self) -> Result<(), Halt> {
        match self.vm.job() {
            Ok(None) => Ok(()),
            Ok(Some(job)) => Err(Halt::BeforeMigration {
                why: format!(
                    "a job already runs on the VM ({}): wait for that job, or abort it",
                    job.operation.name()
                ),
                exit: ExitCode::RuleViolated,
            }),
            Err(why) => Err(Halt::BeforeMigration { why: why.reason, exit: ExitCode::Internal }),
        }
    }

    fn enter(&mut self, state: RunStep) -> Result<(), LedgerError> {
        self.journal.enter(state, None)?;
        (self.watch)(Event::Entering(state));
        Ok(())
    }

    /// Stops the run between two steps if the operator asked for it.
    fn check_abort(&self) -> Result<(), Halt> {
        if self.stop.load(Ordering::Relaxed) {
            let why = "the move was aborted on request before the migration began".to_owned();
            return Err(Halt::BeforeMigration { why, exit: ExitCode::NotFinished });
        }
        Ok(())
    }

    fn prepare(&mut self) -> Result<(), Halt> {
        if self.assignment.plan.actions.is_empty() {
            return Ok(());
        }
        self.enter(RunStep::Prepare)?;
        for (number, action) in self.assignment.plan.actions.iter().enumerate() {
            self.check_abort()?;
            let failed = |why: String| Halt::BeforeMigration {
                why: format!("the preparation failed: {action}: {why}"),
                exit: ExitCode::NotFinished,
            };
            let preparation = Preparation { run: self.journal.run, vm: &self.vm };
            if !preparation.is_needed(action).map_err(failed)? {
                self.journal.act(RunStep::Prepare, number, ActionState::Needless)?;
                continue;
            }
            self.journal.act(RunStep::Prepare, number, ActionState::Doing)?;
            self.to_undo.actions.insert(number);
            preparation.carry_out(action).map_err(failed)?;
        }
        Ok(())
    }

    /// Collects the facts again, just before the start: the verdict on them must be GO.
    fn recheck(&mut self) -> Result<(), Halt> {
        self.enter(RunStep::Recheck)?;
        self.listening =
            self.assignment.verdict_facts.as_ref().map(|facts| Listening::start(self.hosts, facts));
        let exit = ExitCode::EvidenceMissing;
        let (facts, verdict) = self.assignment.judge.judge_current(self.journal.ledger).map_err(|error| {
            Halt::BeforeMigration {
                why: format!("the facts could not be collected again: {}", with_causes(&error)),
                exit,
            }
        })?;
        self.journal.ledger.append(&Entry::Verdict((&verdict).into()))?;
        let before = self.assignment.pass.verdict();
        permits::cancel_after(&verdict, self.assignment.permits);
        if !verdict.permits_migration(Timestamp::now()) {
            let why = format!("the verdict no longer holds: {}", gate::new_blockers(before, &verdict));
            let exit = match ExitCode::of(&verdict) {
                ExitCode::Go => exit,
                other => other,
            };
            return Err(Halt::BeforeMigration { why, exit });
        }
        let (then, now) = (&before.moved, &verdict.moved);
        if (&then.vm.uuid, &then.source.uuid, &then.destination.uuid)
            != (&now.vm.uuid, &now.source.uuid, &now.destination.uuid)
        {
            let why = "the VM or a host is no longer the one that the verdict is about".to_owned();
            return Err(Halt::BeforeMigration { why, exit: ExitCode::Invalid });
        }
        if let (Some(then), Some(now)) = (&then.migrate_address, &now.migrate_address)
            && !same_address(then, now)
        {
            let why = format!(
                "the migration would now go to the address {now}, but the verdict is about {then}: check again"
            );
            return Err(Halt::BeforeMigration { why, exit: ExitCode::Invalid });
        }
        let baseline = Baseline::of(&self.vm, &facts, self.assignment.verdict_facts.as_ref());
        self.baseline =
            Some(baseline.map_err(|why| Halt::BeforeMigration { why, exit: ExitCode::Internal })?);
        self.facts = Some(facts);
        self.downtime_limit_seconds = verdict.forecast.as_ref().and_then(forecast_limit);
        self.rechecked = Some(verdict);
        Ok(())
    }

    fn migrate(&mut self) -> Result<(), Halt> {
        self.enter(RunStep::Migrate)?;
        self.check_abort()?;
        self.migrates = true;
        if let (None, Some(facts)) = (&self.listening, &self.facts) {
            self.listening = Some(Listening::start(self.hosts, facts));
        }
        // The last step before the migration: no permit waits for a move that is not begun.
        self.permit = self.rechecked.as_ref().and_then(|verdict| self.assignment.permits.grant(verdict));
        let watch = &mut *self.watch;
        let watch = &mut |progress: &Progress| watch(Event::Migrating(progress));
        let (pass, plan) = (&self.assignment.pass, self.assignment.plan);
        let ended = if let Some(door) = self.assignment.door {
            managed_migration::migrate((pass, door), &self.vm, plan, self.stop, watch)
        } else {
            let not_begun = |error: LibvirtError| Halt::Migration { why: error.to_string() };
            migration::migrate(
                pass,
                self.vm.domain().map_err(|why| Halt::Migration { why: why.reason })?,
                &self.hosts.destination.hypervisor().map_err(not_begun)?,
                Guard::new(plan, self.downtime_limit_seconds),
                (plan, self.assignment.migrate_address),
                self.stop,
                watch,
            )
            .map_err(not_begun)?
        };
        let why = match (&ended.result, &ended.abort_reason) {
            (Ok(()), _) => None,
            (Err(_), Some(stopped)) => Some(stopped.clone()),
            (Err(error), None) => Some(error.clone()),
        };
        self.ended = Some(ended);
        why.map_or(Ok(()), |why| Err(Halt::Migration { why }))
    }

    /// Verifies the VM on the destination. Returns libvirt's statistics of the migration.
    fn verify(&mut self) -> Result<Option<JobStats>, Halt> {
        // Verified even if the ledger fails: the VM is on the destination already.
        self.journal.note(RunStep::Verify, None, None);
        (self.watch)(Event::Entering(RunStep::Verify));
        let seen = VmLocation::settle(self.assignment.pass.vm().as_str(), self.hosts);
        if !seen.only_on_destination() {
            return Err(Halt::Migration {
                why: "the migration is reported to be done, but the hosts do not confirm it".to_owned(),
            });
        }
        self.verify_on_destination()
    }

    fn verify_on_destination(&mut self) -> Result<Option<JobStats>, Halt> {
        let arrived = Instant::now();
        let failed = |problem: String| Halt::PostMigration { problem };
        let vm = self.hosts.destination.vm(self.assignment.pass.vm().as_str());
        self.vm = vm.map_err(|error| failed(error.to_string()))?;
        let job_stats = self.vm.completed_job();
        let request = &self.assignment.judge.request;
        let blackout = self.assignment.plan.longest_blackout_seconds;
        // A VM that is cut off for the first problem is not checked for others, which the cut itself would cause.
        let most = if self.isolates() { 1 } else { usize::MAX };
        let problems: Vec<String> = match &self.baseline {
            Some(baseline) => baseline.problems(&self.vm, request, blackout).take(most).collect(),
            None => vec!["its state before the migration was not recorded".to_owned()],
        };
        if let Some(listening) = self.listening.take().filter(|_| problems.is_empty()) {
            let downtime = job_stats.as_ref().and_then(|job_stats| job_stats.downtime).unwrap_or_default();
            self.silences = listening.end(arrived, downtime);
        }
        if problems.is_empty() { Ok(job_stats) } else { Err(failed(problems.join("; "))) }
    }

    /// Ends the run, whatever its result: undoes the preparation, records the end, and returns the result.
    fn finish(mut self, result: Result<Option<JobStats>, Halt>) -> Result<CompletedMove, MoveFailure> {
        match result {
            Ok(job_stats) => self.done(job_stats),
            Err(Halt::BeforeMigration { why, exit }) => {
                self.journal.note(RunStep::Abort, None, Some(&why));
                self.stayed(why, exit)
            }
            Err(Halt::PostMigration { problem }) => self.fail_after_migration(problem),
            Err(Halt::Migration { why }) => {
                let vm = self.assignment.pass.vm().as_str();
                // A manager clears up behind its own migration, which may still go on.
                let seen = if self.migrates && self.assignment.door.is_none() {
                    resolve::settle(vm, self.hosts)
                } else {
                    VmLocation::settle(vm, self.hosts)
                };
                let is_open = self.ended.as_ref().is_some_and(|ended| ended.is_open);
                if seen.only_on_source() && !is_open {
                    self.journal.note(RunStep::Abort, None, Some(&why));
                    let aborted = self.ended.as_ref().is_some_and(|ended| ended.abort_reason.is_some());
                    self.record_migration(
                        None,
                        if aborted { MigrationOutcome::Aborted } else { MigrationOutcome::Failed },
                    );
                    return self.stayed(why, ExitCode::NotFinished);
                }
                if seen.only_on_destination() {
                    // The call failed after the switchover: what counts is that the VM runs once, on the destination.
                    tracing::warn!(
                        "the migration ended with an error ({why}), but the VM runs on {}",
                        self.hosts.destination.name()
                    );
                    return match self.verify_on_destination() {
                        Ok(job_stats) => self.done(job_stats),
                        Err(
                            Halt::PostMigration { problem }
                            | Halt::Migration { why: problem }
                            | Halt::BeforeMigration { why: problem, .. },
                        ) => self.fail_after_migration(problem),
                    };
                }
                self.unclear(why, seen)
            }
        }
    }

    fn done(&mut self, job_stats: Option<JobStats>) -> Result<CompletedMove, MoveFailure> {
        let destination = self.hosts.destination.name().to_owned();
        self.record_migration(job_stats.as_ref(), MigrationOutcome::Completed);
        let left = self.to_undo.undo(&self.journal, &self.vm, MoveNotice::After);
        if !left.is_empty() {
            self.journal.note(RunStep::Fail, None, Some(&left.join("; ")));
            return Err(MoveFailure::NotRestored {
                host: destination,
                why: "the migration is done".to_owned(),
                left,
            });
        }
        let question = DoorQuestion::about(&self.assignment.pass.verdict().moved);
        let difference = self.assignment.door.and_then(|door| {
            managed_migration::difference_of_record(door, &question, question.destination.label())
        });
        if let Some(difference) = difference {
            self.journal.end(
                RunEnding::Done,
                ExitCode::OperatorNeeded,
                Some(&destination),
                Some(&difference),
            );
            return Err(MoveFailure::RecordDiffers { host: destination, difference });
        }
        self.journal.end(RunEnding::Done, ExitCode::Go, Some(&destination), None);
        Ok(CompletedMove {
            run: self.journal.run.run.clone(),
            duration: self.began.elapsed(),
            job_stats,
            silences: std::mem::take(&mut self.silences),
        })
    }

    fn stayed(&mut self, why: String, exit: ExitCode) -> Result<CompletedMove, MoveFailure> {
        let host = self.hosts.source.name().to_owned();
        // A connection that broke on the way is made anew.
        if let Ok(vm) = self.hosts.source.vm(self.assignment.pass.vm().as_str()) {
            self.vm = vm;
        }
        let left = self.to_undo.undo(&self.journal, &self.vm, MoveNotice::Stayed);
        if !left.is_empty() {
            return Err(MoveFailure::NotRestored { host, why, left });
        }
        self.journal.end(RunEnding::Aborted, exit, Some(&host), Some(&why));
        Err(MoveFailure::Stayed { why, host, exit })
    }

    /// Leaves the run open, so that no other move of the VM begins and a recovery can finish it.
    fn unclear(&mut self, why: String, vm_location: VmLocation) -> Result<CompletedMove, MoveFailure> {
        self.journal.note(RunStep::Fail, None, Some(&format!("{why}; {vm_location}")));
        self.record_migration(None, MigrationOutcome::Failed);
        Err(MoveFailure::Unclear { why, vm_location })
    }
}

/// The downtime limit that a forecast was computed with; `None` if the forecast assumed one.
fn forecast_limit(forecast: &Forecast) -> Option<f64> {
    let replayed = *forecast.method.known()? != ForecastMethod::Assumed;
    forecast.downtime_limit_seconds.known().copied().filter(|_| replayed)
}

#[cfg(test)]
mod tests {
    use vmgate_facts::Fact;

    use super::*;

    #[test]
    fn a_limit_that_was_only_assumed_is_no_choice_of_the_forecast() {
        let forecast = |method| Forecast {
            method: Fact::Known(method),
            downtime_limit_seconds: Fact::Known(0.2),
            ..Forecast::default()
        };
        assert_eq!(forecast_limit(&forecast(ForecastMethod::Replay)), Some(0.2));
        assert_eq!(forecast_limit(&forecast(ForecastMethod::ReplayOfWindows)), Some(0.2));
        assert_eq!(forecast_limit(&forecast(ForecastMethod::Assumed)), None);
        assert_eq!(forecast_limit(&Forecast::default()), None);
    }

    #[test]
    fn a_verdict_for_one_mover_lets_no_other_move_the_vm() {
        assert!(check_manager(None, None).is_ok() && check_manager(Some("nova"), Some("nova")).is_ok());
        for (judged, runs) in [(Some("nova"), None), (None, Some("nova")), (Some("nova"), Some("ovirt"))] {
            let refused = check_manager(judged, runs).unwrap_err().to_string();
            assert!(refused.contains("nova"), "{refused}");
        }
    }

    #[test]
    fn an_address_is_the_same_however_it_is_written() {
        assert!(same_address("fd00:0:0::2", "fd00::2"));
        assert!(same_address("hv2-mig", "hv2-mig"));
        assert!(!same_address("10.0.0.1", "10.0.0.2"));
        assert!(!same_address("hv2-mig", "10.0.0.2"));
    }
}
