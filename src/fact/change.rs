//! The change: what the operator wants of this move.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What was asked for. Given by the operator, so always known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Change {
    /// Id of the change in the operator's own books; absent for a check that belongs to none.
    #[schemars(example = &"CHG-2041")]
    pub id: Option<String>,
    /// Longest silence of the guest that the operator accepts.
    #[schemars(example = 0.3)]
    pub longest_blackout_seconds: f64,
    /// Longest duration of the whole migration that the operator accepts; absent for no limit.
    #[schemars(example = 600.0)]
    pub deadline_seconds: Option<f64>,
    /// Limit set on the migration traffic; absent for none.
    #[schemars(example = 125_000_000_u64)]
    pub bandwidth_limit_bytes_per_second: Option<u64>,
    /// Start of the time in which the move may run; absent for any time.
    #[schemars(example = &"2026-11-24T01:00:00Z")]
    pub window_start: Option<Timestamp>,
    /// End of the time in which the move may run; absent for any time.
    #[schemars(example = &"2026-11-24T05:00:00Z")]
    pub window_end: Option<Timestamp>,
}

impl Default for Change {
    fn default() -> Self {
        Self {
            id: None,
            longest_blackout_seconds: 0.3,
            deadline_seconds: None,
            bandwidth_limit_bytes_per_second: None,
            window_start: None,
            window_end: None,
        }
    }
}
