//! The change: limits, QEMU settings and time window that the operator sets for this move.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Names;

/// Limits and settings of the move. Given by the operator, so always known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Change {
    /// Id of the change in the operator's change management; absent for a check without a change.
    #[schemars(example = &"CHG-2041")]
    pub id: Option<String>,
    /// Longest blackout (silence of the guest) that the operator accepts.
    #[schemars(example = 0.3)]
    pub longest_blackout_seconds: f64,
    /// Dark time that the operator measured on the guest's network; absent where it is derived from the bridges.
    #[schemars(example = 2.5)]
    pub network_dark_seconds: Option<f64>,
    /// Longest duration of the whole migration that the operator accepts; absent for no limit.
    #[schemars(example = 600.0)]
    pub deadline_seconds: Option<f64>,
    /// Bandwidth limit for the migration traffic; absent for none.
    #[schemars(example = 125_000_000_u64)]
    pub bandwidth_limit_bytes_per_second: Option<u64>,
    /// Moves of the change that may share a link of this one at the same time, itself included.
    #[schemars(example = 2)]
    pub moves_at_once: u32,
    /// Migration capabilities that QEMU may use. The forecast chooses the downtime limit.
    pub settings: MigrationSettings,
    /// Manager that runs the migration, by its id in the catalogue (`--as`); absent where vmgate asks libvirt.
    #[schemars(example = &"nova", extend("x-names" = Names::CATALOGUE))]
    pub run_by: Option<String>,
    /// True if this move rehearses a pair of hypervisor versions with a VM that may be lost.
    #[schemars(example = false)]
    pub rehearsal: bool,
    /// True if the ledger of the site's moves was asked for this check.
    #[schemars(example = true)]
    pub in_ledger: bool,
    /// Start of the time window in which the move may run; absent for any time.
    #[schemars(example = &"2026-11-24T01:00:00Z")]
    pub window_start: Option<Timestamp>,
    /// End of the time window in which the move may run; absent for any time.
    #[schemars(example = &"2026-11-24T05:00:00Z")]
    pub window_end: Option<Timestamp>,
}

impl Default for Change {
    fn default() -> Self {
        Self {
            id: None,
            longest_blackout_seconds: 0.3,
            network_dark_seconds: None,
            deadline_seconds: None,
            bandwidth_limit_bytes_per_second: None,
            moves_at_once: 1,
            settings: MigrationSettings::default(),
            run_by: None,
            rehearsal: false,
            in_ledger: false,
            window_start: None,
            window_end: None,
        }
    }
}

/// Share of the longest blackout up to which the guard of a migration raises QEMU's downtime limit: the rest is for the parts
/// that QEMU does not count (device state, hand-over of locks, libvirt's round trips).
const GUARDED_LIMIT: f64 = 0.85;

/// Longest downtime limit, in seconds, that the guard of a migration gives QEMU for this longest blackout.
pub fn guarded_limit_seconds(longest_blackout_seconds: f64) -> f64 {
    longest_blackout_seconds * GUARDED_LIMIT
}

/// Migration capabilities of QEMU that the operator allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct MigrationSettings {
    /// Throttle the guest's vCPUs when the guest dirties memory too fast (auto-converge).
    #[schemars(example = false)]
    pub auto_converge: bool,
    /// Send differences to pages sent before, with a cache of this size (XBZRLE); absent for whole pages.
    #[schemars(example = 67_108_864_u64)]
    pub xbzrle_cache_bytes: Option<u64>,
    /// Send memory over this many connections (multifd); absent for one.
    #[schemars(example = 4)]
    pub multifd_channels: Option<u32>,
    /// Start the guest at the destination before all of its memory is there (post-copy).
    #[schemars(example = false)]
    pub post_copy: bool,
    /// Encrypt the migration traffic (TLS between the two QEMUs).
    #[schemars(example = false)]
    pub tls: bool,
}
