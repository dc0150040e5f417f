//! Runner of a campaign: claims moves, executes them concurrently, and writes heartbeats meanwhile.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use jiff::Timestamp;
use thiserror::Error;
use vmgate_judge::change::ChangeFile;
use vmgate_ledger::{
    Campaign, Entry, Expulsion, Ledger, LedgerError,
    campaign::{CampaignEvent, ClaimResult},
    entry::Driver,
};

use super::{CampaignEnd, CampaignState, Lease, NextStep, next::RunnerContext, opened, uptime_seconds};

/// Default time between two reads of the campaign while nothing can begin.
const LOOK: Duration = Duration::from_millis(500);

/// Executes the moves of a change. The [`Runner`] decides on claims and on new attempts.
pub trait Mover: Sync {
    /// Executes the move with this index. `stop` asks for an abort. `after_seconds` of the result is ignored.
    fn make(&self, at: usize, stop: &AtomicBool) -> ClaimResult;

    /// Finishes a move that another runner left behind.
    fn take_over(&self, at: usize) -> ClaimResult;

    /// Checks the hosts that a wave waits for; the error says what is missing.
    fn wave_ready(&self, wave: usize) -> Result<(), String>;
}

/// Settings of a runner.
#[derive(Debug, Clone, Copy)]
pub struct RunnerSettings {
    /// Concurrent moves of this runner.
    pub jobs: usize,
    /// Number of attempts for a move.
    pub attempts: u32,
    /// Longest silence before others take its moves over, in seconds.
    pub lease_seconds: f64,
    /// Time before the second attempt of a move; twice that before the third, and so on, in seconds.
    pub backoff_seconds: f64,
    /// Time between two reads of the campaign while nothing can begin.
    pub look: Duration,
}

impl Default for RunnerSettings {
    fn default() -> Self {
        Self { jobs: 4, attempts: 3, lease_seconds: 60.0, backoff_seconds: 30.0, look: LOOK }
    }
}

/// Runner of one campaign.
pub struct Runner<'a> {
    /// The ledger, as [`Ledger::for_runner`] gives it for `name`.
    pub ledger: &'a Ledger,
    /// The change.
    pub change: &'a ChangeFile,
    /// Executes the moves.
    pub mover: &'a dyn Mover,
    /// Unique name: no other runner ever has it.
    pub name: String,
    /// Process of the runner.
    pub driver: Driver,
    /// Settings of the runner.
    pub settings: RunnerSettings,
    /// Set to let the moves under way finish and begin no other.
    pub drain: Arc<AtomicBool>,
    /// Set to abort the moves; also set when the lease is lost.
    pub stop: Arc<AtomicBool>,
    /// Called with each message on the runner's progress.
    pub on_progress: &'a (dyn Fn(&str) + Sync),
}

/// Counts a move as running until it is dropped.
struct Underway<'a>(&'a AtomicUsize);

impl<'a> Underway<'a> {
    fn begin(running: &'a AtomicUsize) -> Self {
        running.fetch_add(1, Ordering::SeqCst);
        Self(running)
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Result of a runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSummary {
    /// End of the campaign; `None` if the runner was asked to end.
    pub ending: Option<CampaignEnd>,
}

/// Error that ends a runner.
#[derive(Debug, Error)]
pub enum RunnerError {
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The runner could not write its heartbeat for too long.
    #[error(
        "this runner could not write to the ledger for half of its lease, so it has aborted its moves and other runners take \
         them over: check the machine of the ledger, then start the runner again"
    )]
    LeaseLost,
}

impl Runner<'_> {
    /// Works on the campaign until nothing is left to do; opens the campaign if no other runner has.
    pub fn run(&self) -> Result<RunSummary, RunnerError> {
        let mut state = CampaignState::new(&self.change.digest.to_string());
        self.join(&mut state)?;
        let lease = Lease::new(self.settings.lease_seconds, Arc::clone(&self.stop));
        let over = AtomicBool::new(false);
        let running = AtomicUsize::new(0);
        let failed: Mutex<Option<LedgerError>> = Mutex::new(None);
        let ending = thread::scope(|scope| {
            scope.spawn(|| self.beat(&lease, &over));
            scope.spawn(|| Self::watch(&lease, &over));
            let ending = loop {
                let has_failed = failed.lock().unwrap_or_else(PoisonError::into_inner).is_some();
                if self.drain.load(Ordering::Relaxed) || !lease.holds() || has_failed {
                    break Ok(None);
                }
                if running.load(Ordering::SeqCst) >= self.settings.jobs {
                    thread::sleep(self.settings.look / 10);
                    continue;
                }
                let (choice, token) = match self.choose(&mut state) {
                    Ok(chosen) => chosen,
                    // The claim may be stored. Only if this runner ends and is expelled does another one take the move over.
                    Err(error @ LedgerError::Unconfirmed { .. }) => break Err(error),
                    Err(error) if error.is_temporary() => {
                        (self.on_progress)(&error.to_string());
                        self.wait();
                        continue;
                    }
                    Err(error) => break Err(error),
                };
                match choice {
                    NextStep::Take(at) | NextStep::TakeOver(at) => {
                        let (underway, failed, lease) = (Underway::begin(&running), &failed, &lease);
                        let attempt = state.tasks.get(at).map_or(1, |task| task.attempts);
                        let takes_over = matches!(choice, NextStep::TakeOver(_));
                        scope.spawn(move || {
                            let _underway = underway;
                            if let Err(error) = self.carry_out(at, token, attempt, takes_over, lease) {
                                *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                            }
                        });
                    }
                    NextStep::Expel(..) => {}
                    NextStep::OpenWave(wave) => match self.mover.wave_ready(wave) {
                        Ok(()) => {
                            let by = self.name.clone();
                            if let Err(error) = self.write(CampaignEvent::WaveOpened { wave, by }) {
                                break Err(error);
                            }
                        }
                        Err(why) => {
                            (self.on_progress)(&why);
                            self.wait();
                        }
                    },
                    NextStep::Wait(why) => {
                        (self.on_progress)(&why);
                        self.wait();
                    }
                    NextStep::End(ending) if running.load(Ordering::SeqCst) == 0 => break Ok(Some(ending)),
                    NextStep::End(_) => self.wait(),
                }
            };
            while running.load(Ordering::SeqCst) > 0 {
                thread::sleep(self.settings.look / 10);
            }
            over.store(true, Ordering::SeqCst);
            ending
        });
        let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        if matches!(failed, Some(LedgerError::Expelled))
            || !lease.holds() && !self.drain.load(Ordering::Relaxed)
        {
            return Err(RunnerError::LeaseLost);
        }
        let ending = ending?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        self.write(CampaignEvent::Left { runner: self.name.clone() })?;
        Ok(RunSummary { ending })
    }

    /// Opens the campaign if nobody has, and writes the first heartbeat.
    fn join(&self, state: &mut CampaignState) -> Result<(), LedgerError> {
        self.ledger.decide(&state.clone().unread(), |records| {
            state.read(records, uptime_seconds());
            let entry = (!state.is_open()).then(|| self.entry(opened(self.change)));
            Ok(((), entry))
        })?;
        self.write(self.beat_event())?;
        Ok(())
    }

    /// Chooses the next step. A claim is written in the transaction that chooses it; the record's number is the token.
    fn choose(&self, state: &mut CampaignState) -> Result<(NextStep, u64), LedgerError> {
        state.read(&self.ledger.records(&state.unread())?, uptime_seconds());
        let seen = state.next(&self.terms());
        if !matches!(seen, NextStep::Take(_) | NextStep::TakeOver(_) | NextStep::Expel(..)) {
            return Ok((seen, 0));
        }
        let selection = state.unread();
        let (choice, record) = self.ledger.decide(&selection, |records| {
            state.read(records, uptime_seconds());
            let choice = state.next(&self.terms());
            let entry = match &choice {
                NextStep::Take(at) | NextStep::TakeOver(at) => {
                    Some(self.entry(CampaignEvent::Claimed { runner: self.name.clone(), at: *at }))
                }
                NextStep::Expel(runner, silent_seconds) => Some(Entry::Expulsion(Expulsion {
                    campaign: state.campaign.clone(),
                    runner: runner.clone(),
                    by: self.name.clone(),
                    silent_seconds: *silent_seconds,
                })),
                _ => None,
            };
            Ok((choice, entry))
        })?;
        let token = record.as_ref().map_or(0, |record| record.sequence);
        state.read(record.as_slice(), uptime_seconds());
        Ok((choice, token))
    }

    fn terms(&self) -> RunnerContext<'_> {
        RunnerContext {
            runner: &self.name,
            now: Timestamp::now(),
            uptime_seconds: uptime_seconds(),
            lease_seconds: self.settings.lease_seconds,
            limits: self.change.limits,
            at_once: self.change.at_once,
        }
    }

    fn carry_out(
        &self,
        at: usize,
        token: u64,
        attempt: u32,
        takes_over: bool,
        lease: &Lease,
    ) -> Result<(), LedgerError> {
        let how = if takes_over { self.mover.take_over(at) } else { self.mover.make(at, &self.stop) };
        let how = match how {
            ClaimResult::Again { why, exit, .. } if attempt >= self.settings.attempts => {
                ClaimResult::Failed { why: format!("{why} (tried {attempt} times)"), exit }
            }
            ClaimResult::Again { why, exit, .. } => {
                let doubled = f64::from(1_u32 << attempt.saturating_sub(1).min(10));
                ClaimResult::Again { why, exit, after_seconds: self.settings.backoff_seconds * doubled }
            }
            other => other,
        };
        let vm = self.change.moves.get(at).map_or("?", |planned| planned.vm.as_str());
        (self.on_progress)(&format!("{vm} {how}"));
        // A claim ends only once, however often its end is written.
        loop {
            match self.write(CampaignEvent::Released { at, token, how: how.clone() }) {
                Err(error) if error.is_temporary() && lease.holds() => self.wait(),
                done => return done,
            }
        }
    }

    /// Detects a lost lease within 100 ms: after the process was stopped, or while the ledger does not answer.
    fn watch(lease: &Lease, over: &AtomicBool) {
        while !over.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(100));
            lease.holds();
        }
    }

    /// Writes heartbeats until the runner ends or the lease is lost.
    fn beat(&self, lease: &Lease, over: &AtomicBool) {
        let every = Duration::from_secs_f64(self.settings.lease_seconds / 6.0);
        let mut waited = Duration::ZERO;
        while !over.load(Ordering::SeqCst) {
            let step = every.min(Duration::from_millis(100));
            thread::sleep(step);
            waited += step;
            if waited < every {
                continue;
            }
            waited = Duration::ZERO;
            let began = uptime_seconds();
            match self.write(self.beat_event()) {
                Ok(()) => lease.renew(began),
                Err(LedgerError::Expelled) => lease.lose(),
                Err(error) => {
                    tracing::warn!("this runner could not write its heartbeat to the ledger: {error}");
                }
            }
        }
    }

    fn beat_event(&self) -> CampaignEvent {
        CampaignEvent::Beat { runner: self.name.clone(), driver: self.driver.clone() }
    }

    fn entry(&self, event: CampaignEvent) -> Entry {
        Entry::Campaign(Campaign { campaign: self.change.digest.to_string(), event })
    }

    fn write(&self, event: CampaignEvent) -> Result<(), LedgerError> {
        self.ledger.append(&self.entry(event)).map(drop)
    }

    fn wait(&self) {
        thread::sleep(self.settings.look);
    }
}
