//! What the ledger knows of earlier moves between these hosts, and of this VM at other hours.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DirtyWindow, Fact, Quantiles, Version};

/// What was seen before. From the ledger; unknown where none is named.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct History {
    /// Earlier migrations from this source to this destination that completed: foretold, and come.
    pub past_migrations: Fact<Vec<PastMigration>>,
    /// How this VM dirtied its memory at hours of the day, as `vmgate observe` saw it; hours without observations are left
    /// out.
    pub observed_hours: Fact<Vec<ObservedHour>>,
    /// Pairs of QEMU versions that VMs were moved between, whatever the hosts, and that were verified afterwards.
    pub version_pairs: Fact<Vec<VersionPair>>,
}

/// Two QEMU versions and a machine type: what decides whether one side takes what the other sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct VersionPair {
    /// The version that ran the VM at the source.
    #[schemars(example = &"7.2.22")]
    pub source_version: Version,
    /// The version at the destination.
    #[schemars(example = &"10.0.13")]
    pub destination_version: Version,
    /// The VM's machine type, as libvirt writes it.
    #[schemars(example = &"pc-q35-7.2")]
    pub machine_type: String,
    /// When a VM that may be lost was last moved so and was verified; absent where none was.
    #[schemars(example = &"2026-11-01T10:00:00Z")]
    pub rehearsed_at: Option<Timestamp>,
    /// When any other VM was last moved so and was verified; absent where none was: the pair is new to production.
    #[schemars(example = &"2026-11-22T01:04:00Z")]
    pub moved_at: Option<Timestamp>,
}

/// A migration that is over.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PastMigration {
    /// When it ended.
    #[schemars(example = &"2026-11-22T01:04:00Z")]
    pub at: Timestamp,
    /// Its duration as it was foretold, before any correction.
    pub forecast_total_seconds: Quantiles,
    /// Its duration as libvirt gave it.
    #[schemars(example = 31.5)]
    pub total_seconds: f64,
}

/// An hour of the day, in UTC, over all days that were observed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ObservedHour {
    /// The hour, 0 to 23.
    #[schemars(example = 3)]
    pub hour: u32,
    /// Memory dirtied in a second: the highest of the hour's observations.
    #[schemars(example = 4_194_304_u64)]
    pub rate_bytes_per_second: u64,
    /// Memory dirtied in windows of several lengths, in that observation.
    pub dirty_windows: Vec<DirtyWindow>,
    /// Observations in this hour.
    #[schemars(example = 4)]
    pub observations: u32,
    /// The last of them.
    #[schemars(example = &"2026-11-22T03:45:00Z")]
    pub last: Timestamp,
}
