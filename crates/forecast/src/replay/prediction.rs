//! Prediction of a migration from all runs of a replay.

use serde::{Deserialize, Serialize};
use vmgate_facts::{Quantiles, RemainingMemory};

use super::{run::ReplayResult, settings::MigrationParameters, timeline};

/// Predicted migration, from all runs of a replay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredictedMigration {
    /// Share of the runs that completed by the deadline, including the expected share of those that were stopped early.
    pub converges_ratio: f64,
    /// Duration from the order to migrate to the end, of the runs that completed; none where no run did.
    pub total_seconds: Option<Quantiles>,
    /// Bytes that QEMU hands to the network, of the runs that completed.
    pub bytes: Option<Quantiles>,
    /// Synchronisations of the dirty bitmap (QEMU's dirty-sync-count), of the runs that completed.
    pub rounds: Option<Quantiles>,
    /// Blackout (silence of the guest), of the runs that completed.
    pub blackout_seconds: Option<Quantiles>,
    /// Strongest throttle reached, in percent; 0 without auto-converge.
    pub throttle_percent: f64,
    /// Length of one pause of the vCPUs under that throttle, repeated while the migration lasts: QEMU lets a vCPU run
    /// for 10 ms and then sleep, at 99 % for 0.99 s. Peers of the guest notice such a pause like a blackout.
    #[serde(default)]
    pub throttle_pause_seconds: f64,
    /// Memory that the guest fetches from the source after a switch to post-copy; none without post-copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_bytes: Option<Quantiles>,
    /// Time until that memory is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_seconds: Option<Quantiles>,
    /// Smallest rest that was ever left to send, as time at the goodput: the best blackout that the dirty rate allows.
    pub least_left_seconds: Option<Quantiles>,
    /// Factor that decides the duration, or keeps the migration from completing.
    pub limit: LimitingFactor,
    /// Number of runs.
    pub runs: u32,
    /// Memory left to send in the course of the migration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timeline: Vec<RemainingMemory>,
    /// Ends of the rounds in the run with the median duration, counted from the order to migrate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub round_ends_seconds: Vec<f64>,
}

/// Factor that limits a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitingFactor {
    /// Goodput of the migration path.
    Path,
    /// CPU time of QEMU's migration thread.
    Cpu,
    /// Bandwidth limit of this change.
    BandwidthLimit,
    /// Dirty rate: most of the sent memory was sent before, or pre-copy never ends.
    DirtyRate,
    /// Downtime limit: the rest to send stays slightly above it.
    DowntimeLimit,
}

impl LimitingFactor {
    /// Name of the factor, in words that fit after "limited by".
    pub fn words(self) -> &'static str {
        match self {
            Self::Path => "the bandwidth of the migration path",
            Self::Cpu => "the CPU time that QEMU takes to send a page",
            Self::BandwidthLimit => "the bandwidth limit set for this change",
            Self::DirtyRate => "the guest's dirty rate",
            Self::DowntimeLimit => "the downtime limit: the rest to send stays slightly above it",
        }
    }
}

/// Share of the time above which a factor counts as the limiting one.
const DOMINANT_RATIO: f64 = 0.6;
/// A migration that would complete with a downtime limit this many times as long is limited by the downtime limit.
const NEAR_LIMIT_FACTOR: f64 = 4.0;

impl PredictedMigration {
    pub(super) fn from_runs(
        runs: &[ReplayResult],
        settings: &MigrationParameters,
        deadline_seconds: f64,
    ) -> Self {
        let done: Vec<&ReplayResult> = runs.iter().filter(|run| run.converged).collect();
        let of = |figure: fn(&ReplayResult) -> f64| quantiles(done.iter().map(|run| figure(run)));
        let remote = |figure: fn(&ReplayResult) -> f64| {
            quantiles(done.iter().filter(|run| run.remote_bytes > 0.0).map(|run| figure(run)))
        };
        let all = |figure: fn(&ReplayResult) -> f64| {
            quantiles(runs.iter().map(figure)).map_or(0.0, |seen| seen.p50)
        };
        let in_time = done.iter().filter(|run| run.total_seconds <= deadline_seconds).count();
        let later = expected_later_completions(runs, done.len(), deadline_seconds);
        let converges_ratio = (in_time as f64 + later) / runs.len().max(1) as f64;
        let least_left =
            quantiles(runs.iter().map(|run| run.least_left_seconds).filter(|left| left.is_finite()));
        let throttle_percent = runs.iter().map(|run| run.throttle_percent).fold(0.0, f64::max);
        let limit = if all(|run| run.limited_ratio) > 1.0 - DOMINANT_RATIO {
            LimitingFactor::BandwidthLimit
        } else if converges_ratio < 0.5 {
            let near = settings.downtime_limit_seconds * NEAR_LIMIT_FACTOR;
            if least_left.is_some_and(|left| left.p50 < near) {
                LimitingFactor::DowntimeLimit
            } else {
                LimitingFactor::DirtyRate
            }
        } else if all(|run| run.dirtied_to_sent) > DOMINANT_RATIO {
            LimitingFactor::DirtyRate
        } else if all(|run| run.cpu_ratio) > DOMINANT_RATIO {
            LimitingFactor::Cpu
        } else {
            LimitingFactor::Path
        };
        Self {
            converges_ratio,
            total_seconds: of(|run| run.total_seconds),
            bytes: of(|run| run.bytes),
            rounds: of(|run| run.rounds),
            blackout_seconds: of(|run| run.blackout_seconds),
            throttle_percent,
            throttle_pause_seconds: throttle_pause(throttle_percent),
            remote_bytes: remote(|run| run.remote_bytes),
            remote_seconds: remote(|run| run.remote_seconds),
            least_left_seconds: least_left,
            limit,
            runs: u32::try_from(runs.len()).unwrap_or(u32::MAX),
            timeline: timeline::timeline(runs),
            round_ends_seconds: timeline::rounds_of_the_middle(runs),
        }
    }
}

/// Time slice for which a throttled vCPU runs (CPU_THROTTLE_TIMESLICE_NS).
const TIMESLICE_SECONDS: f64 = 0.010;

/// Sleep of a vCPU after each time slice (cpu_throttle_thread).
fn throttle_pause(percent: f64) -> f64 {
    TIMESLICE_SECONDS * percent / (100.0 - percent).max(1.0)
}

/// Expected number of the runs stopped early that would have completed by the deadline, at the rate of completion of
/// the runs that continued.
fn expected_later_completions(runs: &[ReplayResult], done: usize, deadline_seconds: f64) -> f64 {
    let exposed: f64 = runs.iter().map(|run| run.exposed_seconds).sum();
    if exposed <= 0.0 {
        return 0.0;
    }
    let rate = done as f64 / exposed;
    runs.iter()
        .filter_map(|run| run.given_up_at)
        .map(|at| -libm::expm1(-rate * (deadline_seconds - at).max(0.0)))
        .sum()
}

/// 5th, 50th and 95th percentile, interpolated between the two nearest figures.
pub(super) fn quantiles(figures: impl Iterator<Item = f64>) -> Option<Quantiles> {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let at = |share: f64| {
        let place = share * last as f64;
        let (below, above) = (place.floor() as usize, place.ceil() as usize);
        let (low, high) = (sorted.get(below)?, sorted.get(above)?);
        Some(low + (high - low) * place.fract())
    };
    Some(Quantiles { p5: at(0.05)?, p50: at(0.5)?, p95: at(0.95)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_given_up_counts_for_what_it_would_have_done() {
        let ended = ReplayResult { converged: true, exposed_seconds: 20.0, ..ReplayResult::default() };
        let given_up =
            ReplayResult { exposed_seconds: 60.0, given_up_at: Some(60.0), ..ReplayResult::default() };
        let settings = MigrationParameters::default();
        let never = PredictedMigration::from_runs(&vec![given_up.clone(); 4], &settings, 600.0);
        assert!(never.converges_ratio < 1e-9 && never.total_seconds.is_none());
        // One in 80 s: over the 540 s that each of the others had left, nearly all would have ended.
        let mostly = PredictedMigration::from_runs(&[ended, given_up], &settings, 600.0);
        assert!((0.95..1.0).contains(&mostly.converges_ratio), "{mostly:?}");
    }

    #[test]
    fn a_throttled_guest_stands_still_for_as_long_as_qemu_lets_it_sleep() {
        assert!((throttle_pause(99.0) - 0.99).abs() < 1e-9);
        assert!((throttle_pause(50.0) - 0.01).abs() < 1e-9);
        assert!(throttle_pause(0.0) < 1e-12);
    }

    #[test]
    fn quantiles_lie_between_the_figures() {
        let seen = quantiles((0..=100).map(f64::from)).unwrap();
        assert!(
            (seen.p5 - 5.0).abs() < 1e-9 && (seen.p50 - 50.0).abs() < 1e-9 && (seen.p95 - 95.0).abs() < 1e-9
        );
        assert_eq!(quantiles(std::iter::empty()), None);
    }
}
