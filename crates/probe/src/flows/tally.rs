//! What one method brings home, before it is put in the words of the report.

use super::way::{Count, Totals, Way};

/// The outcome of a watch, by either method.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) ways: Vec<(Way, Count)>,
    pub(crate) totals: Totals,
    /// Packets that had no room in the socket, and those that were not looked at.
    pub(crate) drops: u64,
    /// The interface went down or away before the end.
    pub(crate) interrupted: bool,
    /// Nanoseconds of the monotonic clock.
    pub(crate) begin: u64,
    pub(crate) end: u64,
}
