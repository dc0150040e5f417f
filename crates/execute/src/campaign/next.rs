//! What a runner does next: a pure function of the campaign's state and the time.

use std::collections::HashMap;

use jiff::Timestamp;

use super::{State, Task, TaskState};
use vmgate_judge::change::Limits;
use vmgate_ledger::campaign::Steering;

/// What is to be done next.
#[derive(Debug, Clone, PartialEq)]
pub enum Choice {
    /// Make this move.
    Take(usize),
    /// Look how far a runner came that is gone with this move, and end what it left behind.
    TakeOver(usize),
    /// Expel a runner that has been silent for the length of a lease, which is so long in seconds.
    Expel(String, u64),
    /// See whether the hosts that this wave waits for are ready.
    OpenWave(usize),
    /// Nothing can begin now, and this is why.
    Wait(String),
    /// Nothing begins any more.
    Over(Ending),
}

/// Why nothing begins any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// All moves are done, or cannot be.
    Complete,
    /// Somebody stopped it.
    Stopped(String),
    /// What is left would not be over before the window closes: so many moves.
    WindowCloses(usize),
}

/// What holds for a runner's choice.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// The runner that chooses.
    pub runner: &'a str,
    /// The time.
    pub now: Timestamp,
    /// The same by the uptime of its machine, seconds.
    pub uptime_seconds: f64,
    /// How long a runner may be silent.
    pub lease_seconds: f64,
    /// Moves at once by host and link.
    pub limits: Limits,
    /// Moves at once altogether.
    pub at_once: Option<u32>,
}

/// What goes on now, by host, link and group.
#[derive(Default)]
struct Busy<'a> {
    out: HashMap<&'a str, u32>,
    into: HashMap<&'a str, u32>,
    links: HashMap<(&'a str, &'a str), u32>,
    groups: HashMap<&'a str, u32>,
    vms: HashMap<&'a str, u32>,
    all: u32,
}

impl State {
    /// What the runner is to do next.
    pub fn next(&self, terms: &Terms) -> Choice {
        if let Some(choice) = self.clear_up(terms) {
            return choice;
        }
        if let Some((Steering::Stop, by)) = &self.steering {
            return Choice::Over(Ending::Stopped(by.clone()));
        }
        if self.tasks.iter().all(|task| self.is_final(task)) {
            return Choice::Over(Ending::Complete);
        }
        if let Some((Steering::Pause, by)) = &self.steering {
            return Choice::Wait(format!("paused by {by}: `vmgate campaign resume` goes on"));
        }
        if let Some(budget) = self.error_budget.filter(|budget| self.failures >= *budget) {
            let failed = self.failures;
            return Choice::Wait(format!(
                "{failed} moves have failed, and the error budget is {budget}: look at them, then `vmgate campaign resume`"
            ));
        }
        let wave = self.wave();
        if wave > 0 && !self.waves_open.contains(&wave) {
            return Choice::OpenWave(wave);
        }
        self.task(wave, terms)
    }

    /// What a runner left behind goes before everything else, in a campaign that is paused or stopped too.
    fn clear_up(&self, terms: &Terms) -> Option<Choice> {
        if let Some(at) = self.tasks.iter().position(|task| matches!(task.state, TaskState::Orphaned { .. }))
        {
            return Some(Choice::TakeOver(at));
        }
        let silence = |runner: &String| {
            let seen = self.runners.get(runner).filter(|seen| !seen.gone && runner != terms.runner)?;
            let seconds = terms.uptime_seconds - seen.heard_seconds;
            (seconds >= terms.lease_seconds).then_some(seconds)
        };
        self.tasks.iter().find_map(|task| {
            let TaskState::Claimed { runner, .. } = &task.state else { return None };
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // some seconds
            silence(runner).map(|seconds| Choice::Expel(runner.clone(), seconds as u64))
        })
    }

    /// The wave that is under way: the first that is not over.
    pub fn wave(&self) -> usize {
        let open = self.tasks.iter().filter(|task| !self.is_final(task));
        open.map(|task| task.the_move.wave).min().unwrap_or_default()
    }

    fn task(&self, wave: usize, terms: &Terms) -> Choice {
        let busy = Busy::of(self);
        if terms.at_once.is_some_and(|most| busy.all >= most) {
            return Choice::Wait(format!("{} moves run, as many as may at once", busy.all));
        }
        let waiting = self.tasks.iter().enumerate().filter(|(_, task)| {
            task.the_move.wave == wave
                && matches!(task.state, TaskState::Waiting { .. })
                && !self.is_final(task)
        });
        let (mut late, mut open) = (0, 0);
        for (at, task) in waiting {
            open += 1;
            if !self.fits_window(task, terms.now) {
                late += 1;
            } else if is_due(task, terms.uptime_seconds) && busy.lets(task, &terms.limits) {
                return Choice::Take(at);
            }
        }
        match (open, late) {
            (0, _) => Choice::Wait("other runners have the last moves".to_owned()),
            (open, late) if open == late && busy.all == 0 => Choice::Over(Ending::WindowCloses(late)),
            _ => Choice::Wait("what is left waits for its hosts, or for its next try".to_owned()),
        }
    }

    /// Whether the move is over before the window closes, by its forecast; one without a forecast must only begin in time.
    fn fits_window(&self, task: &Task, now: Timestamp) -> bool {
        let takes = task.the_move.expected_seconds.unwrap_or(0.0);
        self.window_end.is_none_or(|end| end.duration_since(now).as_secs_f64() > takes)
    }
}

fn is_due(task: &Task, uptime_seconds: f64) -> bool {
    !matches!(task.state, TaskState::Waiting { not_before_seconds, .. } if uptime_seconds < not_before_seconds)
}

impl<'a> Busy<'a> {
    fn of(state: &'a State) -> Self {
        let mut busy = Self::default();
        let runs =
            |task: &&Task| matches!(task.state, TaskState::Claimed { .. } | TaskState::Orphaned { .. });
        for moved in state.tasks.iter().filter(runs).map(|task| &task.the_move) {
            *busy.out.entry(&moved.from).or_default() += 1;
            *busy.into.entry(&moved.to).or_default() += 1;
            *busy.links.entry(link(&moved.from, &moved.to)).or_default() += 1;
            *busy.vms.entry(&moved.vm).or_default() += 1;
            for group in &moved.exclusive {
                *busy.groups.entry(group).or_default() += 1;
            }
            busy.all += 1;
        }
        busy
    }

    fn lets(&self, task: &'a Task, limits: &Limits) -> bool {
        let moved = &task.the_move;
        let count = |counts: &HashMap<&'a str, u32>, key: &'a str| counts.get(key).copied().unwrap_or(0);
        count(&self.out, &moved.from) < limits.per_source
            && count(&self.into, &moved.to) < limits.per_destination
            && self.links.get(&link(&moved.from, &moved.to)).copied().unwrap_or(0) < limits.per_link
            && count(&self.vms, &moved.vm) == 0
            && moved.exclusive.iter().all(|group| count(&self.groups, group) == 0)
    }
}

/// Two hosts, whichever way.
fn link<'a>(one: &'a str, other: &'a str) -> (&'a str, &'a str) {
    if one < other { (one, other) } else { (other, one) }
}
