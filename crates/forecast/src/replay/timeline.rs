//! Course of a replayed migration for a plot: memory left at equal steps of time, and the ends of the rounds.

use vmgate_facts::{Quantiles, RemainingMemory};

use super::{prediction::quantiles, run::ReplayResult};

/// Maximum number of steps of a run.
pub(super) const MOST: usize = 64;
/// Number of steps for a migration of the expected duration.
const STEPS: f64 = 40.0;
/// Maximum number of round ends kept.
const MOST_ROUNDS: usize = 64;

/// Memory left to send at each step of one run.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct RunTimeline {
    every_seconds: f64,
    left_bytes: Vec<f64>,
    pub(super) round_ends: Vec<f64>,
}

impl RunTimeline {
    pub(super) fn every(seconds: f64) -> Self {
        Self { every_seconds: seconds, ..Self::default() }
    }

    /// Length of a step for a migration of this expected duration.
    pub(super) fn step(expected_seconds: f64) -> f64 {
        (expected_seconds / STEPS).max(1e-3)
    }

    /// Records the memory left until `now`, counted from the order to migrate.
    pub(super) fn pass(&mut self, now: f64, left_bytes: f64) {
        while self.left_bytes.len() < MOST && now >= self.every_seconds * self.left_bytes.len() as f64 {
            self.left_bytes.push(left_bytes);
        }
    }
}

/// Memory left at a step: zero after the end of the run, and before that the last recorded value.
fn left_at(run: &ReplayResult, moment: usize) -> f64 {
    let is_over = run.converged && moment as f64 * run.timeline.every_seconds >= run.total_seconds;
    let seen = run.timeline.left_bytes.get(moment).or(run.timeline.left_bytes.last());
    if is_over { 0.0 } else { seen.copied().unwrap_or(0.0) }
}

/// Combines the runs, up to the step at which all have completed.
pub(super) fn timeline(runs: &[ReplayResult]) -> Vec<RemainingMemory> {
    let Some(step) = runs.first().map(|run| run.timeline.every_seconds).filter(|step| step.is_finite())
    else {
        return Vec::new();
    };
    let mut timeline = Vec::new();
    for moment in 0..MOST {
        let Some(remaining_bytes) = quantiles(runs.iter().map(|run| left_at(run, moment))) else { break };
        let Quantiles { p5, p50, p95 } = remaining_bytes;
        // Whole bytes and milliseconds: more digits carry no information, and do not survive every JSON reader.
        timeline.push(RemainingMemory {
            at_seconds: (moment as f64 * step * 1e3).round() / 1e3,
            remaining_bytes: Quantiles { p5: p5.round(), p50: p50.round(), p95: p95.round() },
        });
        if remaining_bytes.p95 <= 0.0 {
            break;
        }
    }
    timeline
}

/// Ends of the rounds of the run with the median duration.
pub(super) fn rounds_of_the_middle(runs: &[ReplayResult]) -> Vec<f64> {
    let mut by_length: Vec<&ReplayResult> = runs.iter().collect();
    by_length.sort_by(|one, other| one.total_seconds.total_cmp(&other.total_seconds));
    let middle = by_length.get(by_length.len() / 2);
    middle.map_or_else(Vec::new, |run| {
        run.timeline.round_ends.iter().take(MOST_ROUNDS).map(|at| (at * 1e3).round() / 1e3).collect()
    })
}
