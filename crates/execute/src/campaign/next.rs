//! Next step of a runner: a pure function of the campaign's state and the time.

use std::collections::HashMap;

use jiff::Timestamp;
use vmgate_judge::change::Limits;
use vmgate_ledger::campaign::Steering;

use super::{CampaignState, Task, TaskState};

/// Next step of a runner. Moves and waves are named by index.
#[derive(Debug, Clone, PartialEq)]
pub enum NextStep {
    /// Execute this move.
    Take(usize),
    /// Finish this move, which a runner that is gone left behind.
    TakeOver(usize),
    /// Expel this runner, which has been silent for this many seconds: the length of a lease or more.
    Expel(String, u64),
    /// Check if the hosts that this wave waits for are ready.
    OpenWave(usize),
    /// Wait: nothing can begin now, for this reason.
    Wait(String),
    /// Nothing begins any more: the campaign is at its end.
    End(CampaignEnd),
}

/// End of a campaign: the reason why nothing begins any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CampaignEnd {
    /// All moves are done, or have failed for good.
    Complete,
    /// This operator stopped the campaign.
    Stopped(String),
    /// This number of moves is left, and they would not end before the window closes.
    WindowCloses(usize),
}

/// Context of a runner's choice: its name, the time, and the limits.
#[derive(Debug, Clone, Copy)]
pub struct RunnerContext<'a> {
    /// Name of the runner that chooses.
    pub runner: &'a str,
    /// Present time.
    pub now: Timestamp,
    /// Uptime of the runner's machine, in seconds.
    pub uptime_seconds: f64,
    /// Longest silence of a runner, in seconds.
    pub lease_seconds: f64,
    /// Limits on concurrent moves by host and link.
    pub limits: Limits,
    /// Limit on all concurrent moves.
    pub at_once: Option<u32>,
}

/// Numbers of moves under way, by host, link and group.
#[derive(Default)]
struct MovesUnderWay<'a> {
    out: HashMap<&'a str, u32>,
    into: HashMap<&'a str, u32>,
    links: HashMap<(&'a str, &'a str), u32>,
    groups: HashMap<&'a str, u32>,
    vms: HashMap<&'a str, u32>,
    all: u32,
}

impl CampaignState {
    /// The next step of the runner.
    pub fn next(&self, terms: &RunnerContext) -> NextStep {
        if let Some(choice) = self.clear_up(terms) {
            return choice;
        }
        if let Some((Steering::Stop, by)) = &self.steering {
            return NextStep::End(CampaignEnd::Stopped(by.clone()));
        }
        if self.tasks.iter().all(|task| self.is_final(task)) {
            return NextStep::End(CampaignEnd::Complete);
        }
        if let Some((Steering::Pause, by)) = &self.steering {
            return NextStep::Wait(format!("paused by {by}: `vmgate campaign resume` continues"));
        }
        if let Some(budget) = self.error_budget.filter(|budget| self.failures >= *budget) {
            let failed = self.failures;
            return NextStep::Wait(format!(
                "{failed} moves have failed, and the error budget is {budget}: examine them, then run `vmgate campaign resume`"
            ));
        }
        let wave = self.wave();
        if wave > 0 && !self.waves_open.contains(&wave) {
            return NextStep::OpenWave(wave);
        }
        self.task(wave, terms)
    }

    /// Step for a move that a runner left behind: this comes first, even in a campaign that is paused or stopped.
    fn clear_up(&self, terms: &RunnerContext) -> Option<NextStep> {
        if let Some(at) = self.tasks.iter().position(|task| matches!(task.state, TaskState::Orphaned { .. }))
        {
            return Some(NextStep::TakeOver(at));
        }
        let silence = |runner: &String| {
            let seen = self.runners.get(runner).filter(|seen| !seen.gone && runner != terms.runner)?;
            let seconds = terms.uptime_seconds - seen.heard_seconds;
            (seconds >= terms.lease_seconds).then_some(seconds)
        };
        self.tasks.iter().find_map(|task| {
            let TaskState::Claimed { runner, .. } = &task.state else { return None };
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // some seconds
            silence(runner).map(|seconds| NextStep::Expel(runner.clone(), seconds as u64))
        })
    }

    /// Index of the wave under way: the first that is not finished.
    pub fn wave(&self) -> usize {
        let open = self.tasks.iter().filter(|task| !self.is_final(task));
        open.map(|task| task.the_move.wave).min().unwrap_or_default()
    }

    fn task(&self, wave: usize, terms: &RunnerContext) -> NextStep {
        let busy = MovesUnderWay::of(self);
        if terms.at_once.is_some_and(|most| busy.all >= most) {
            return NextStep::Wait(format!("{} moves run, which is the limit of the change", busy.all));
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
                return NextStep::Take(at);
            }
        }
        match (open, late) {
            (0, _) => NextStep::Wait("other runners have the last moves".to_owned()),
            (open, late) if open == late && busy.all == 0 => NextStep::End(CampaignEnd::WindowCloses(late)),
            _ => NextStep::Wait(
                "the remaining moves wait for their hosts or for their next attempt".to_owned(),
            ),
        }
    }

    /// True if the move ends before the window closes, by its forecast; a move without a forecast must only begin in time.
    fn fits_window(&self, task: &Task, now: Timestamp) -> bool {
        let takes = task.the_move.expected_seconds.unwrap_or(0.0);
        self.window_end.is_none_or(|end| end.duration_since(now).as_secs_f64() > takes)
    }
}

fn is_due(task: &Task, uptime_seconds: f64) -> bool {
    !matches!(task.state, TaskState::Waiting { not_before_seconds, .. } if uptime_seconds < not_before_seconds)
}

impl<'a> MovesUnderWay<'a> {
    fn of(state: &'a CampaignState) -> Self {
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

/// Key of the link between two hosts, the same in both directions.
fn link<'a>(one: &'a str, other: &'a str) -> (&'a str, &'a str) {
    if one < other { (one, other) } else { (other, one) }
}
