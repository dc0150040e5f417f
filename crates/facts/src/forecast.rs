//! The predicted migration, as rules and reports see it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Fact, ManagedMigration};

/// Predicted migration. Derived from the other facts; never part of a facts file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Forecast {
    /// Migration that the manager of the change would run (`--as`), which this forecast is of; absent where vmgate runs it.
    pub managed: Fact<Option<ManagedMigration>>,
    /// Method of the forecast.
    #[schemars(example = &"replay")]
    pub method: Fact<ForecastMethod>,
    /// Time for which the guest's memory was observed for this forecast.
    #[schemars(example = 30.0)]
    pub evidence_seconds: Fact<f64>,
    /// Probability that the migration completes: by the deadline where the change has one, else at all.
    #[schemars(example = 0.98)]
    pub converges_ratio: Fact<f64>,
    /// Duration of the whole migration, if it completes.
    pub total_seconds: Fact<Quantiles>,
    /// Duration of the whole migration as replayed, without the correction from earlier migrations between these hosts.
    pub replayed_total_seconds: Fact<Quantiles>,
    /// Number of earlier migrations between these hosts that the duration is corrected by.
    #[schemars(example = 12)]
    pub corrected_by_migrations: u32,
    /// Memory and device state sent to the network, if the migration completes; a page sent twice counts twice.
    pub sent_bytes: Fact<Quantiles>,
    /// Memory and device state sent as replayed, without the correction from earlier migrations between these hosts.
    pub replayed_sent_bytes: Fact<Quantiles>,
    /// Rounds of pre-copy: synchronisations of the dirty bitmap (QEMU's dirty-sync-count), if the migration completes.
    pub rounds: Fact<Quantiles>,
    /// Blackout: time in which the guest is silent, from the stop of its vCPUs at the source to its start at the
    /// destination.
    pub blackout_seconds: Fact<Quantiles>,
    /// Blackout as replayed, without the correction from earlier migrations between these hosts.
    pub replayed_blackout_seconds: Fact<Quantiles>,
    /// Origin of the costs that do not depend on the guest (setup, switchover, end), in words.
    #[schemars(example = &"corrected by 12 earlier migrations between these hosts and QEMU versions")]
    pub fixed_costs: Fact<String>,
    /// Silence that the guest's peers see: the blackout, and the dark time of the guest's network after it.
    pub silence_seconds: Fact<Quantiles>,
    /// Parts of that silence in words, at the median.
    #[schemars(example = &"0.2 s (QEMU) + 28 s (bridge br0 of hv2 learns for 2 × 15 s, STP); at most 0.3 s + 29 s (p95)")]
    pub silence_parts: Fact<String>,
    /// Downtime limit to set in QEMU so that the blackout stays within the change's limit. Less than that limit,
    /// because QEMU does not count every part of the blackout.
    #[schemars(example = 0.22)]
    pub downtime_limit_seconds: Fact<f64>,
    /// Longest pause of the guest's vCPUs while QEMU throttles them, repeated until the migration ends; 0 without
    /// auto-converge.
    #[schemars(example = 0.0)]
    pub throttle_pause_seconds: Fact<f64>,
    /// Dirty rate divided by what the path carries. From 1 on, pre-copy cannot catch up unless the guest writes the
    /// same pages again and again.
    #[schemars(example = 0.2)]
    pub dirty_to_bandwidth_ratio: Fact<f64>,
    /// Dependence of the answer on the guest's load; absent where the migration converges, or does not, with 15 % more or less
    /// load as well.
    pub load_dependence: Fact<Option<LoadDependence>>,
    /// Factor that decides the duration of the migration, or keeps it from completing.
    #[schemars(example = &"the bandwidth of the migration path")]
    pub limited_by: Fact<String>,
    /// Forecasts for other settings or another path.
    pub alternatives: Fact<Vec<Alternative>>,
    /// Mildest change of settings that meets the goals of the change; absent where none of the tried settings does.
    pub recommended: Fact<Option<Alternative>>,
    /// Hours of the day (UTC) at which the VM was seen to dirty at most half of what it dirties now, the quietest first.
    #[schemars(example = vec![3, 4])]
    pub quiet_hours: Fact<Vec<u32>>,
    /// The alternatives and the recommendation in one sentence.
    #[schemars(example = &"with auto-converge: 26 s; with a path of twice the goodput: 9 s; recommended: auto-converge")]
    pub advice: Fact<String>,
    /// Memory left to send as the migration goes on: what a plot shows.
    pub timeline: Fact<Vec<RemainingMemory>>,
    /// Ends of the rounds in the median replay, in seconds from the start of the migration.
    #[schemars(example = vec![4.0, 4.8])]
    pub round_ends_seconds: Fact<Vec<f64>>,
}

/// Method of a forecast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ForecastMethod {
    /// Estimate without a replay: blackout assumed from the change's limit, duration from dirty rate and bandwidth.
    Assumed,
    /// Replay of QEMU's pre-copy loop over a synthetic guest, made from the memory dirtied in windows of several
    /// lengths.
    ReplayOfWindows,
    /// Replay of QEMU's pre-copy loop over a dirty trace of this guest.
    Replay,
}

/// Load at which a migration completes that the present load decides: the dirty rate is near the speed of the path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct LoadDependence {
    /// Highest load at which the migration completes, relative to the load that was measured.
    #[schemars(example = 0.92)]
    pub converges_up_to_ratio: f64,
    /// Time for which the load must stay that low after the first pass, until the migration has completed.
    #[schemars(example = 3.0)]
    pub low_for_seconds: f64,
    /// Probability of completion with the present load once vmgate's guard has raised the downtime limit as far as the change
    /// lets it.
    #[schemars(example = 0.4)]
    #[serde(default)]
    pub guarded_converges_ratio: f64,
    /// Probability of completion by hour of the day (UTC), from the observations of this VM; empty without any.
    pub hours: Vec<HourChance>,
}

/// Probability that the migration completes with the load of an hour.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HourChance {
    /// Hour of the day, 0 to 23.
    #[schemars(example = 3)]
    pub hour: u32,
    /// Probability of completion.
    #[schemars(example = 0.98)]
    pub converges_ratio: f64,
}

/// Predicted figure with its spread.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Quantiles {
    /// 5th percentile: one outcome in twenty is lower.
    #[schemars(example = 0.1)]
    pub p5: f64,
    /// Median.
    #[schemars(example = 0.2)]
    pub p50: f64,
    /// 95th percentile: one outcome in twenty is higher.
    #[schemars(example = 0.6)]
    pub p95: f64,
}

/// Forecast of the same migration with one other setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Alternative {
    /// Name of the setting, in words that fit after "with".
    #[schemars(example = &"auto-converge")]
    pub setting: String,
    /// Probability that the migration completes in time with this setting.
    #[schemars(example = 1.0)]
    pub converges_ratio: f64,
    /// Duration with this setting; absent where the migration does not complete.
    pub total_seconds: Option<Quantiles>,
    /// Blackout with this setting; absent where the migration does not complete.
    pub blackout_seconds: Option<Quantiles>,
    /// Longest pause of the guest's vCPUs while QEMU throttles them, with this setting.
    #[schemars(example = 0.02)]
    pub throttle_pause_seconds: f64,
    /// Downtime limit of QEMU chosen for this setting.
    #[schemars(example = 0.22)]
    pub downtime_limit_seconds: f64,
    /// Costs of this setting for the guest, the hosts or others, in words; empty where none is known.
    #[schemars(example = &"slows the vCPUs by up to 60 %, in pauses of 15 ms")]
    #[serde(default)]
    pub costs: String,
}

impl Alternative {
    /// Name of the settings as they are.
    pub const PRESENT: &str = "the present settings";
}

/// Memory left to send at one moment of the migration.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RemainingMemory {
    /// Time since the order to migrate.
    #[schemars(example = 2.5)]
    pub at_seconds: f64,
    /// Memory left, over all replays; 0 for a replay that has completed.
    pub remaining_bytes: Quantiles,
}
