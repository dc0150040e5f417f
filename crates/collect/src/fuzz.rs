//! Doors for fuzzing (`cargo fuzz` sets `cfg(fuzzing)`) to parsers that are nobody else's business.

use super::transport;
use vmgate_probe::{flows, guest, host};

/// The kernel's answer about TCP sockets and routes.
pub fn inet_diag(datagram: &[u8]) {
    guest::fuzz_netlink(datagram);
}

/// The kernel's answer about packet filters.
pub fn packet_filters(datagram: &[u8]) {
    host::fuzz_filters(datagram);
}

/// Frames of a VM's tap, each with a byte before it that is its length; counted, and made into facts.
pub fn frames(bytes: &[u8]) {
    flows::fuzz_frames(bytes);
}

/// The answer of a probe: of a guest, a host, or the flows of one.
pub fn probe_answer(bytes: &[u8]) {
    transport::fuzz_answer(bytes);
}
