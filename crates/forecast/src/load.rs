//! Dependence of the answer on the guest's load: near the speed of the path a little more or less load decides if the
//! migration completes, and no evidence of the last seconds knows the load of the next minutes.

use rayon::prelude::*;
use vmgate_facts::{HourChance, LoadDependence, ObservedHour, guarded_limit_seconds};

use super::replay::{
    Conditions, Goal, Interval, LoadEnd, MigrationParameters, PredictedMigration, Replayer, synthetic_trace,
};

/// Change of the load that a forecast must withstand: within it, a ratio of dirty rate to goodput counts as near 1.
const WITHSTANDS: f64 = 0.15;
/// Probabilities that count as yes and no.
const YES: f64 = 0.9;
const NO: f64 = 0.1;
/// Halvings of the range in which the highest load that converges is searched: to 1 %.
const HALVINGS: u32 = 7;
/// Ratios of dirty rate to goodput that are far from 1, whatever the guest's working set.
const CLEAR: (f64, f64) = (0.3, 4.0);

/// The replay of a guest, to be repeated with other loads.
pub(super) struct LoadQuestion<'r, 't> {
    pub(super) replayer: &'r Replayer<'t>,
    pub(super) settings: &'r MigrationParameters,
    pub(super) conditions: &'r Conditions,
    pub(super) goal: &'r Goal,
    pub(super) seed: u64,
}

impl LoadQuestion<'_, '_> {
    /// Dependence of this answer on the load; `None` where it withstands a change of the load.
    pub(super) fn dependence(
        &self,
        answer: &PredictedMigration,
        ratio: Option<f64>,
        hours: &[ObservedHour],
        guest: (u64, f64),
    ) -> Option<LoadDependence> {
        let clear = ratio.is_some_and(|ratio| ratio < CLEAR.0 || ratio > CLEAR.1);
        if clear || self.settings.post_copy || self.settings.auto_converge.is_some() {
            return None;
        }
        let now = answer.converges_ratio;
        let near = ratio.is_some_and(|ratio| (ratio - 1.0).abs() <= WITHSTANDS);
        let depends = if now >= YES {
            self.chance(1.0 + WITHSTANDS) < YES
        } else if now <= NO {
            near || self.chance(1.0 - WITHSTANDS) > NO
        } else {
            true
        };
        if !depends {
            return None;
        }
        let up_to = self.highest_load();
        Some(LoadDependence {
            converges_up_to_ratio: up_to,
            low_for_seconds: self.low_for(up_to, answer),
            guarded_converges_ratio: self.guarded(),
            hours: self.by_hour(hours, guest),
        })
    }

    fn sketch(&self, conditions: &Conditions) -> PredictedMigration {
        self.replayer.glance(self.settings, conditions, self.goal, self.seed)
    }

    fn chance(&self, load_ratio: f64) -> f64 {
        let load_ratio = Interval { low: load_ratio, high: load_ratio };
        self.sketch(&Conditions { load_ratio, ..self.conditions.clone() }).converges_ratio
    }

    fn highest_load(&self) -> f64 {
        let (mut low, mut high) = (0.0, 1.6);
        for _ in 0..HALVINGS {
            let middle = f64::midpoint(low, high);
            if self.chance(middle) >= YES { low = middle } else { high = middle }
        }
        low
    }

    /// Time for which the load must stay at most this high once the first pass is over, until the migration completes.
    fn low_for(&self, up_to: f64, answer: &PredictedMigration) -> f64 {
        let first_pass = answer.round_ends_seconds.first().copied().unwrap_or(0.0);
        let falls_at = first_pass.max(1.0) * 1.2;
        let end = LoadEnd {
            at_seconds: Interval { low: falls_at, high: falls_at },
            remaining_ratio: (up_to * 0.95).min(0.95),
        };
        let replay = self.sketch(&Conditions { load_end: Some(end), ..self.conditions.clone() });
        replay.total_seconds.map_or(0.0, |total| (total.p95 - falls_at).max(0.0))
    }

    /// Probability of completion with the longest downtime limit that the guard sets.
    fn guarded(&self) -> f64 {
        let limit = guarded_limit_seconds(self.goal.longest_blackout_seconds);
        let downtime_limit_seconds = limit.max(self.settings.downtime_limit_seconds);
        let settings = MigrationParameters { downtime_limit_seconds, ..self.settings.clone() };
        self.replayer.glance(&settings, self.conditions, self.goal, self.seed).converges_ratio
    }

    fn by_hour(&self, hours: &[ObservedHour], (ram_bytes, zero_ratio): (u64, f64)) -> Vec<HourChance> {
        let chance = |hour: &ObservedHour| {
            let groups = synthetic_trace::fit_page_groups(&hour.dirty_windows, ram_bytes);
            let trace = synthetic_trace::from_page_groups(&groups, ram_bytes, zero_ratio, self.seed);
            let replayer = Replayer::of_groups(&trace).ok()?;
            let replay = replayer.glance(self.settings, self.conditions, self.goal, self.seed);
            Some(HourChance { hour: hour.hour, converges_ratio: replay.converges_ratio })
        };
        hours.par_iter().filter_map(chance).collect()
    }
}

/// The dependence in words for the advice: how far and how long the load must fall, what the guard does about it, and when it was
/// lower.
pub(super) fn in_words(load: &LoadDependence) -> String {
    let percent = |ratio: f64| (ratio * 100.0).round();
    let chances = load.hours.iter().map(|hour| (hour.converges_ratio, hour.hour));
    let best = chances.reduce(|one, other| if other.0 > one.0 { other } else { one });
    let hour = best.map_or_else(String::new, |(chance, hour)| {
        format!("; at {hour:02}:00 UTC it completed in {} % of the replays", percent(chance))
    });
    format!(
        "depends on the load: it completes while the guest writes at most {} % of what it wrote when it was measured, for the \
         last {:.0} s of the copy; as it writes now, it completes in {} % of the replays with the longest downtime limit that the \
         guard sets{hour}",
        percent(load.converges_up_to_ratio),
        load.low_for_seconds.ceil(),
        percent(load.guarded_converges_ratio),
    )
}
