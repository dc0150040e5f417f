//! One move, step by step: gate, notify, prepare, recheck, migrate, verify, restore. Each step is in the ledger before it
//! is taken, and every way out leads over the restore.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use super::{
    Assignment, Done, Event, Hosts, Undone, Whereabouts, driver, gate,
    guard::Guard,
    journal::Journal,
    migration::{self, Over},
    notify::{self, Answer, News},
    prepare::Preparation,
    resolve,
    restore::ToUndo,
    verify::Baseline,
};
use vmgate_facts::text::with_causes;
use vmgate_facts::{Facts, Forecast, ForecastMethod};
use vmgate_ledger::{
    Entry, Ledger, LedgerError,
    entry::{Ending, Mark, Outcome, RunStarted, State},
};
use vmgate_libvirt::{Domain, JobStats};
use vmgate_verdict::ExitCode;

/// Why a run does not go on.
enum Halt {
    /// Before the migration: the VM was not touched.
    Before { why: String, exit: ExitCode },
    /// In or after it: the hosts tell where the VM is.
    Migration { why: String },
    /// The VM runs on the destination and something is wrong with it.
    Suffers { trouble: String },
}

impl From<LedgerError> for Halt {
    fn from(error: LedgerError) -> Self {
        Self::Before {
            why: format!("{error}. A step that cannot be written down is not taken"),
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
    pub(super) domain: Domain,
    pub(super) to_undo: ToUndo,
    baseline: Option<Baseline>,
    pub(super) facts: Option<Facts>,
    pub(super) over: Option<Over>,
    /// The downtime limit that the forecast of the recheck rests on.
    downtime_limit_seconds: Option<f64>,
    /// Whether it came to the migration: only then is anything at the hosts its own.
    migrates: bool,
    began: Instant,
}

/// Carries a move out.
pub(super) fn carry_out(
    hosts: &Hosts,
    assignment: &Assignment,
    ledger: &Ledger,
    stop: &AtomicBool,
    watch: &mut dyn FnMut(Event),
) -> Result<Done, Undone> {
    let domain = hold_against(hosts, assignment)?;
    let started = started(hosts, assignment);
    ledger.begin(&started, &assignment.limits).map_err(|error| match error {
        LedgerError::Refused(refusal) => Undone::Busy(*refusal),
        other => Undone::NotStarted(other.to_string()),
    })?;
    let mut run = Run {
        hosts,
        assignment,
        journal: Journal { ledger, run: &started, recovers: false },
        stop,
        watch,
        domain,
        to_undo: ToUndo::default(),
        baseline: None,
        facts: None,
        over: None,
        downtime_limit_seconds: None,
        migrates: false,
        began: Instant::now(),
    };
    let went = catch_unwind(AssertUnwindSafe(|| run.forward())).unwrap_or_else(|panic| Err(defect(&*panic)));
    run.finish(went)
}

/// A defect of vmgate's own: where the VM is must be asked, whatever step it came in.
fn defect(panic: &(dyn Any + Send)) -> Halt {
    let words = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    let words = words.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    Halt::Migration { why: format!("vmgate itself failed ({words})") }
}

/// Makes sure that VM and hosts are those the verdict was about.
fn hold_against(hosts: &Hosts, assignment: &Assignment) -> Result<Domain, Undone> {
    let moved = &assignment.pass.verdict().moved;
    for (host, meant) in [(&hosts.source, &moved.source), (&hosts.destination, &moved.destination)] {
        let uuid = host.uuid().map_err(Undone::NotStarted)?;
        if Some(&uuid) != meant.uuid.as_ref() {
            let meant = meant.uuid.as_deref().unwrap_or_default();
            let name = host.name();
            return Err(Undone::NotStarted(format!(
                "host {name} has the UUID {uuid}, but the verdict is about host {meant}"
            )));
        }
    }
    let not_started = |error: vmgate_libvirt::LibvirtError| Undone::NotStarted(error.to_string());
    hosts.source.domain(assignment.pass.vm()).map_err(not_started)
}

fn started(hosts: &Hosts, assignment: &Assignment) -> RunStarted {
    let verdict = assignment.pass.verdict();
    let driver = driver::myself();
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S");
    // Unique among all machines that write to one ledger, and readable: when, and for which VM.
    let vm: String = assignment.pass.vm().chars().take(8).collect();
    RunStarted {
        run: format!("{now}-{vm}-{}", driver.pid),
        vm: verdict.moved.vm.clone(),
        source: verdict.moved.source.clone(),
        destination: verdict.moved.destination.clone(),
        from: hosts.source.uri().to_string(),
        to: hosts.destination.uri().to_string(),
        change: verdict.change.id.clone(),
        change_digest: verdict.digests.change,
        plan: assignment.plan.clone(),
        driver,
    }
}

impl Run<'_> {
    fn forward(&mut self) -> Result<Option<JobStats>, Halt> {
        self.enter(State::Gate)?;
        self.nothing_else_at_work()?;
        self.go_on()?;
        if let Some(notify) = &self.assignment.plan.notify {
            self.enter(State::Notify)?;
            self.to_undo.told = true;
            let stop = self.stop;
            match notify::tell(&self.domain, notify, News::Before, &|| stop.load(Ordering::Relaxed)) {
                Answer::Ready(None) => {}
                Answer::Ready(Some(note)) => self.journal.note(State::Notify, None, Some(&note)),
                Answer::Objects(why) => {
                    let why = format!("the guest objects: {why}");
                    return Err(Halt::Before { why, exit: ExitCode::NotFinished });
                }
            }
        }
        self.prepare()?;
        self.go_on()?;
        self.recheck()?;
        self.go_on()?;
        self.migrate()?;
        self.verify()
    }

    fn nothing_else_at_work(&self) -> Result<(), Halt> {
        match self.domain.job_info() {
            Ok(None) => Ok(()),
            Ok(Some(job)) => Err(Halt::Before {
                why: format!("libvirt runs a job on it ({}): wait for it, or abort it", job.operation.name()),
                exit: ExitCode::RuleViolated,
            }),
            Err(error) => Err(Halt::Before { why: error.to_string(), exit: ExitCode::Internal }),
        }
    }

    fn enter(&mut self, state: State) -> Result<(), LedgerError> {
        self.journal.enter(state, None)?;
        (self.watch)(Event::Entering(state));
        Ok(())
    }

    /// Between two steps: whether the operator wants to stop.
    fn go_on(&self) -> Result<(), Halt> {
        if self.stop.load(Ordering::Relaxed) {
            let why = "it was aborted on request before the migration began".to_owned();
            return Err(Halt::Before { why, exit: ExitCode::NotFinished });
        }
        Ok(())
    }

    fn prepare(&mut self) -> Result<(), Halt> {
        if self.assignment.plan.actions.is_empty() {
            return Ok(());
        }
        self.enter(State::Prepare)?;
        for (number, action) in self.assignment.plan.actions.iter().enumerate() {
            self.go_on()?;
            let failed = |why: String| Halt::Before {
                why: format!("the preparation failed: {action}: {why}"),
                exit: ExitCode::NotFinished,
            };
            let preparation = Preparation { run: self.journal.run, domain: &self.domain };
            if !preparation.is_needed(action).map_err(failed)? {
                self.journal.act(State::Prepare, number, Mark::Needless)?;
                continue;
            }
            self.journal.act(State::Prepare, number, Mark::Doing)?;
            self.to_undo.actions.insert(number);
            preparation.carry_out(action).map_err(failed)?;
        }
        Ok(())
    }

    /// Takes the facts again, just before the start: they must still be GO.
    fn recheck(&mut self) -> Result<(), Halt> {
        self.enter(State::Recheck)?;
        let exit = ExitCode::EvidenceMissing;
        let (facts, verdict) = self.assignment.judge.as_it_is(self.journal.ledger).map_err(|error| {
            Halt::Before { why: format!("the facts could not be taken again: {}", with_causes(&error)), exit }
        })?;
        self.journal.ledger.append(&Entry::Verdict((&verdict).into()))?;
        let before = self.assignment.pass.verdict();
        if !verdict.permits_migration(self.assignment.judge.now()) {
            let why = format!("the verdict no longer holds: {}", gate::what_changed(before, &verdict));
            let exit = match ExitCode::of(&verdict) {
                ExitCode::Go => exit,
                other => other,
            };
            return Err(Halt::Before { why, exit });
        }
        let (then, now) = (&before.moved, &verdict.moved);
        if (&then.vm.uuid, &then.source.uuid, &then.destination.uuid)
            != (&now.vm.uuid, &now.source.uuid, &now.destination.uuid)
        {
            let why = "VM and hosts are no longer those that the verdict is about".to_owned();
            return Err(Halt::Before { why, exit: ExitCode::Invalid });
        }
        let baseline = Baseline::of(&self.domain, &facts, self.assignment.earlier.as_ref());
        self.baseline = Some(baseline.map_err(|why| Halt::Before { why, exit: ExitCode::Internal })?);
        self.facts = Some(facts);
        self.downtime_limit_seconds = verdict.forecast.as_ref().and_then(chosen_limit);
        Ok(())
    }

    fn migrate(&mut self) -> Result<(), Halt> {
        self.enter(State::Migrate)?;
        self.go_on()?;
        self.migrates = true;
        let not_begun = |error: vmgate_libvirt::LibvirtError| Halt::Migration { why: error.to_string() };
        let destination = self.hosts.destination.hypervisor().map_err(not_begun)?;
        let watch = &mut *self.watch;
        let over = migration::migrate(
            &self.assignment.pass,
            &self.domain,
            &destination,
            Guard::new(self.assignment.plan, self.downtime_limit_seconds),
            (self.assignment.plan, self.assignment.migrate_address),
            self.stop,
            &mut |progress| watch(Event::Migrating(progress)),
        )
        .map_err(not_begun)?;
        let why = match (&over.result, &over.stopped) {
            (Ok(()), _) => None,
            (Err(_), Some(stopped)) => Some(stopped.clone()),
            (Err(error), None) => Some(error.to_string()),
        };
        self.over = Some(over);
        why.map_or(Ok(()), |why| Err(Halt::Migration { why }))
    }

    /// Looks at the VM on the destination. Gives libvirt's account of the migration.
    fn verify(&mut self) -> Result<Option<JobStats>, Halt> {
        // What cannot be written down is looked at all the same: the VM is there already.
        self.journal.note(State::Verify, None, None);
        (self.watch)(Event::Entering(State::Verify));
        let seen = Whereabouts::settle(self.assignment.pass.vm(), self.hosts);
        if !seen.only_on_destination() {
            return Err(Halt::Migration { why: "libvirt says that the migration is done".to_owned() });
        }
        self.look_at_destination()
    }

    fn look_at_destination(&mut self) -> Result<Option<JobStats>, Halt> {
        let suffers = |trouble: String| Halt::Suffers { trouble };
        let domain = self.hosts.destination.domain(self.assignment.pass.vm());
        self.domain = domain.map_err(|error| suffers(error.to_string()))?;
        let account = self.domain.completed_job().ok().flatten();
        let request = &self.assignment.judge.request;
        let blackout = self.assignment.plan.longest_blackout_seconds;
        // What is cut off for the first trouble is not asked for others, which the cut itself would cause.
        let most = if self.isolates() { 1 } else { usize::MAX };
        let troubles: Vec<String> = match &self.baseline {
            Some(baseline) => baseline.troubles(&self.domain, request, blackout).take(most).collect(),
            None => vec!["nothing was noted of it before".to_owned()],
        };
        if troubles.is_empty() { Ok(account) } else { Err(suffers(troubles.join("; "))) }
    }

    /// Every way out: undoes what was prepared, writes down how it ended, and says so.
    fn finish(mut self, went: Result<Option<JobStats>, Halt>) -> Result<Done, Undone> {
        match went {
            Ok(account) => self.done(account),
            Err(Halt::Before { why, exit }) => {
                self.journal.note(State::Abort, None, Some(&why));
                self.stayed(why, exit)
            }
            Err(Halt::Suffers { trouble }) => self.suffers(trouble),
            Err(Halt::Migration { why }) => {
                let vm = self.assignment.pass.vm();
                let seen = if self.migrates {
                    resolve::settle(vm, self.hosts)
                } else {
                    Whereabouts::settle(vm, self.hosts)
                };
                if seen.only_on_source() {
                    self.journal.note(State::Abort, None, Some(&why));
                    let aborted = self.over.as_ref().is_some_and(|over| over.stopped.is_some());
                    self.account_for(None, if aborted { Outcome::Aborted } else { Outcome::Failed });
                    return self.stayed(why, ExitCode::NotFinished);
                }
                if seen.only_on_destination() {
                    // The call failed after the hand-over: what counts is that it runs, once, and there.
                    tracing::warn!("{why}; all the same the VM runs on {}", self.hosts.destination.name());
                    return match self.look_at_destination() {
                        Ok(account) => self.done(account),
                        Err(
                            Halt::Suffers { trouble }
                            | Halt::Migration { why: trouble }
                            | Halt::Before { why: trouble, .. },
                        ) => self.suffers(trouble),
                    };
                }
                self.unclear(why, seen)
            }
        }
    }

    fn done(&mut self, account: Option<JobStats>) -> Result<Done, Undone> {
        let destination = self.hosts.destination.name().to_owned();
        self.account_for(account.as_ref(), Outcome::Completed);
        let left = self.to_undo.undo(&self.journal, &self.domain, News::After);
        if !left.is_empty() {
            self.journal.note(State::Fail, None, Some(&left.join("; ")));
            return Err(Undone::NotRestored {
                host: destination,
                why: "the migration is done".to_owned(),
                left,
            });
        }
        self.journal.end(Ending::Done, ExitCode::Go, Some(&destination), None);
        Ok(Done { run: self.journal.run.run.clone(), took: self.began.elapsed(), account })
    }

    fn stayed(&mut self, why: String, exit: ExitCode) -> Result<Done, Undone> {
        let host = self.hosts.source.name().to_owned();
        // A connection that broke on the way is made anew.
        if let Ok(domain) = self.hosts.source.domain(self.assignment.pass.vm()) {
            self.domain = domain;
        }
        let left = self.to_undo.undo(&self.journal, &self.domain, News::Stayed);
        if !left.is_empty() {
            return Err(Undone::NotRestored { host, why, left });
        }
        self.journal.end(Ending::Aborted, exit, Some(&host), Some(&why));
        Err(Undone::Stayed { why, host, exit })
    }

    /// The run stays open, so that nobody else touches the VM, and a recovery can finish it.
    fn unclear(&mut self, why: String, whereabouts: Whereabouts) -> Result<Done, Undone> {
        self.journal.note(State::Fail, None, Some(&format!("{why}; {whereabouts}")));
        self.account_for(None, Outcome::Failed);
        Err(Undone::Unclear { why, whereabouts })
    }
}

/// The downtime limit that a forecast rests on; none where it assumed one.
fn chosen_limit(forecast: &Forecast) -> Option<f64> {
    let replayed = *forecast.method.known()? != ForecastMethod::Assumed;
    forecast.downtime_limit_seconds.known().copied().filter(|_| replayed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmgate_facts::Fact;

    #[test]
    fn a_limit_that_was_only_assumed_is_no_choice_of_the_forecast() {
        let forecast = |method| Forecast {
            method: Fact::Known(method),
            downtime_limit_seconds: Fact::Known(0.2),
            ..Forecast::default()
        };
        assert_eq!(chosen_limit(&forecast(ForecastMethod::Replay)), Some(0.2));
        assert_eq!(chosen_limit(&forecast(ForecastMethod::ReplayOfWindows)), Some(0.2));
        assert_eq!(chosen_limit(&forecast(ForecastMethod::Assumed)), None);
        assert_eq!(chosen_limit(&Forecast::default()), None);
    }
}
