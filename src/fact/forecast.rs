//! The predicted migration, as rules see it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Fact;

/// What the migration is predicted to be. Derived from the other facts; never part of a facts file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Forecast {
    /// How the figures were made.
    #[schemars(example = &"assumed")]
    pub method: Fact<ForecastMethod>,
    /// How long the guest is silent.
    pub blackout_seconds: Fact<Quantiles>,
    /// Memory dirtied in a second, by what the path carries in a second; from 1 on, pre-copy cannot catch up.
    #[schemars(example = 0.2)]
    pub dirty_to_bandwidth_ratio: Fact<f64>,
    /// Duration of the whole migration.
    pub total_seconds: Fact<Quantiles>,
}

/// Where a forecast comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ForecastMethod {
    /// Blackout taken as twice the limit that the change sets; duration from rate and bandwidth alone.
    Assumed,
    /// QEMU's own loop replayed over a trace of the guest.
    Replay,
}

/// A predicted figure with its spread.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
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
