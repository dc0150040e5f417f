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
mod change;
mod dirty;
mod guest;
mod prediction;
mod random;
mod refine;
mod run;
mod schedule;
mod send_queue;
mod settings;
mod stall;
pub mod synthetic_trace;
mod throttle;
mod timeline;

pub use advise::{Advice, Recommendation, WhatIf};
pub use change::SettingsChange;
use guest::TracedGuest;
pub use prediction::{LimitingFactor, PredictedMigration};
use random::Random;
use rayon::prelude::*;
use run::{ReplayResult, Run, UncertainInputs};
pub use schedule::{Schedule, ScheduledAction, ScheduledStep};
pub use settings::{AutoConverge, Compression, Conditions, Goal, Interval, LoadEnd, MigrationParameters};
pub use stall::{StallEvidence, StallRule, StallStep};
use timeline::RunTimeline;
use vmgate_facts::{
    MigrationTransport,
    trace::{DirtyTrace, PAGE_BYTES, TraceError},
};

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

const EFFORT: Effort = Effort { runs: 120, fewest: 16, work: 800_000 };
/// Size of a compressed page where no trace tells it.
const UNTOLD_COMPRESSION: Interval = Interval { low: 0.2, high: 0.8 };
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
        let pilot = run(self.draw_inputs(settings, conditions, &mut random, 0.0));
        let moment_seconds = RunTimeline::step(pilot.total_seconds);
        let mut results: Vec<ReplayResult> = Vec::new();
        let mut work = 0;
        let enough_work = self.effort.work * most as u64 / self.effort.runs as u64;
        let fewest = self.effort.fewest.min(most / 3);
        while results.len() < most && (work < enough_work || results.len() < fewest) {
            let inputs = |_| UncertainInputs {
                moment_seconds,
                ..self.draw_inputs(settings, conditions, &mut random, pilot.total_seconds)
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
    fn draw_inputs(
        &self,
        settings: &MigrationParameters,
        conditions: &Conditions,
        random: &mut Random,
        expected: f64,
    ) -> UncertainInputs {
        let setup_seconds = random.scale_within(conditions.setup_seconds);
        let stop_seconds = random.scale_within(conditions.stop_seconds);
        let start_seconds = random.scale_within(conditions.start_seconds);
        let finish_seconds = random.scale_within(conditions.finish_seconds);
        let mut aside = Random::new(random.clone().next());
        let other_bytes = aside.scale_within(conditions.other_bytes);
        let others = aside.within(conditions.others_bytes_per_second);
        let queue_bytes = random.within(conditions.socket_queue_bytes);
        let silent_pages = random.within(conditions.silent_pages);
        let length = self.guest.seconds();
        let spare = length - expected;
        let offset_seconds = random.between(0.0, if spare > length / 4.0 { spare } else { length });
        let goodput =
            conditions.goodput_bytes_per_second * libm::exp(conditions.goodput_cv * random.normal());
        let slower = match settings.transport {
            MigrationTransport::Tunnelled => random.within(conditions.tunnelled_slower),
            MigrationTransport::Tcp | MigrationTransport::Tls => 1.0,
        };
        let tls_seconds_per_byte = match settings.transport {
            MigrationTransport::Tls => 1.0 / random.within(conditions.tls_bytes_per_second).max(1.0),
            MigrationTransport::Tcp | MigrationTransport::Tunnelled => 0.0,
        };
        let (compressed_ratio, compressing_seconds) =
            settings.compression.map_or((1.0, 0.0), |compression| {
                let seconds = PAGE_BYTES as f64 / random.within(compression.thread_bytes_per_second());
                let packed = self.trace.compressed_ratio.unwrap_or_else(|| random.within(UNTOLD_COMPRESSION));
                ((packed * random.between(0.85, 1.15)).min(1.0), seconds)
            });
        let busy = random.between(0.2, 1.0);
        let deltas = self.trace.deltas;
        UncertainInputs {
            weights: if self.sampled { self.resampled(random) } else { self.guest.weights.clone() },
            offset_seconds,
            goodput: (goodput - others) / slower,
            queue_bytes,
            silent_pages,
            setup_seconds,
            other_bytes,
            stop_seconds,
            start_seconds,
            finish_seconds,
            vcpu_busy: self.trace.vcpu_busy_ratio.unwrap_or(busy),
            throttle_effect: random.unit(),
            delta_bytes: deltas.map_or(PAGE_BYTES as f64, |deltas| deltas.mean_bytes)
                * random.between(0.8, 1.25),
            delta_overflow: deltas.map_or(1.0, |deltas| deltas.overflow_ratio),
            tls_seconds_per_byte,
            compressed_ratio,
            compressing_seconds,
            resident_zero_ratio: random.within(conditions.resident_zero_ratio),
            load_ratio: random.within(conditions.load_ratio),
            load_ends_seconds: conditions.load_end.map_or(f64::INFINITY, |end| random.within(end.at_seconds)),
            seed: random.next(),
            moment_seconds: f64::INFINITY,
        }
    }

    /// Balanced half-samples: of two neighbouring pages of the sample one stands for both. Over the runs this shows the error of a
    /// figure caused by sampling, and keeps the order of the pages.
    fn resampled(&self, random: &mut Random) -> Vec<f64> {
        let sampled = self.trace.pages.as_slice().len();
        let coins: Vec<u64> = (0..sampled.div_ceil(128)).map(|_| random.next()).collect();
        let times = |page: usize| {
            let coin = coins.get(page / 128).is_some_and(|coins| coins >> (page / 2 % 64) & 1 == 1);
            match (page % 2 == 1) == coin {
                _ if page == sampled - 1 && page.is_multiple_of(2) => 1.0,
                true => 2.0,
                false => 0.0,
            }
        };
        let weight = |page: &refine::ReplayedPage| {
            let times: f64 = (page.sampled..page.sampled + page.joined).map(times).sum();
            page.weight * times / page.joined as f64
        };
        self.guest.pages.iter().map(weight).collect()
    }
}

#[cfg(test)]
mod tests;
