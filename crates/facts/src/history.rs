//! History from the ledger: earlier migrations between these hosts, and this VM's dirty rate at other hours.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DirtyWindow, Fact, PastSilence, Quantiles, Version};

/// Earlier migrations and observations. From the ledger; unknown where no ledger is configured.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct History {
    /// Completed migrations from this source to this destination, each with its forecast and its actual duration.
    pub past_migrations: Fact<Vec<PastMigration>>,
    /// Silence that was heard in moves from this source to this destination, each with its network.
    pub past_silences: Fact<Vec<PastSilence>>,
    /// Memory that this VM dirtied at hours of the day, as `vmgate observe` recorded it; hours without observations are
    /// left out.
    pub observed_hours: Fact<Vec<ObservedHour>>,
    /// Pairs of QEMU versions between which a VM was moved and verified afterwards, on any hosts, and those between which an
    /// empty twin with this VM's kinds of devices went.
    pub version_pairs: Fact<Vec<VersionPair>>,
    /// True if one of these pairs is that of this move. Unknown where none is: nobody has tried.
    #[schemars(example = true)]
    pub pair_proven: Fact<bool>,
}

/// Two QEMU versions and a machine type: together they decide if the destination can load the device state of the
/// source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct VersionPair {
    /// QEMU version that ran the VM at the source.
    #[schemars(example = &"7.2.22")]
    pub source_version: Version,
    /// QEMU version at the destination.
    #[schemars(example = &"10.0.13")]
    pub destination_version: Version,
    /// Machine type of the VM, as libvirt writes it.
    #[schemars(example = &"pc-q35-7.2")]
    pub machine_type: String,
    /// Time of the last verified rehearsal: a move with these versions of a VM that may be lost, or of an empty twin; absent
    /// where there was none.
    #[schemars(example = &"2026-11-01T10:00:00Z")]
    pub rehearsed_at: Option<Timestamp>,
    /// Time of the last verified move of any other VM with these versions; absent where there was none: the pair is new
    /// to production.
    #[schemars(example = &"2026-11-22T01:04:00Z")]
    pub moved_at: Option<Timestamp>,
}

/// A completed migration with its forecast.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PastMigration {
    /// End of the migration.
    #[schemars(example = &"2026-11-22T01:04:00Z")]
    pub at: Timestamp,
    /// Forecast of its duration, before any correction.
    pub forecast_total_seconds: Quantiles,
    /// Actual duration, as libvirt reported it.
    #[schemars(example = 31.5)]
    pub total_seconds: f64,
    /// Forecast of its blackout, before any correction; absent where it was not kept.
    #[serde(default)]
    pub forecast_blackout_seconds: Option<Quantiles>,
    /// Actual downtime, as libvirt reported it; absent where it did not.
    #[schemars(example = 0.21)]
    #[serde(default)]
    pub downtime_seconds: Option<f64>,
    /// Forecast of the bytes that it would send, before any correction; absent where it was not kept.
    #[serde(default)]
    pub forecast_sent_bytes: Option<Quantiles>,
    /// Bytes that it sent, as libvirt reported them; absent where it did not.
    #[schemars(example = 1_181_116_006_u64)]
    #[serde(default)]
    pub sent_bytes: Option<u64>,
    /// QEMU version that ran the VM at the source; absent where it was not known.
    #[schemars(example = &"10.0.13")]
    #[serde(default)]
    pub source_version: Option<Version>,
    /// QEMU version at the destination; absent where it was not known.
    #[schemars(example = &"10.0.13")]
    #[serde(default)]
    pub destination_version: Option<Version>,
}

/// Observations of one hour of the day (UTC), over all observed days.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ObservedHour {
    /// Hour of the day, 0 to 23.
    #[schemars(example = 3)]
    pub hour: u32,
    /// Dirty rate: the highest of the hour's observations.
    #[schemars(example = 4_194_304_u64)]
    pub rate_bytes_per_second: u64,
    /// Memory dirtied in windows of several lengths, in the observation with the highest rate.
    pub dirty_windows: Vec<DirtyWindow>,
    /// Number of observations in this hour.
    #[schemars(example = 4)]
    pub observations: u32,
    /// Time of the last observation.
    #[schemars(example = &"2026-11-22T03:45:00Z")]
    pub last: Timestamp,
}
