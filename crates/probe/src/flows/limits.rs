//! Limits on the cost of a flow capture for the host.

use std::time::Duration;

use crate::flows::Method;

/// Longest window of a capture.
pub const LONGEST_WINDOW: Duration = Duration::from_hours(1);

/// Limits of one capture. Everything that they cut off shows in the result as a gap.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Most flows, each direction counting as one; 150 bytes of kernel memory each.
    pub max_flows: u32,
    /// Most packets that are read into the process; only for packet capture.
    pub max_packets: u64,
    /// Largest share of one processor for reading; only for packet capture.
    pub max_processor_share: f64,
    /// Memory for packets that wait to be read; only for packet capture.
    pub buffer_bytes: usize,
    /// The only method to try. By default the kernel counts if it can, else packets are captured.
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
    /// Most directed flows: at least 1, and at most 100 MB of kernel memory.
    pub(crate) fn max_directed_flows(&self) -> u32 {
        self.max_flows.clamp(1, 500_000)
    }

    pub(crate) fn processor_share(&self) -> f64 {
        if self.max_processor_share.is_finite() { self.max_processor_share.clamp(0.01, 1.0) } else { 1.0 }
    }
}
