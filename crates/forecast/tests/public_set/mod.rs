//! Public migrations of real KVM guests (PostgreSQL with YCSB), each foretold from the other runs of its case.
//!
//! The set has no trace of pages: what a run dirtied is rebuilt from the syncs of the others, and the replay of windows is
//! scored. kvm-postgres.json beside this module holds what was derived from it; `cargo bench --bench forecast -- public FILE`
//! derives and scores any other part of it.

#![allow(clippy::expect_used, reason = "a score of measured figures")]

use serde::{Deserialize, Serialize};
use vmgate_facts::{
    Accelerator, Quantiles, Version,
    trace::{DirtyTrace, PAGE_BYTES},
};
use vmgate_forecast::replay::{
    AutoConverge, Conditions, Goal, Interval, LoadEnd, MigrationParameters, PredictedMigration, Replayer,
    Schedule, ScheduledAction,
    synthetic_trace::{PageGroup, fit, from_page_groups},
};

/// QEMU's defaults, with which the set was made.
pub(crate) const BANDWIDTH_LIMIT: f64 = 134_217_728.0;
pub(crate) const DOWNTIME_LIMIT_SECONDS: f64 = 0.3;
const PAGE: f64 = PAGE_BYTES as f64;
/// Rounds shorter than that are noisy, each by when it was looked at: their means count.
const SHORT_SECONDS: f64 = 1.0;
const MANY: usize = 6;
/// Part of the spread of the other runs by which their range is widened at both ends: a further run lies outside the range
/// of four in two of five cases.
const WIDENED: f64 = 1.0;
/// Load of one run by that of another.
const LOAD_VARIES: Interval = Interval { low: 0.96, high: 1.04 };

/// A migration of the set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) case: String,
    pub(crate) run: u32,
    pub(crate) ram_bytes: u64,
    /// Resident set of QEMU before the migration.
    pub(crate) resident_bytes: Option<u64>,
    pub(crate) total_seconds: f64,
    pub(crate) downtime_seconds: f64,
    pub(crate) sent_bytes: f64,
    pub(crate) rounds: f64,
    /// QEMU's last expected-downtime.
    pub(crate) expected_downtime_seconds: Option<f64>,
    /// Pages with content, and zero ones, that the first pass sent.
    pub(crate) first_pass_pages: f64,
    pub(crate) zero_pages: f64,
    /// Rounds in their order, while no vCPU was throttled.
    pub(crate) syncs: Vec<Round>,
    /// Time of the switch to post-copy, the time until all was there, and the pages and zero pages of that time.
    pub(crate) post_copy: Option<PostCopy>,
}

/// Time between two syncs, the pages that the second found newly dirty, and the part of the dirty pages that was sent
/// between them.
pub(crate) type Round = (f64, f64, f64);

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct PostCopy {
    pub(crate) at_seconds: f64,
    pub(crate) seconds: f64,
    pub(crate) pages: f64,
    pub(crate) zero_pages: f64,
}

/// A run and what was foretold of it from the others.
#[derive(Debug, Clone)]
pub(crate) struct Foretold {
    pub(crate) run: Run,
    pub(crate) replay: PredictedMigration,
    /// Probability of completion if the load lasts, with 15 % less, the present and 15 % more of it.
    pub(crate) converges_at: [f64; 3],
    /// Dirty rate of the other runs in a round, divided by the bandwidth limit.
    pub(crate) dirty_to_bandwidth_ratio: f64,
}

impl Foretold {
    /// True if 15 % of the load decide whether the migration completes before the load ends, or if it does not and the dirty rate
    /// is within 15 % of the goodput.
    pub(crate) fn depends_on_the_load(&self) -> bool {
        let near = (self.dirty_to_bandwidth_ratio - 1.0).abs() <= 0.15;
        (near || self.converges_at[0] >= 0.1) && self.converges_at[2] < 0.9
    }

    pub(crate) fn total_error(&self) -> f64 {
        self.replay.total_seconds.map_or(f64::NAN, |total| total.p50 / self.run.total_seconds - 1.0)
    }

    pub(crate) fn bytes_error(&self) -> f64 {
        self.replay.bytes.map_or(f64::NAN, |bytes| bytes.p50 / self.run.sent_bytes - 1.0)
    }

    pub(crate) fn downtime_error(&self) -> f64 {
        self.replay.blackout_seconds.map_or(f64::NAN, |blackout| blackout.p50 - self.run.downtime_seconds)
    }

    /// True for total time, bytes and downtime that lie in their intervals.
    pub(crate) fn held(&self) -> [bool; 3] {
        let within =
            |range: Option<Quantiles>, value: f64| range.is_some_and(|r| (r.p5..=r.p95).contains(&value));
        [
            within(self.replay.total_seconds, self.run.total_seconds),
            within(self.replay.bytes, self.run.sent_bytes),
            within(self.replay.blackout_seconds, self.run.downtime_seconds),
        ]
    }
}

/// Every run, foretold from the other runs.
pub(crate) fn foretell(runs: &[Run]) -> Vec<Foretold> {
    let others = |at: usize| -> Vec<&Run> {
        runs.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, run)| run).collect()
    };
    runs.iter().enumerate().map(|(at, run)| foretell_one(run, &others(at))).collect()
}

fn foretell_one(run: &Run, others: &[&Run]) -> Foretold {
    let of_case: Vec<&Run> = others.iter().filter(|other| other.case == run.case).copied().collect();
    // How far the same forecast is off for the other runs, each foretold from those that are left.
    let residual = |other: &&Run| {
        let rest: Vec<&Run> = others.iter().filter(|one| !std::ptr::eq(**one, *other)).copied().collect();
        let replay = base(other, &rest, Effort::Glance, &[]).0;
        let off = |figure: Option<Quantiles>, came: f64| figure.map(|figure| came / figure.p50);
        let blackout = replay.blackout_seconds.map(|blackout| other.downtime_seconds - blackout.p50);
        Some((
            off(replay.total_seconds, other.total_seconds)?,
            off(replay.bytes, other.sent_bytes)?,
            blackout?,
        ))
    };
    let residuals: Vec<(f64, f64, f64)> = of_case.iter().filter_map(residual).collect();
    let (mut replay, answers) = base(run, others, Effort::Sketch, &[0.85, 1.0, 1.15]);
    let converges_at = <[f64; 3]>::try_from(answers).expect("an answer for each load");
    let total = Correction::of(residuals.iter().map(|off| off.0), 0.004);
    let bytes = Correction::of(residuals.iter().map(|off| off.1), 0.004);
    let blackout = Correction::of(residuals.iter().map(|off| off.2), 0.003);
    replay.total_seconds = replay.total_seconds.map(|figure| total.times(figure.p50));
    replay.bytes = replay.bytes.map(|figure| bytes.times(figure.p50));
    replay.blackout_seconds = replay.blackout_seconds.map(|figure| blackout.plus(figure.p50));
    let rounds = of_case.iter().flat_map(|other| &other.syncs);
    let rates = rounds.map(|(seconds, pages, _)| pages * PAGE / seconds.max(1e-3) / BANDWIDTH_LIMIT);
    let dirty_to_bandwidth_ratio = middle(rates).unwrap_or(0.0);
    Foretold { run: run.clone(), replay, converges_at, dirty_to_bandwidth_ratio }
}

/// Errors of the other runs: their middle corrects a forecast, and their range, widened, is its interval.
struct Correction(Quantiles);

impl Correction {
    fn of(errors: impl Iterator<Item = f64> + Clone, least: f64) -> Self {
        let p50 = middle(errors.clone()).unwrap_or(1.0);
        let (low, high) = errors.fold((p50, p50), |(low, high), error| (low.min(error), high.max(error)));
        let by = ((high - low) * WIDENED / 2.0).max(least);
        Self(Quantiles { p5: low - by, p50, p95: high + by })
    }

    fn times(&self, figure: f64) -> Quantiles {
        let Self(error) = self;
        Quantiles { p5: figure * error.p5, p50: figure * error.p50, p95: figure * error.p95 }
    }

    fn plus(&self, figure: f64) -> Quantiles {
        let Self(error) = self;
        let of = |error: f64| (figure + error).max(0.0);
        Quantiles { p5: of(error.p5), p50: of(error.p50), p95: of(error.p95) }
    }
}

/// Number of runs of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effort {
    Glance,
    Sketch,
}

/// The replay as it comes from the other runs, and its probability of completion with these loads, if they last.
fn base(run: &Run, others: &[&Run], effort: Effort, loads: &[f64]) -> (PredictedMigration, Vec<f64>) {
    let of_case: Vec<&Run> = others.iter().filter(|other| other.case == run.case).copied().collect();
    let guest = Guest::of(run, &of_case);
    let costs = Costs::learn(others);
    let settings = settings(run, &of_case);
    let load_end = ends_with_its_load(&run.case).then(|| LoadEnd {
        at_seconds: widened(of_case.iter().map(|other| other.total_seconds - 0.35)),
        remaining_ratio: 0.0,
    });
    let goal = Goal { longest_blackout_seconds: 10.0, deadline_seconds: Some(3600.0) };
    let trace = guest.trace(run.ram_bytes);
    let replayer = Replayer::of_groups(&trace).expect("a trace made of groups is sound");
    let conditions = Conditions {
        page_seconds: if run.post_copy.is_some() { costs.page_seconds } else { costs.switch_page_seconds },
        zero_page_seconds: costs.zero_page_seconds,
        resident_zero_ratio: guest.zero_among(&trace),
        load_end,
        load_ratio: LOAD_VARIES,
        ..bare()
    };
    let seed = u64::from(run.run);
    let run_with = |conditions: &Conditions| match effort {
        Effort::Glance => replayer.glance(&settings, conditions, &goal, seed),
        Effort::Sketch => replayer.sketch(&settings, conditions, &goal, seed),
    };
    let replay = run_with(&conditions);
    let lasting = |load_ratio: &f64| {
        let load_ratio = Interval { low: *load_ratio, high: *load_ratio };
        let conditions = Conditions { load_end: None, load_ratio, ..conditions.clone() };
        run_with(&conditions).converges_ratio
    };
    (replay, loads.iter().map(lasting).collect())
}

/// Cases whose load ended at a time of its own, and with it the migration.
fn ends_with_its_load(case: &str) -> bool {
    matches!(case, "precopy-near-critical" | "precopy-read-only")
}

fn bare() -> Conditions {
    Conditions {
        goodput_bytes_per_second: 2.0e10,
        goodput_cv: 0.002,
        socket_queue_bytes: Interval { low: 1.0e5, high: 2.0e5 },
        silent_pages: Interval::none(),
        setup_seconds: Interval { low: 0.001, high: 0.006 },
        other_bytes: Interval { low: 2.0e5, high: 2.0e5 },
        stop_seconds: Interval::none(),
        start_seconds: Interval::none(),
        finish_seconds: Interval::none(),
        ..Conditions::default()
    }
}

fn settings(run: &Run, of_case: &[&Run]) -> MigrationParameters {
    let post_copy_at = middle(of_case.iter().filter_map(|other| Some(other.post_copy?.at_seconds)));
    let schedule = match post_copy_at {
        // QEMU looks at the order between two waits for its bandwidth limit: half a wait later, on average.
        Some(at) if run.post_copy.is_some() => Schedule::default().and(at - 0.05, ScheduledAction::PostCopy),
        _ => Schedule::default(),
    };
    MigrationParameters {
        qemu: Version { major: 10, minor: 2, micro: 0 },
        accelerator: Accelerator::Kvm,
        downtime_limit_seconds: DOWNTIME_LIMIT_SECONDS,
        bandwidth_limit_bytes_per_second: Some(BANDWIDTH_LIMIT),
        auto_converge: (run.case == "auto-converge").then(AutoConverge::default),
        schedule,
        ..MigrationParameters::default()
    }
}

/// Costs of this pair of hosts, from the post-copy phases of the other runs: pages with content and zero ones.
struct Costs {
    page_seconds: f64,
    zero_page_seconds: f64,
    /// The same in a switchover, at most: the shortest of them sent this many pages, if it did nothing else.
    switch_page_seconds: f64,
}

impl Costs {
    /// Least squares over seconds = pages · a + zero pages · b.
    fn learn(others: &[&Run]) -> Self {
        let rest = BANDWIDTH_LIMIT * DOWNTIME_LIMIT_SECONDS * 0.8 / PAGE;
        let pre_copy = others.iter().filter(|run| run.post_copy.is_none());
        let shortest = pre_copy.map(|run| run.downtime_seconds).fold(0.02, f64::min);
        let switch_page_seconds = shortest / rest;
        let seen: Vec<PostCopy> = others.iter().filter_map(|run| run.post_copy).collect();
        let sum = |of: fn(&PostCopy) -> f64| seen.iter().map(of).sum::<f64>();
        let (nn, zz) = (sum(|p| p.pages * p.pages), sum(|p| p.zero_pages * p.zero_pages));
        let (nz, ns) = (sum(|p| p.pages * p.zero_pages), sum(|p| p.pages * p.seconds));
        let zs = sum(|p| p.zero_pages * p.seconds);
        let determinant = nn * zz - nz * nz;
        if determinant <= nn * zz * 1e-6 {
            return Self { page_seconds: 1.5e-6, zero_page_seconds: 0.45e-6, switch_page_seconds };
        }
        Self {
            page_seconds: ((ns * zz - zs * nz) / determinant).max(0.1e-6),
            zero_page_seconds: ((zs * nn - ns * nz) / determinant).max(0.05e-6),
            switch_page_seconds,
        }
    }
}

/// The guest of a run as the other runs show it.
struct Guest {
    groups: Vec<PageGroup>,
    zero_ratio: f64,
    /// Pages with content.
    content: Interval,
}

impl Guest {
    fn of(run: &Run, of_case: &[&Run]) -> Self {
        let ram_pages = run.ram_bytes as f64 / PAGE;
        // Pages with content by resident page: what the others say of how tight that bound is.
        let by_resident =
            of_case.iter().filter_map(|o| Some(content_pages(o) * PAGE / o.resident_bytes? as f64));
        let content = match run.resident_bytes {
            Some(resident) => {
                let ratio = widened(by_resident);
                let pages = resident as f64 / PAGE;
                Interval { low: ratio.low * pages, high: (ratio.high * pages).min(ram_pages) }
            }
            None => widened(of_case.iter().map(|other| content_pages(other))),
        };
        let groups = groups(of_case, content.high);
        let written: f64 = groups.iter().map(|group| group.pages).sum();
        Self {
            zero_ratio: ((ram_pages - content.high) / (ram_pages - written)).clamp(0.0, 1.0),
            content,
            groups,
        }
    }

    fn trace(&self, ram_bytes: u64) -> DirtyTrace {
        from_page_groups(&self.groups, ram_bytes, self.zero_ratio, 7)
    }

    /// Share of zero pages among those of the trace that are never written, by which the least content is reached.
    fn zero_among(&self, trace: &DirtyTrace) -> Interval {
        let (pages, ticks) = (trace.pages.as_slice().len(), trace.tick_microseconds.len());
        let written = |page: usize| (0..ticks).any(|tick| trace.changes.get(page * ticks + tick));
        let weights = trace.weights();
        let unwritten: f64 = (0..pages)
            .filter(|page| !trace.zero.get(*page) && !written(*page))
            .map(|page| weights[page])
            .sum();
        let too_many = (self.content.high - self.content.low) / unwritten.max(1.0);
        Interval { low: 0.0, high: too_many.min(1.0) }
    }
}

/// Pages with content that a migration would send first, whatever it sent by post-copy.
fn content_pages(run: &Run) -> f64 {
    match run.post_copy {
        Some(post) if run.first_pass_pages < 0.1 * post.pages => run.first_pass_pages + post.pages,
        _ => run.first_pass_pages,
    }
}

/// Groups of pages that explain what the syncs of these runs found dirty.
///
/// A page that was sent counts as dirty again from the moment on at which the cursor entered its GiB (KVM clears its log then),
/// a clean one from the last sync, and one that was dirty and not sent is not found anew. So of pages written at one rate, the
/// share that a sync finds follows from the share that was dirty before.
fn groups(runs: &[&Run], most: f64) -> Vec<PageGroup> {
    let counts: Vec<f64> =
        runs.iter().flat_map(|run| steady(&run.syncs)).map(|(_, pages, _)| pages.max(1.0)).collect();
    let shares = |rate: f64| -> Vec<f64> {
        let of_run = |run: &&Run| {
            let gib = (run.ram_bytes >> 30).max(1) as u32;
            let mut dirty = 1.0;
            let found = steady(&run.syncs).into_iter().map(|(seconds, _, sent)| {
                let in_time = |seconds: f64| -f64::exp_m1(-rate * seconds);
                let since_sync = in_time(seconds);
                let entered = (0..gib).map(|at| in_time(seconds * (1.0 - f64::from(at) / f64::from(gib))));
                let since_entered = entered.sum::<f64>() / f64::from(gib);
                let found = dirty * sent * since_entered + (1.0 - dirty) * since_sync;
                dirty = dirty * (1.0 - sent) + found;
                found
            });
            found.collect::<Vec<f64>>()
        };
        runs.iter().flat_map(of_run).collect()
    };
    if counts.is_empty() { Vec::new() } else { fit(&counts, &shares, most) }
}

/// The syncs with the means of all short rounds in place of these, as often as it takes for what was before to be forgotten.
fn steady(syncs: &[Round]) -> Vec<Round> {
    let (short, mut long): (Vec<Round>, Vec<Round>) =
        syncs.iter().partition(|(seconds, ..)| *seconds < SHORT_SECONDS);
    if short.len() < MANY {
        return syncs.to_vec();
    }
    let number = short.len() as f64;
    let sum = short.iter().fold((0.0, 0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1, sum.2 + one.2));
    let mean = (sum.0 / number, sum.1 / number, sum.2 / number);
    long.extend(std::iter::repeat_n(mean, MANY));
    long
}

pub(crate) fn middle(figures: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    Some(f64::midpoint(*sorted.get(last / 2)?, *sorted.get(last.div_ceil(2))?))
}

/// Range of these figures, wider at both ends by a part of it; never below zero.
fn widened(figures: impl Iterator<Item = f64>) -> Interval {
    let (low, high) = figures
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), figure| (low.min(figure), high.max(figure)));
    if low > high {
        return Interval::none();
    }
    let by = (high - low) * WIDENED;
    Interval { low: (low - by).max(0.0), high: (high + by).max(0.0) }
}
