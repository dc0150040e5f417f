//! A runner: claims moves, makes them side by side, and says meanwhile that it is at work.

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

use super::{Choice, Ending, Lease, State, next::Terms, opened, uptime_seconds};
use vmgate_judge::change::ChangeFile;
use vmgate_ledger::{
    Campaign, Entry, Expulsion, Ledger, LedgerError,
    campaign::{Event, Released},
    entry::Driver,
};

/// Time between two looks at the campaign while nothing can begin.
const LOOK: Duration = Duration::from_millis(500);

/// Makes the moves of a change. What a claim is worth is decided above it, and so is when to try again.
pub trait Mover: Sync {
    /// Makes a move. `stop` asks it to abort. When to try again is not its business.
    fn make(&self, at: usize, stop: &AtomicBool) -> Released;

    /// Looks how far another runner came with a move, and ends what it left behind.
    fn take_over(&self, at: usize) -> Released;

    /// Whether the hosts that a wave waits for are ready; else what is missing.
    fn wave_ready(&self, wave: usize) -> Result<(), String>;
}

/// How a runner works.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Moves that it makes at once.
    pub jobs: usize,
    /// How often a move is tried.
    pub attempts: u32,
    /// How long it may be silent before others take its moves over, seconds.
    pub lease_seconds: f64,
    /// Time before a move is tried a second time; twice that before the third, and so on, seconds.
    pub backoff_seconds: f64,
    /// Time between two looks at the campaign while nothing can begin.
    pub look: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { jobs: 4, attempts: 3, lease_seconds: 60.0, backoff_seconds: 30.0, look: LOOK }
    }
}

/// A runner of one campaign.
pub struct Runner<'a> {
    /// The ledger, as [`Ledger::of_runner`] gives it for `name`.
    pub ledger: &'a Ledger,
    /// The change.
    pub change: &'a ChangeFile,
    /// Who makes the moves.
    pub mover: &'a dyn Mover,
    /// What it is called: no other runner ever was.
    pub name: String,
    /// Its process.
    pub driver: Driver,
    /// How it works.
    pub settings: Settings,
    /// Asks it to begin no other move.
    pub drain: Arc<AtomicBool>,
    /// Asks it to abort its moves; set as well when the lease is lost.
    pub stop: Arc<AtomicBool>,
    /// Is told what it does.
    pub tell: &'a (dyn Fn(&str) + Sync),
}

/// A move under way, counted until it is over, whichever way.
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

/// What a runner did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Why it ended; none where it was asked to.
    pub ending: Option<Ending>,
}

/// Why a runner could not go on.
#[derive(Debug, Error)]
pub enum RunnerError {
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// It could not say for too long that it is at work.
    #[error(
        "this runner could not write to the ledger for half of its lease and has aborted what it had under way: others take \
         its moves over; look at the ledger's machine, and run it again"
    )]
    LeaseLost,
}

impl Runner<'_> {
    /// Takes part in the campaign, and begins it where nobody has, until nothing is left to do.
    pub fn run(&self) -> Result<Summary, RunnerError> {
        let mut state = State::new(&self.change.digest.to_string());
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
                    // What may have been claimed has nobody who carries it out, unless this runner is given up.
                    Err(error @ LedgerError::Unanswered { .. }) => break Err(error),
                    Err(error) if error.passes() => {
                        (self.tell)(&error.to_string());
                        self.wait();
                        continue;
                    }
                    Err(error) => break Err(error),
                };
                match choice {
                    Choice::Take(at) | Choice::TakeOver(at) => {
                        let (underway, failed, lease) = (Underway::begin(&running), &failed, &lease);
                        let attempt = state.tasks.get(at).map_or(1, |task| task.attempts);
                        let takes_over = matches!(choice, Choice::TakeOver(_));
                        scope.spawn(move || {
                            let _underway = underway;
                            if let Err(error) = self.carry_out(at, token, attempt, takes_over, lease) {
                                *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                            }
                        });
                    }
                    Choice::Expel(..) => {}
                    Choice::OpenWave(wave) => match self.mover.wave_ready(wave) {
                        Ok(()) => {
                            let by = self.name.clone();
                            if let Err(error) = self.write(Event::WaveOpened { wave, by }) {
                                break Err(error);
                            }
                        }
                        Err(why) => {
                            (self.tell)(&why);
                            self.wait();
                        }
                    },
                    Choice::Wait(why) => {
                        (self.tell)(&why);
                        self.wait();
                    }
                    Choice::Over(ending) if running.load(Ordering::SeqCst) == 0 => break Ok(Some(ending)),
                    Choice::Over(_) => self.wait(),
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
        self.write(Event::Left { runner: self.name.clone() })?;
        Ok(Summary { ending })
    }

    /// Opens the campaign where nobody has, and says that this runner is there.
    fn join(&self, state: &mut State) -> Result<(), LedgerError> {
        self.ledger.decide(&state.clone().unread(), |records| {
            state.read(records, uptime_seconds());
            let entry = (!state.is_open()).then(|| self.entry(opened(self.change)));
            Ok(((), entry))
        })?;
        self.write(self.beat_event())?;
        Ok(())
    }

    /// Chooses what to do next. What is claimed is written in the transaction that chooses it, and its number is the token.
    fn choose(&self, state: &mut State) -> Result<(Choice, u64), LedgerError> {
        state.read(&self.ledger.records(&state.unread())?, uptime_seconds());
        let seen = state.next(&self.terms());
        if !matches!(seen, Choice::Take(_) | Choice::TakeOver(_) | Choice::Expel(..)) {
            return Ok((seen, 0));
        }
        let selection = state.unread();
        let (choice, record) = self.ledger.decide(&selection, |records| {
            state.read(records, uptime_seconds());
            let choice = state.next(&self.terms());
            let entry = match &choice {
                Choice::Take(at) | Choice::TakeOver(at) => {
                    Some(self.entry(Event::Claimed { runner: self.name.clone(), at: *at }))
                }
                Choice::Expel(runner, silent_seconds) => Some(Entry::Expulsion(Expulsion {
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

    fn terms(&self) -> Terms<'_> {
        Terms {
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
            Released::Again { why, exit, .. } if attempt >= self.settings.attempts => {
                Released::Failed { why: format!("{why} (tried {attempt} times)"), exit }
            }
            Released::Again { why, exit, .. } => {
                let doubled = f64::from(1_u32 << attempt.saturating_sub(1).min(10));
                Released::Again { why, exit, after_seconds: self.settings.backoff_seconds * doubled }
            }
            other => other,
        };
        let vm = self.change.moves.get(at).map_or("?", |planned| planned.vm.as_str());
        (self.tell)(&format!("{vm} {how}"));
        // A claim ends once, however often that is written.
        loop {
            match self.write(Event::Released { at, token, how: how.clone() }) {
                Err(error) if error.passes() && lease.holds() => self.wait(),
                done => return done,
            }
        }
    }

    /// Finds out within 100 ms that the lease is lost: after a process stood still, or while the ledger does not answer.
    fn watch(lease: &Lease, over: &AtomicBool) {
        while !over.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(100));
            lease.holds();
        }
    }

    /// Says again and again that this runner is at work, until it is over or the lease is lost.
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
                Err(error) => tracing::warn!("this runner could not say that it is at work: {error}"),
            }
        }
    }

    fn beat_event(&self) -> Event {
        Event::Beat { runner: self.name.clone(), driver: self.driver.clone() }
    }

    fn entry(&self, event: Event) -> Entry {
        Entry::Campaign(Campaign { campaign: self.change.digest.to_string(), event })
    }

    fn write(&self, event: Event) -> Result<(), LedgerError> {
        self.ledger.append(&self.entry(event)).map(drop)
    }

    fn wait(&self) {
        thread::sleep(self.settings.look);
    }
}
