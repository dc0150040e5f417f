//! What each setting would change, and the mildest that meets the goal.

use serde::{Deserialize, Serialize};

use super::{AutoConverge, Conditions, Goal, Replay, Replayer, Settings};

/// Runs for each alternative: enough to choose by.
const RUNS: u32 = 24;
/// How sure the recommendation must be.
const SURE: f64 = 0.95;
/// Downtime limits that are tried, by the longest blackout.
const LIMIT_STEPS: [f64; 6] = [1.0, 0.8, 0.6, 0.4, 0.25, 0.1];

/// A forecast with its alternatives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Advice {
    /// The migration as it is set up.
    pub as_it_is: Replay,
    /// What one change would make of it.
    pub what_if: Vec<WhatIf>,
    /// The mildest settings that meet the goal; none where none of those tried does.
    pub recommended: Option<Recommended>,
}

/// One change and what it makes of the migration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhatIf {
    /// The change.
    pub step: Step,
    /// The migration then.
    pub replay: Replay,
}

/// Settings that meet the goal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recommended {
    /// What differs from the settings as they are; none where they already do.
    pub step: Option<Step>,
    /// All of the settings.
    pub settings: Settings,
    /// The migration with them.
    pub replay: Replay,
}

/// A change of settings, or of the path.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// This downtime limit, in seconds.
    DowntimeLimit(f64),
    /// No bandwidth limit.
    NoBandwidthLimit,
    /// A path of twice the goodput.
    TwiceTheGoodput,
    /// Several connections.
    Multifd,
    /// Differences in place of whole pages.
    Xbzrle,
    /// Throttle the vCPUs when need be.
    AutoConverge,
    /// Switch to post-copy after the first pass: it always ends, and a failure on the way loses the guest.
    PostCopy,
}

impl Step {
    /// The step in words that fit after "with".
    pub fn words(self) -> String {
        match self {
            Self::DowntimeLimit(seconds) => format!("a downtime limit of {:.0} ms", seconds * 1000.0),
            Self::NoBandwidthLimit => "no bandwidth limit".into(),
            Self::TwiceTheGoodput => "a path of twice the goodput".into(),
            Self::Multifd => "4 parallel connections (multifd)".into(),
            Self::Xbzrle => "XBZRLE".into(),
            Self::AutoConverge => "auto-converge".into(),
            Self::PostCopy => "post-copy".into(),
        }
    }
}

impl Replayer<'_> {
    /// Predicts the migration as it is set up, with each change, and names the mildest settings that meet the goal.
    pub fn advise(&self, settings: &Settings, conditions: &Conditions, goal: &Goal, seed: u64) -> Advice {
        let as_it_is = self.replay(settings, conditions, goal, seed);
        let try_out = |step: Step| {
            let (settings, conditions) = with(step, settings, conditions, goal);
            WhatIf { step, replay: self.runs(&settings, &conditions, goal, seed, RUNS) }
        };
        let what_if: Vec<WhatIf> = steps(settings).into_iter().map(try_out).collect();
        let recommended = if meets(&as_it_is, goal) {
            Some(Recommended { step: None, settings: settings.clone(), replay: as_it_is.clone() })
        } else {
            self.mildest(settings, conditions, goal, seed, &what_if)
        };
        Advice { as_it_is, what_if, recommended }
    }

    fn mildest(
        &self,
        settings: &Settings,
        conditions: &Conditions,
        goal: &Goal,
        seed: u64,
        what_if: &[WhatIf],
    ) -> Option<Recommended> {
        let limits = LIMIT_STEPS.iter().map(|part| {
            let step = Step::DowntimeLimit(goal.longest_blackout_seconds * part);
            let (settings, conditions) = with(step, settings, conditions, goal);
            (step, self.runs(&settings, &conditions, goal, seed, RUNS))
        });
        let others = what_if.iter().filter(|what| what.step != Step::TwiceTheGoodput);
        let others = others.map(|what| (what.step, what.replay.clone()));
        limits.chain(others).find(|(_, replay)| meets(replay, goal)).map(|(step, replay)| {
            let (settings, _) = with(step, settings, conditions, goal);
            Recommended { step: Some(step), settings, replay }
        })
    }
}

/// Changes worth trying, the mildest first. QEMU refuses multifd together with XBZRLE or with post-copy.
fn steps(settings: &Settings) -> Vec<Step> {
    let mut steps = vec![Step::TwiceTheGoodput];
    if settings.bandwidth_limit_bytes_per_second.is_some() {
        steps.push(Step::NoBandwidthLimit);
    }
    if settings.multifd_channels.is_none() && settings.xbzrle_cache_bytes.is_none() && !settings.post_copy {
        steps.push(Step::Multifd);
    }
    if settings.xbzrle_cache_bytes.is_none() && settings.multifd_channels.is_none() {
        steps.push(Step::Xbzrle);
    }
    if settings.auto_converge.is_none() {
        steps.push(Step::AutoConverge);
    }
    if !settings.post_copy && settings.multifd_channels.is_none() {
        steps.push(Step::PostCopy);
    }
    steps
}

fn with(step: Step, settings: &Settings, conditions: &Conditions, goal: &Goal) -> (Settings, Conditions) {
    let (mut settings, mut conditions) = (settings.clone(), conditions.clone());
    match step {
        Step::DowntimeLimit(seconds) => settings.downtime_limit_seconds = seconds,
        Step::NoBandwidthLimit => settings.bandwidth_limit_bytes_per_second = None,
        Step::TwiceTheGoodput => conditions.goodput_bytes_per_second *= 2.0,
        Step::Multifd => settings.multifd_channels = Some(4),
        Step::Xbzrle => settings.xbzrle_cache_bytes = Some(64 << 20),
        Step::AutoConverge => settings.auto_converge = Some(AutoConverge::default()),
        Step::PostCopy => settings.post_copy = true,
    }
    // Whatever else changes, a limit above the blackout that is accepted makes no sense.
    settings.downtime_limit_seconds = settings.downtime_limit_seconds.min(goal.longest_blackout_seconds);
    (settings, conditions)
}

fn meets(replay: &Replay, goal: &Goal) -> bool {
    let longest = goal.longest_blackout_seconds;
    let short = replay.blackout_seconds.is_some_and(|blackout| blackout.p95 <= longest);
    replay.converges_ratio >= SURE && short && replay.throttle_pause_seconds <= longest
}
