//! Forecasts under other settings: the migration with each single change of settings, and the mildest change that meets the goal.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{AutoConverge, Conditions, Goal, MigrationParameters, PredictedMigration, Replayer};

/// Number of runs for each alternative: enough for a choice.
const RUNS: usize = 24;
/// Number of runs for a yes or no.
const FEW_RUNS: usize = 8;
/// Minimum probability of completion for a recommendation.
const SURE: f64 = 0.95;
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

/// A change of settings, or of the path.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SettingsChange {
    /// No bandwidth limit.
    NoBandwidthLimit,
    /// A path of twice the goodput.
    TwiceTheGoodput,
    /// Several parallel connections (multifd).
    Multifd,
    /// Differences instead of whole pages (XBZRLE).
    Xbzrle,
    /// Throttling of the vCPUs where needed (auto-converge).
    AutoConverge,
    /// Switchover to post-copy after the first pass: always completes, but a failure after the switchover loses the
    /// guest.
    PostCopy,
}

impl SettingsChange {
    /// Name of the change, in words that fit after "with".
    pub fn words(self) -> &'static str {
        match self {
            Self::NoBandwidthLimit => "no bandwidth limit",
            Self::TwiceTheGoodput => "a path of twice the goodput",
            Self::Multifd => "4 parallel connections (multifd)",
            Self::Xbzrle => "XBZRLE",
            Self::AutoConverge => "auto-converge",
            Self::PostCopy => "post-copy",
        }
    }
}

impl Replayer<'_> {
    /// Predicts the migration with the present settings and with each change, and names the mildest settings that meet
    /// the goal. Each time the downtime limit is the longest that keeps the blackout within the goal, if there is one.
    pub fn advise(
        &self,
        settings: &MigrationParameters,
        conditions: &Conditions,
        goal: &Goal,
        seed: u64,
    ) -> Advice {
        let (mut own, _) = self.limited(settings, conditions, goal, seed);
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
            let (settings, conditions) = with(step, settings, conditions);
            let (settings, replay) = self.limited(&settings, &conditions, goal, seed);
            WhatIf { step, settings, replay }
        };
        let what_if: Vec<WhatIf> = steps(settings).into_par_iter().map(try_out).collect();
        let recommended = if goal.is_met_by(&as_it_is) {
            Some(Recommendation { step: None, settings: own.clone(), replay: as_it_is.clone() })
        } else {
            let others = what_if.iter().filter(|what| what.step != SettingsChange::TwiceTheGoodput);
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

    /// Finds the longest downtime limit that keeps the blackout within the goal; returns the settings and a sketch of
    /// the migration. QEMU counts only a part of the blackout, so the limit lies below the accepted blackout by the
    /// part that the sketch adds. A limit with which the migration no longer completes is rejected in favour of the one
    /// before.
    fn limited(
        &self,
        settings: &MigrationParameters,
        conditions: &Conditions,
        goal: &Goal,
        seed: u64,
    ) -> (MigrationParameters, PredictedMigration) {
        let sketch = |settings: MigrationParameters| {
            let replay = self.sketch(&settings, conditions, goal, seed);
            (settings, replay)
        };
        let longest = goal.longest_blackout_seconds;
        let mut chosen = sketch(MigrationParameters { downtime_limit_seconds: longest, ..settings.clone() });
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

/// Changes to try, the mildest first. QEMU refuses multifd together with XBZRLE or with post-copy.
fn steps(settings: &MigrationParameters) -> Vec<SettingsChange> {
    let mut steps = vec![SettingsChange::TwiceTheGoodput];
    if settings.bandwidth_limit_bytes_per_second.is_some() {
        steps.push(SettingsChange::NoBandwidthLimit);
    }
    if settings.multifd_channels.is_none() && settings.xbzrle_cache_bytes.is_none() && !settings.post_copy {
        steps.push(SettingsChange::Multifd);
    }
    if settings.xbzrle_cache_bytes.is_none() && settings.multifd_channels.is_none() {
        steps.push(SettingsChange::Xbzrle);
    }
    if settings.auto_converge.is_none() {
        steps.push(SettingsChange::AutoConverge);
    }
    if !settings.post_copy && settings.multifd_channels.is_none() {
        steps.push(SettingsChange::PostCopy);
    }
    steps
}

fn with(
    step: SettingsChange,
    settings: &MigrationParameters,
    conditions: &Conditions,
) -> (MigrationParameters, Conditions) {
    let (mut settings, mut conditions) = (settings.clone(), conditions.clone());
    match step {
        SettingsChange::NoBandwidthLimit => settings.bandwidth_limit_bytes_per_second = None,
        SettingsChange::TwiceTheGoodput => conditions.goodput_bytes_per_second *= 2.0,
        SettingsChange::Multifd => settings.multifd_channels = Some(4),
        SettingsChange::Xbzrle => settings.xbzrle_cache_bytes = Some(64 << 20),
        SettingsChange::AutoConverge => settings.auto_converge = Some(AutoConverge::default()),
        SettingsChange::PostCopy => settings.post_copy = true,
    }
    (settings, conditions)
}

impl Goal {
    /// True if a migration meets the goal surely enough.
    pub fn is_met_by(&self, replay: &PredictedMigration) -> bool {
        let longest = self.longest_blackout_seconds;
        let short = replay.blackout_seconds.is_some_and(|blackout| blackout.p95 <= longest);
        replay.converges_ratio >= SURE && short && replay.throttle_pause_seconds <= longest
    }
}
