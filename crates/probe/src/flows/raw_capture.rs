//! Raw result of a capture, before it is turned into a [`FlowCapture`](crate::flows::FlowCapture).

use crate::flows::{
    directed_flow::{Count, DirectedFlow, Totals},
    evidence::Evidence,
};

/// Raw result of a capture, by either method.
pub(crate) struct RawCapture {
    pub(crate) directed_flows: Vec<(DirectedFlow, Count)>,
    /// TCP and the other IP protocols.
    pub(crate) streams: Vec<(DirectedFlow, Count)>,
    /// Evidence from the packets that reached this process.
    pub(crate) evidence: Evidence,
    pub(crate) totals: Totals,
    /// Packets missing in the counts: that did not fit into the socket's buffer, and that could not be read.
    pub(crate) drops: u64,
    /// Packets missing in the evidence for the same reason, or because only a sample was looked at.
    pub(crate) unseen: u64,
    /// True if the interface went down or disappeared, or the packet limit was reached, before the end.
    pub(crate) interrupted: bool,
    /// Start and end, in nanoseconds of the monotonic clock.
    pub(crate) begin: u64,
    pub(crate) end: u64,
}
