//! State of a campaign, computed from its records in the ledger.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use vmgate_ledger::{
    Campaign, Entry, Expulsion, Record, Selection,
    campaign::{CampaignEvent, CampaignMove, ClaimResult, Steering},
    entry::EntryKind,
};
use vmgate_verdict::ExitCode;

/// State of a campaign after the records that were read.
#[derive(Debug, Clone, Default)]
pub struct CampaignState {
    /// Digest of the change.
    pub campaign: String,
    /// Id of the change in the operator's own books.
    pub id: String,
    /// Names of the waves.
    pub waves: Vec<String>,
    /// End of the change window.
    pub window_end: Option<Timestamp>,
    /// Error budget: number of failed moves at which no other begins.
    pub error_budget: Option<u32>,
    /// Moves of the campaign.
    pub tasks: Vec<Task>,
    /// Runners that take part or took part, by name.
    pub runners: BTreeMap<String, RunnerStatus>,
    /// Last command (pause, resume or stop) and its operator; `None` if there was none.
    pub steering: Option<(Steering, String)>,
    /// Failed moves since the campaign began or was last resumed.
    pub failures: u32,
    /// Time of the beginning.
    pub since: Option<Timestamp>,
    /// VMs with a failed move, and the wave of that move.
    failed: HashMap<String, usize>,
    pub(super) waves_open: Vec<usize>,
    pub(super) seen: u64,
}

/// One move of a campaign.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// The move, as the change file has it.
    pub the_move: CampaignMove,
    /// State of the move.
    pub state: TaskState,
    /// Number of attempts so far.
    pub attempts: u32,
}

/// State of a move in a campaign.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskState {
    /// No runner has claimed the move.
    Waiting {
        /// Earliest start, in seconds of the reader's uptime: a pause counts from the time it was read, as silence does.
        not_before_seconds: f64,
        /// Reason of the last failed attempt; `None` if there was none.
        why: Option<String>,
    },
    /// A runner has claimed the move.
    Claimed {
        /// Name of the runner.
        runner: String,
        /// Fencing token of the claim.
        token: u64,
        /// Time of the claim.
        since: Timestamp,
    },
    /// The runner that claimed the move is gone: the next runner finishes its attempt first.
    Orphaned {
        /// Fencing token of that claim.
        token: u64,
    },
    /// The VM runs on the destination.
    Done {
        /// Time of that record.
        at: Timestamp,
    },
    /// The move has failed for good.
    Failed {
        /// Reason.
        why: String,
        /// Exit code of the last attempt.
        exit: ExitCode,
    },
}

/// Status of a runner, from its records.
#[derive(Debug, Clone, PartialEq)]
pub struct RunnerStatus {
    /// Process of the runner, in words.
    pub driver: String,
    /// Time of the last heartbeat, by the runner's clock.
    pub last: Timestamp,
    /// Time at which that heartbeat was read, in seconds of the reader's uptime.
    pub heard_seconds: f64,
    /// True if the runner has ended or was expelled.
    pub gone: bool,
}

impl CampaignState {
    /// State before any record was read.
    pub fn new(campaign: &str) -> Self {
        Self { campaign: campaign.to_owned(), ..Self::default() }
    }

    /// True if the campaign has begun.
    pub fn is_open(&self) -> bool {
        self.since.is_some()
    }

    /// Selection of the records that have not been read.
    pub fn unread(&self) -> Selection {
        Selection {
            kinds: vec![EntryKind::Campaign, EntryKind::Expulsion],
            after: self.seen,
            ..Selection::default()
        }
    }

    /// Applies records in their order; skips those that were applied before. `uptime_seconds` is the reader's.
    pub fn read(&mut self, records: &[Record], uptime_seconds: f64) {
        for record in records {
            if record.sequence <= self.seen {
                continue;
            }
            self.seen = record.sequence;
            match &record.entry {
                Entry::Campaign(Campaign { campaign, event }) if *campaign == self.campaign => {
                    self.apply(event, record, uptime_seconds);
                }
                Entry::Expulsion(Expulsion { campaign, runner, .. }) if *campaign == self.campaign => {
                    self.remove_runner(runner);
                }
                _ => {}
            }
        }
    }

    fn apply(&mut self, event: &CampaignEvent, record: &Record, uptime_seconds: f64) {
        match event {
            CampaignEvent::Opened { .. } if self.is_open() => {}
            CampaignEvent::Opened { id, waves, window_end, error_budget, moves } => {
                self.id.clone_from(id);
                self.waves.clone_from(waves);
                (self.window_end, self.error_budget, self.since) =
                    (*window_end, *error_budget, Some(record.at));
                self.tasks = moves.iter().cloned().map(Task::new).collect();
            }
            CampaignEvent::Beat { runner, driver } => {
                let seen = RunnerStatus {
                    driver: driver.to_string(),
                    last: record.at,
                    heard_seconds: uptime_seconds,
                    gone: false,
                };
                self.runners.insert(runner.clone(), seen);
            }
            CampaignEvent::Left { runner } => self.remove_runner(runner),
            CampaignEvent::Claimed { runner, at } => {
                if let Some(task) = self.tasks.get_mut(*at) {
                    let (runner, token) = (runner.clone(), record.sequence);
                    task.state = TaskState::Claimed { runner, token, since: record.at };
                    task.attempts += 1;
                }
            }
            CampaignEvent::Released { at, token, how } => {
                self.released(*at, *token, how, record.at, uptime_seconds);
            }
            CampaignEvent::WaveOpened { wave, .. } => self.waves_open.push(*wave),
            CampaignEvent::Steered { what, by } => {
                if *what == Steering::Resume {
                    self.failures = 0;
                }
                self.steering = Some((*what, by.clone()));
            }
        }
    }

    /// Applies the end of a claim. Ignored if the token is not the one of the present claim.
    fn released(&mut self, at: usize, token: u64, how: &ClaimResult, now: Timestamp, uptime_seconds: f64) {
        let Some(task) = self.tasks.get_mut(at) else { return };
        if !matches!(&task.state, TaskState::Claimed { token: held, .. } if *held == token) {
            return;
        }
        task.state = match how {
            ClaimResult::Done => TaskState::Done { at: now },
            ClaimResult::Again { why, after_seconds, .. } => TaskState::Waiting {
                not_before_seconds: uptime_seconds + after_seconds,
                why: Some(why.clone()),
            },
            ClaimResult::Busy { why } => {
                task.attempts = task.attempts.saturating_sub(1);
                TaskState::Waiting { not_before_seconds: uptime_seconds + 1.0, why: Some(why.clone()) }
            }
            ClaimResult::Failed { why, exit } => {
                self.failures += 1;
                self.failed.entry(task.the_move.vm.clone()).or_insert(task.the_move.wave);
                TaskState::Failed { why: why.clone(), exit: *exit }
            }
        };
    }

    /// Marks a runner as gone, and its claimed moves as orphaned.
    fn remove_runner(&mut self, runner: &str) {
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

    /// True if an earlier move of the same VM failed, so that this way back has nothing to bring back.
    pub fn is_needless(&self, task: &Task) -> bool {
        self.failed.get(&task.the_move.vm).is_some_and(|wave| *wave < task.the_move.wave)
    }

    /// True if nothing is left to do for a move.
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
