//! What a watch may cost the host.

use std::time::Duration;

use super::Method;

/// The longest watch.
pub const LONGEST_WINDOW: Duration = Duration::from_hours(1);

/// Bounds of one watch. Whatever they cut off shows in the result as a hole.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Flows that are told apart, each direction counting as one; 150 bytes of kernel memory each.
    pub max_flows: u32,
    /// Packets that are read into the process; only when capturing.
    pub max_packets: u64,
    /// Share of one processor that reading may take; only when capturing.
    pub max_processor_share: f64,
    /// Memory for packets that wait to be read; only when capturing.
    pub buffer_bytes: usize,
    /// The only method to try; else the kernel counts where it may, and packets are captured where not.
    pub method: Option<Method>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_flows: 16_384,
            max_packets: 20_000_000,
            max_processor_share: 0.5,
            buffer_bytes: 16 << 20,
            method: None,
        }
    }
}

impl Limits {
    /// Never none, and never more than 100 MB of kernel memory.
    pub(crate) fn max_ways(&self) -> u32 {
        self.max_flows.clamp(1, 500_000)
    }

    pub(crate) fn processor_share(&self) -> f64 {
        if self.max_processor_share.is_finite() { self.max_processor_share.clamp(0.01, 1.0) } else { 1.0 }
    }
}
