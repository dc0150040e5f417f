//! Raw result of a capture, before it is turned into a [`FlowCapture`](crate::flows::FlowCapture).

use crate::flows::directed_flow::{Count, DirectedFlow, Totals};

/// Raw result of a capture, by either method.
#[derive(Debug)]
pub(crate) struct RawCapture {
    pub(crate) directed_flows: Vec<(DirectedFlow, Count)>,
    pub(crate) totals: Totals,
    /// Packets that did not fit into the socket's buffer, and packets that could not be read.
    pub(crate) drops: u64,
    /// True if the interface went down or disappeared, or the packet limit was reached, before the end.
    pub(crate) interrupted: bool,
    /// Start and end, in nanoseconds of the monotonic clock.
    pub(crate) begin: u64,
    pub(crate) end: u64,
}
