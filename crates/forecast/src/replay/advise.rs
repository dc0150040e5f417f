//! Forecasts under other settings: the migration with each single change of settings, and the mildest change that meets the goal.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Conditions, Goal, MigrationParameters, PredictedMigration, Replayer, SettingsChange};

/// Number of runs for each alternative: enough for a choice.
const RUNS: usize = 24;
/// Number of runs for a yes or no.
const FEW_RUNS: usize = 8;
/// Minimum probability of completion for a recommendation.
pub(super) const SURE: f64 = 0.95;
/// Part of the accepted blackout at which the downtime limit aims, as a margin for the few runs of the choice.
const AIM: f64 = 0.97;
/// Maximum number of downtime limits tried, and the smallest one.
const LIMITS: u32 = 3;
const LEAST_LIMIT_SECONDS: f64 = 0.01;

/// Forecast with alternatives and a recommendation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Advice {
    /// Migration with the present settings.
    pub as_it_is: PredictedMigration,
    /// Present settings with the chosen downtime limit.
    pub settings: MigrationParameters,
    /// Migration with each single change.
    pub what_if: Vec<WhatIf>,
    /// Mildest settings that meet the goal; none where none of the tried settings does.
    pub recommended: Option<Recommendation>,
}

/// Migration predicted with one change of settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhatIf {
    /// Change of settings.
    pub step: SettingsChange,
    /// Complete settings.
    pub settings: MigrationParameters,
    /// Migration predicted with these settings.
    pub replay: PredictedMigration,
}

/// Recommended settings, which meet the goal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recommendation {
    /// Change from the present settings; none where the present settings meet the goal.
    pub step: Option<SettingsChange>,
    /// Complete settings.
    pub settings: MigrationParameters,
    /// Migration predicted with these settings.
    pub replay: PredictedMigration,
}

impl Replayer<'_> {
    /// Predicts the migration with the present settings and with each change, and names the mildest settings that meet
    /// the goal. The downtime limit is the longest that keeps the blackout within the goal, if there is one; a change has no
    /// longer one unless it converges only then.
    pub fn advise(
        &self,
        settings: &MigrationParameters,
        conditions: &Conditions,
        goal: &Goal,
        seed: u64,
    ) -> Advice {
        let longest = goal.longest_blackout_seconds;
        let (mut own, _) = self.limited(settings, conditions, goal, longest, seed);
        let mut as_it_is = self.replay(&own, conditions, goal, seed);
        // More runs may show a longer blackout than the few runs that chose the limit.
        if let Some(shorter) = shorter(&own, &as_it_is, goal)
            && as_it_is.blackout_seconds.is_some_and(|seen| seen.p95 > goal.longest_blackout_seconds)
        {
            let again = self.replay(&shorter, conditions, goal, seed);
            if again.converges_ratio >= SURE {
                (own, as_it_is) = (shorter, again);
            }
        }
        let try_out = |step: SettingsChange| {
            let (settings, conditions) = step.apply(&own, conditions, &as_it_is);
            let (settings, replay) = if step.sets_the_limit() {
                let replay = self.sketch(&settings, &conditions, goal, seed);
                (settings, replay)
            } else {
                self.limited(&settings, &conditions, goal, own.downtime_limit_seconds, seed)
            };
            WhatIf { step, settings, replay }
        };
        let steps = SettingsChange::of(settings, &as_it_is);
        let what_if: Vec<WhatIf> = steps.into_par_iter().map(try_out).collect();
        let recommended = if goal.is_met_by(&as_it_is) {
            Some(Recommendation { step: None, settings: own.clone(), replay: as_it_is.clone() })
        } else {
            let others = what_if.iter().filter(|what| what.step.can_be_ordered());
            others.filter(|what| goal.is_met_by(&what.replay)).map(Recommendation::from).next()
        };
        Advice { as_it_is, settings: own, what_if, recommended }
    }

    /// Forecast from few runs, enough for a choice.
    pub fn sketch(
        &self,
        settings: &MigrationParameters,
        conditions: &Conditions,
        goal: &Goal,
        seed: u64,
    ) -> PredictedMigration {
        self.runs(settings, conditions, goal, seed, RUNS)
    }

    /// Forecast from very few runs, enough to see if a migration completes.
    pub fn glance(
        &self,
        settings: &MigrationParameters,
        conditions: &Conditions,
        goal: &Goal,
        seed: u64,
    ) -> PredictedMigration {
        self.runs(settings, conditions, goal, seed, FEW_RUNS)
    }

    /// Finds the longest downtime limit up to `longest` that keeps the blackout within the goal, or a longer one if it does not
    /// complete with that; returns the settings and a sketch of the migration. QEMU counts only a part of the blackout, so the limit lies below the accepted blackout by the
    /// part that the sketch adds. A limit with which the migration no longer completes is rejected in favour of the one
    /// before.
    fn limited(
        &self,
        settings: &MigrationParameters,
        conditions: &Conditions,
        goal: &Goal,
        longest: f64,
        seed: u64,
    ) -> (MigrationParameters, PredictedMigration) {
        let sketch = |settings: MigrationParameters| {
            let replay = self.sketch(&settings, conditions, goal, seed);
            (settings, replay)
        };
        let with = |downtime_limit_seconds| {
            sketch(MigrationParameters { downtime_limit_seconds, ..settings.clone() })
        };
        let mut chosen = with(longest);
        if chosen.1.converges_ratio < SURE && longest < goal.longest_blackout_seconds {
            chosen = with(goal.longest_blackout_seconds);
        }
        for _ in 1..LIMITS {
            let Some(next) = shorter(&chosen.0, &chosen.1, goal) else { break };
            let next = sketch(next);
            if next.1.converges_ratio < SURE {
                break;
            }
            chosen = next;
        }
        chosen
    }
}

impl From<&WhatIf> for Recommendation {
    fn from(what: &WhatIf) -> Self {
        Self { step: Some(what.step), settings: what.settings.clone(), replay: what.replay.clone() }
    }
}

/// Settings with the downtime limit reduced by the excess of the blackout; `None` if there is no excess, or the limit
/// cannot be reduced further.
fn shorter(
    settings: &MigrationParameters,
    replay: &PredictedMigration,
    goal: &Goal,
) -> Option<MigrationParameters> {
    let over = replay.blackout_seconds?.p95 - goal.longest_blackout_seconds * AIM;
    let limit = settings.downtime_limit_seconds;
    (over > 0.0 && limit > LEAST_LIMIT_SECONDS).then(|| MigrationParameters {
        downtime_limit_seconds: (limit - over).max(LEAST_LIMIT_SECONDS),
        ..settings.clone()
    })
}

impl Goal {
    /// True if a migration meets the goal surely enough.
    pub fn is_met_by(&self, replay: &PredictedMigration) -> bool {
        let longest = self.longest_blackout_seconds;
        let short = replay.blackout_seconds.is_some_and(|blackout| blackout.p95 <= longest);
        replay.converges_ratio >= SURE && short && replay.throttle_pause_seconds <= longest
    }
}
