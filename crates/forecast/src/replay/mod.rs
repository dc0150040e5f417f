//! Replay: a Monte Carlo simulation of QEMU's pre-copy loop over a dirty trace, to predict a migration before it
//! starts.
//!
//! Each run draws all inputs that are not known exactly: the moment at which the migration meets the guest, the pages
//! in the sample, the goodput, the socket's queue, the fixed delays, the effect of throttling. The spread of the runs
//! is the spread of the forecast. Pure: the same trace, settings and seed give the same replay.

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers of pages, bytes and ticks lie far below 2^52 and above zero"
)]

mod advise;
mod dirty;
mod guest;
mod prediction;
mod random;
mod run;
mod schedule;
mod send_queue;
mod settings;
mod stall;
pub mod synthetic_trace;
mod throttle;
mod timeline;

pub use advise::{Advice, Recommendation, SettingsChange, WhatIf};
use guest::TracedGuest;
pub use prediction::{LimitingFactor, PredictedMigration};
use random::Random;
use rayon::prelude::*;
use run::{ReplayResult, Run, UncertainInputs};
pub use schedule::{Schedule, ScheduledAction, ScheduledStep};
pub use settings::{AutoConverge, Conditions, Goal, Interval, LoadEnd, MigrationParameters};
pub use stall::{StallEvidence, StallRule, StallStep};
use timeline::RunTimeline;
use vmgate_facts::trace::{DirtyTrace, PAGE_BYTES, TraceError};

/// Limits on the work of a replay.
#[derive(Debug, Clone, Copy)]
struct Effort {
    /// Maximum number of runs.
    runs: usize,
    /// Minimum number of runs, where each takes long because the migration does not end.
    fewest: usize,
    /// Work of all runs, in sampled pages sent.
    work: u64,
}

const EFFORT: Effort = Effort { runs: 120, fewest: 16, work: 1_000_000 };
/// Number of parallel runs. Independent of the machine, because the forecast must be too.
const AT_ONCE: usize = 8;
/// A migration counts as not converging after this many times the duration of a copy of all RAM, plus some seconds.
const PATIENCE: f64 = 4.0;
const PATIENCE_SECONDS: f64 = 60.0;

/// Dirty trace prepared for replays under any settings.
#[derive(Debug)]
pub struct Replayer<'t> {
    trace: &'t DirtyTrace,
    guest: TracedGuest,
    effort: Effort,
    /// True for a trace whose pages are a sample of the guest's; false for one made of groups, which have no error of a sample.
    sampled: bool,
}

impl<'t> Replayer<'t> {
    /// Prepares a trace; refuses one that is empty or contradicts itself.
    pub fn new(trace: &'t DirtyTrace) -> Result<Self, TraceError> {
        Ok(Self { trace, guest: TracedGuest::new(trace)?, effort: EFFORT, sampled: true })
    }

    /// Prepares a trace that was made of page groups ([`synthetic_trace`]).
    pub fn of_groups(trace: &'t DirtyTrace) -> Result<Self, TraceError> {
        Ok(Self { trace, guest: TracedGuest::of_groups(trace)?, effort: EFFORT, sampled: false })
    }

    /// Predicts a migration. `seed` is a hash of the facts, so that the same facts give the same forecast.
    pub fn replay(
        &self,
        settings: &MigrationParameters,
        conditions: &Conditions,
        goal: &Goal,
        seed: u64,
    ) -> PredictedMigration {
        self.runs(settings, conditions, goal, seed, self.effort.runs)
    }

    fn runs(
        &self,
        settings: &MigrationParameters,
        conditions: &Conditions,
        goal: &Goal,
        seed: u64,
        most: usize,
    ) -> PredictedMigration {
        // Runs continue beyond the deadline, to show by how much it would be missed.
        let patience = self.patience(settings, conditions);
        let deadline = goal.deadline_seconds.unwrap_or(patience);
        let horizon = deadline.max(patience);
        let run =
            |inputs: UncertainInputs| Run::new(&self.guest, settings, conditions, &inputs).run_until(horizon);
        let mut random = Random::new(seed);
        let pilot = run(self.draw_inputs(conditions, &mut random, 0.0));
        let moment_seconds = RunTimeline::step(pilot.total_seconds);
        let mut results: Vec<ReplayResult> = Vec::new();
        let mut work = 0;
        let enough_work = self.effort.work * most as u64 / self.effort.runs as u64;
        let fewest = self.effort.fewest.min(most / 3);
        while results.len() < most && (work < enough_work || results.len() < fewest) {
            let inputs = |_| UncertainInputs {
                moment_seconds,
                ..self.draw_inputs(conditions, &mut random, pilot.total_seconds)
            };
            let drawn: Vec<UncertainInputs> = (0..AT_ONCE).map(inputs).collect();
            let runs: Vec<ReplayResult> = drawn.into_par_iter().map(run).collect();
            work += runs.iter().map(|one| one.work).sum::<u64>();
            results.extend(runs);
        }
        PredictedMigration::from_runs(&results, settings, deadline)
    }

    fn patience(&self, settings: &MigrationParameters, conditions: &Conditions) -> f64 {
        let limit = settings.bandwidth_limit_bytes_per_second.unwrap_or(f64::INFINITY);
        let bandwidth = conditions.goodput_bytes_per_second.min(limit).max(1.0);
        let ends = conditions.load_end.map_or(0.0, |end| end.at_seconds.high);
        PATIENCE * self.trace.ram_bytes as f64 / bandwidth
            + PATIENCE_SECONDS
            + ends.max(settings.schedule.ends_seconds())
            + settings.stall.as_ref().map_or(0.0, StallRule::longest_seconds)
    }

    /// Draws the inputs of one run. `expected` is the approximate duration of the migration: where the trace is longer,
    /// the migration begins early enough not to run over the trace's end.
    fn draw_inputs(&self, conditions: &Conditions, random: &mut Random, expected: f64) -> UncertainInputs {
        let mut within = |range: Interval| random.between(range.low, range.high);
        let setup_seconds = within(conditions.setup_seconds);
        let stop_seconds = within(conditions.stop_seconds);
        let start_seconds = within(conditions.start_seconds);
        let finish_seconds = within(conditions.finish_seconds);
        let queue_bytes = within(conditions.socket_queue_bytes);
        let silent_pages = within(conditions.silent_pages);
        let length = self.guest.seconds();
        let spare = length - expected;
        let offset_seconds = random.between(0.0, if spare > length / 4.0 { spare } else { length });
        let goodput =
            conditions.goodput_bytes_per_second * libm::exp(conditions.goodput_cv * random.normal());
        let busy = random.between(0.2, 1.0);
        let deltas = self.trace.deltas;
        UncertainInputs {
            weights: if self.sampled { self.resampled(random) } else { self.guest.weights.clone() },
            offset_seconds,
            goodput,
            queue_bytes,
            silent_pages,
            setup_seconds,
            stop_seconds,
            start_seconds,
            finish_seconds,
            vcpu_busy: self.trace.vcpu_busy_ratio.unwrap_or(busy),
            throttle_effect: random.unit(),
            delta_bytes: deltas.map_or(PAGE_BYTES as f64, |deltas| deltas.mean_bytes)
                * random.between(0.8, 1.25),
            delta_overflow: deltas.map_or(1.0, |deltas| deltas.overflow_ratio),
            resident_zero_ratio: random
                .between(conditions.resident_zero_ratio.low, conditions.resident_zero_ratio.high),
            load_ratio: random.between(conditions.load_ratio.low, conditions.load_ratio.high),
            load_ends_seconds: conditions
                .load_end
                .map_or(f64::INFINITY, |end| random.between(end.at_seconds.low, end.at_seconds.high)),
            seed: random.next(),
            moment_seconds: f64::INFINITY,
        }
    }

    /// Balanced half-samples: of two neighbouring pages one stands for both. Over the runs this shows the error of a
    /// figure caused by sampling, and keeps the order of the pages.
    fn resampled(&self, random: &mut Random) -> Vec<f64> {
        let mut weights = Vec::with_capacity(self.guest.weights.len());
        let mut coins = 0;
        for (at, pair) in self.guest.weights.chunks(2).enumerate() {
            if at % 64 == 0 {
                coins = random.next();
            }
            match *pair {
                [first, second] if coins >> (at % 64) & 1 == 0 => weights.extend([first + second, 0.0]),
                [first, second] => weights.extend([0.0, first + second]),
                _ => weights.extend(pair),
            }
        }
        weights
    }
}

#[cfg(test)]
mod tests;
