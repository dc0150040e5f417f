//! What the records of a campaign add up to.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use vmgate_ledger::{
    Campaign, Entry, Expulsion, Record, Selection,
    campaign::{CampaignMove, Event, Released, Steering},
    entry::Kind,
};
use vmgate_verdict::ExitCode;

/// A campaign as far as its records were read.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Digest of the change.
    pub campaign: String,
    /// Id of the change in the operator's own books.
    pub id: String,
    /// Names of its waves.
    pub waves: Vec<String>,
    /// When its window closes.
    pub window_end: Option<Timestamp>,
    /// Moves that may fail before no other begins.
    pub error_budget: Option<u32>,
    /// Its moves.
    pub tasks: Vec<Task>,
    /// Who takes part, or did.
    pub runners: BTreeMap<String, RunnerSeen>,
    /// What somebody wants of it; none where nobody said.
    pub steering: Option<(Steering, String)>,
    /// Failures since it began or was last resumed.
    pub failures: u32,
    /// When it began.
    pub since: Option<Timestamp>,
    /// VMs that a move of failed, with its wave.
    failed: HashMap<String, usize>,
    pub(super) waves_open: Vec<usize>,
    pub(super) seen: u64,
}

/// One move of a campaign.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// What is to be done.
    pub the_move: CampaignMove,
    /// Where it stands.
    pub state: TaskState,
    /// How often it was tried.
    pub attempts: u32,
}

/// Where a move stands.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskState {
    /// Nobody has it.
    Waiting {
        /// Not before this, by the reader's uptime: a pause counts from when it was read, as silence does.
        not_before_seconds: f64,
        /// Why it was not made yet, where it was tried.
        why: Option<String>,
    },
    /// A runner has it.
    Claimed {
        /// The runner.
        runner: String,
        /// Its fencing token.
        token: u64,
        /// Since when.
        since: Timestamp,
    },
    /// A runner had it and is gone: whoever takes it over looks first how far it came.
    Orphaned {
        /// The claim that is to be recovered.
        token: u64,
    },
    /// The VM runs on the destination.
    Done {
        /// When that was written.
        at: Timestamp,
    },
    /// It is not made.
    Failed {
        /// Why.
        why: String,
        /// How it ended.
        exit: ExitCode,
    },
}

/// A runner, as its records show it.
#[derive(Debug, Clone, PartialEq)]
pub struct RunnerSeen {
    /// Its process.
    pub driver: String,
    /// When it wrote last, by its own clock.
    pub last: Timestamp,
    /// When that was read, by the reader's uptime.
    pub heard_seconds: f64,
    /// Whether it takes part no more.
    pub gone: bool,
}

impl State {
    /// Nothing read yet.
    pub fn new(campaign: &str) -> Self {
        Self { campaign: campaign.to_owned(), ..Self::default() }
    }

    /// Whether the campaign has begun.
    pub fn is_open(&self) -> bool {
        self.since.is_some()
    }

    /// The records that have not been read.
    pub fn unread(&self) -> Selection {
        Selection { kinds: vec![Kind::Campaign, Kind::Expulsion], after: self.seen, ..Selection::default() }
    }

    /// Adds records, in their order; those that were added before are passed over. `uptime_seconds` is the reader's.
    pub fn read(&mut self, records: &[Record], uptime_seconds: f64) {
        for record in records {
            if record.sequence <= self.seen {
                continue;
            }
            self.seen = record.sequence;
            match &record.entry {
                Entry::Campaign(Campaign { campaign, event }) if *campaign == self.campaign => {
                    self.happens(event, record, uptime_seconds);
                }
                Entry::Expulsion(Expulsion { campaign, runner, .. }) if *campaign == self.campaign => {
                    self.goes(runner);
                }
                _ => {}
            }
        }
    }

    fn happens(&mut self, event: &Event, record: &Record, uptime_seconds: f64) {
        match event {
            Event::Opened { .. } if self.is_open() => {}
            Event::Opened { id, waves, window_end, error_budget, moves } => {
                self.id.clone_from(id);
                self.waves.clone_from(waves);
                (self.window_end, self.error_budget, self.since) =
                    (*window_end, *error_budget, Some(record.at));
                self.tasks = moves.iter().cloned().map(Task::new).collect();
            }
            Event::Beat { runner, driver } => {
                let seen = RunnerSeen {
                    driver: driver.to_string(),
                    last: record.at,
                    heard_seconds: uptime_seconds,
                    gone: false,
                };
                self.runners.insert(runner.clone(), seen);
            }
            Event::Left { runner } => self.goes(runner),
            Event::Claimed { runner, at } => {
                if let Some(task) = self.tasks.get_mut(*at) {
                    let (runner, token) = (runner.clone(), record.sequence);
                    task.state = TaskState::Claimed { runner, token, since: record.at };
                    task.attempts += 1;
                }
            }
            Event::Released { at, token, how } => {
                self.released(*at, *token, how, record.at, uptime_seconds);
            }
            Event::WaveOpened { wave, .. } => self.waves_open.push(*wave),
            Event::Steered { what, by } => {
                if *what == Steering::Resume {
                    self.failures = 0;
                }
                self.steering = Some((*what, by.clone()));
            }
        }
    }

    /// What ends a claim that is no longer held counts for nothing: that is what its token is for.
    fn released(&mut self, at: usize, token: u64, how: &Released, now: Timestamp, uptime_seconds: f64) {
        let Some(task) = self.tasks.get_mut(at) else { return };
        if !matches!(&task.state, TaskState::Claimed { token: held, .. } if *held == token) {
            return;
        }
        task.state = match how {
            Released::Done => TaskState::Done { at: now },
            Released::Again { why, after_seconds, .. } => TaskState::Waiting {
                not_before_seconds: uptime_seconds + after_seconds,
                why: Some(why.clone()),
            },
            Released::Busy { why } => {
                task.attempts = task.attempts.saturating_sub(1);
                TaskState::Waiting { not_before_seconds: uptime_seconds + 1.0, why: Some(why.clone()) }
            }
            Released::Failed { why, exit } => {
                self.failures += 1;
                self.failed.entry(task.the_move.vm.clone()).or_insert(task.the_move.wave);
                TaskState::Failed { why: why.clone(), exit: *exit }
            }
        };
    }

    /// A runner is gone: what it held is to be taken over.
    fn goes(&mut self, runner: &str) {
        if let Some(seen) = self.runners.get_mut(runner) {
            seen.gone = true;
        }
        for task in &mut self.tasks {
            if let TaskState::Claimed { runner: holder, token, .. } = &task.state
                && holder == runner
            {
                task.state = TaskState::Orphaned { token: *token };
            }
        }
    }

    /// Whether an earlier move of the same VM was not made, so that this one has nothing to bring back.
    pub fn is_needless(&self, task: &Task) -> bool {
        self.failed.get(&task.the_move.vm).is_some_and(|wave| *wave < task.the_move.wave)
    }

    /// Whether nothing is left to do for a move.
    pub(super) fn is_final(&self, task: &Task) -> bool {
        match task.state {
            TaskState::Done { .. } | TaskState::Failed { .. } => true,
            TaskState::Waiting { .. } => self.is_needless(task),
            TaskState::Claimed { .. } | TaskState::Orphaned { .. } => false,
        }
    }
}

impl Task {
    fn new(the_move: CampaignMove) -> Self {
        Self { the_move, state: TaskState::Waiting { not_before_seconds: 0.0, why: None }, attempts: 0 }
    }
}
