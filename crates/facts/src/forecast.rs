//! The predicted migration, as rules and reports see it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Fact;

/// What the migration is predicted to be. Derived from the other facts; never part of a facts file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Forecast {
    /// How the figures were made.
    #[schemars(example = &"replay")]
    pub method: Fact<ForecastMethod>,
    /// How long the guest was watched for them.
    #[schemars(example = 30.0)]
    pub evidence_seconds: Fact<f64>,
    /// Probability that the migration completes: by the deadline where the change has one, else at all.
    #[schemars(example = 0.98)]
    pub converges_ratio: Fact<f64>,
    /// Duration of the whole migration, where it completes.
    pub total_seconds: Fact<Quantiles>,
    /// The same as it was replayed, before what earlier migrations between these hosts taught of it.
    pub replayed_total_seconds: Fact<Quantiles>,
    /// Earlier migrations between these hosts that the duration is corrected by; 0 where they are too few.
    #[schemars(example = 12)]
    pub corrected_by_migrations: u32,
    /// Memory and device state handed to the network, where it completes; pages sent again count again.
    pub sent_bytes: Fact<Quantiles>,
    /// Looks at the dirty bitmap (QEMU's dirty-sync-count), where it completes.
    pub rounds: Fact<Quantiles>,
    /// How long the guest is silent.
    pub blackout_seconds: Fact<Quantiles>,
    /// Downtime limit for QEMU with which the blackout keeps to what the change accepts: less than that, since QEMU does
    /// not count all of it.
    #[schemars(example = 0.22)]
    pub downtime_limit_seconds: Fact<f64>,
    /// How long the guest stands still at a time while QEMU throttles it, again and again while the migration lasts; 0
    /// without auto-converge.
    #[schemars(example = 0.0)]
    pub throttle_pause_seconds: Fact<f64>,
    /// Memory dirtied in a second, by what the path carries in a second; from 1 on, pre-copy cannot catch up unless the
    /// guest writes the same pages again and again.
    #[schemars(example = 0.2)]
    pub dirty_to_bandwidth_ratio: Fact<f64>,
    /// What makes the migration as long as it is, or keeps it from completing.
    #[schemars(example = &"what the migration path carries")]
    pub limited_by: Fact<String>,
    /// What other settings, or another path, would make of it.
    pub alternatives: Fact<Vec<Alternative>>,
    /// The mildest change of settings with which the goals of the change are met; absent where none of those tried does.
    pub recommended: Fact<Option<Alternative>>,
    /// Hours of the day (UTC) at which the VM was seen to dirty at most half of what it dirties now, the quietest first.
    #[schemars(example = vec![3, 4])]
    pub quiet_hours: Fact<Vec<u32>>,
    /// The alternatives and the recommendation in one sentence.
    #[schemars(example = &"with auto-converge 26 s; with a path of twice the goodput 9 s; recommended: auto-converge")]
    pub advice: Fact<String>,
    /// Memory left to send as the migration goes on: what a plot shows.
    pub timeline: Fact<Vec<Remaining>>,
    /// When the rounds end in the middle one of the replays, from the order to migrate.
    #[schemars(example = vec![4.0, 4.8])]
    pub round_ends_seconds: Fact<Vec<f64>>,
}

/// Where a forecast comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ForecastMethod {
    /// Blackout taken as twice the limit that the change sets; duration from rate and bandwidth alone.
    Assumed,
    /// QEMU's own loop replayed over a guest made up from how much memory is dirtied in windows of several lengths.
    ReplayOfWindows,
    /// QEMU's own loop replayed over a trace of the guest.
    Replay,
}

/// A predicted figure with its spread.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Quantiles {
    /// One in twenty is below.
    #[schemars(example = 0.1)]
    pub p5: f64,
    /// The middle.
    #[schemars(example = 0.2)]
    pub p50: f64,
    /// One in twenty is above.
    #[schemars(example = 0.6)]
    pub p95: f64,
}

/// What one other setting would make of the migration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Alternative {
    /// The setting, in words that fit after "with".
    #[schemars(example = &"auto-converge")]
    pub setting: String,
    /// Probability that the migration then completes in time.
    #[schemars(example = 1.0)]
    pub converges_ratio: f64,
    /// Its duration then; absent where it does not complete.
    pub total_seconds: Option<Quantiles>,
    /// Its blackout then; absent where it does not complete.
    pub blackout_seconds: Option<Quantiles>,
    /// How long the guest then stands still at a time while it is throttled.
    #[schemars(example = 0.02)]
    pub throttle_pause_seconds: f64,
    /// QEMU's downtime limit then.
    #[schemars(example = 0.22)]
    pub downtime_limit_seconds: f64,
}

/// Memory left to send at a moment of the migration.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Remaining {
    /// The moment, from the order to migrate.
    #[schemars(example = 2.5)]
    pub at_seconds: f64,
    /// Memory left, over the replays; a migration that is over has none left.
    pub remaining_bytes: Quantiles,
}
