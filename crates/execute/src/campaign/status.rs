//! Status of a campaign as text: its progress, failures, and moves under way.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Serialize;
use vmgate_facts::text::plain;
use vmgate_ledger::campaign::Steering;

use super::{CampaignState, Task, TaskState};

/// Numbers of moves by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Done and verified.
    pub done: usize,
    /// Under way.
    pub running: usize,
    /// Yet to begin.
    pub waiting: usize,
    /// Failed for good.
    pub failed: usize,
    /// Ways back without anything to bring back.
    pub needless: usize,
}

impl CampaignState {
    /// Numbers of moves by state, of one wave or of all.
    pub fn counts(&self, wave: Option<usize>) -> Counts {
        let mut counts = Counts::default();
        for task in self.tasks.iter().filter(|task| wave.is_none_or(|wave| task.the_move.wave == wave)) {
            self.count(task, &mut counts);
        }
        counts
    }

    /// Adds one move to the count of its like.
    pub fn count(&self, task: &Task, counts: &mut Counts) {
        match task.state {
            TaskState::Done { .. } => counts.done += 1,
            TaskState::Failed { .. } => counts.failed += 1,
            TaskState::Claimed { .. } | TaskState::Orphaned { .. } => counts.running += 1,
            TaskState::Waiting { .. } if self.is_needless(task) => counts.needless += 1,
            TaskState::Waiting { .. } => counts.waiting += 1,
        }
    }
}

impl Counts {
    /// Sum of all states.
    pub fn all(self) -> usize {
        self.done + self.running + self.waiting + self.failed + self.needless
    }
}

/// Renders the status of the campaign in a few lines.
pub fn render(state: &CampaignState, now: Timestamp) -> String {
    let all = state.counts(None);
    let mut text = format!(
        "{}: {} of {} moves done, {} running, {} to come, {} failed{}\n",
        plain(&state.id),
        all.done,
        state.tasks.len(),
        all.running,
        all.waiting,
        all.failed,
        if all.needless > 0 {
            format!(", {} with nothing to bring back", all.needless)
        } else {
            String::new()
        }
    );
    match &state.steering {
        Some((Steering::Resume, _)) | None => {}
        Some((what, by)) => text.extend([what.word(), " by ", &plain(by), "\n"]),
    }
    if let Some(end) = state.window_end {
        let _ = writeln!(text, "the window {}", window_text(end, now));
    }
    for (number, wave) in state.waves.iter().enumerate().filter(|_| state.waves.len() > 1) {
        let counts = state.counts(Some(number));
        let _ = writeln!(text, "  {}: {} of {}", plain(wave), counts.done + counts.needless, counts.all());
    }
    for (name, runner) in state.runners.iter().filter(|(_, runner)| !runner.gone) {
        let ago = now.duration_since(runner.last).as_secs();
        let _ =
            writeln!(text, "runner {}: {}, last heartbeat {ago} s ago", plain(name), plain(&runner.driver));
    }
    for task in &state.tasks {
        let (vm, from, to) = (plain(&task.the_move.vm), plain(&task.the_move.from), plain(&task.the_move.to));
        let _ = match &task.state {
            TaskState::Claimed { runner, since, .. } => {
                let seconds = now.duration_since(*since).as_secs();
                writeln!(text, "  {vm}: {from} -> {to}, {seconds} s, by {}", plain(runner))
            }
            TaskState::Orphaned { .. } => {
                writeln!(text, "  {vm}: its runner is gone, another runner takes the move over")
            }
            TaskState::Failed { why, .. } => writeln!(text, "  {vm}: FAILED: {}", plain(why)),
            TaskState::Waiting { why: Some(why), .. } => {
                writeln!(text, "  {vm}: waits for another attempt: {}", plain(why))
            }
            _ => Ok(()),
        };
    }
    text
}

/// Text about the end of a change window.
pub fn window_text(end: Timestamp, now: Timestamp) -> String {
    let left = end.duration_since(now).as_secs();
    if left > 0 { format!("window_text in {} min", left / 60) } else { "is closed".to_owned() }
}
