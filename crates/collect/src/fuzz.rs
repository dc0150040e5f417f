//! Entry points for fuzzing (`cargo fuzz` sets `cfg(fuzzing)`) of parsers that are private otherwise.

use super::transport;
use vmgate_probe::{flows, guest, host};

/// Parses the kernel's answer about TCP sockets and routes.
pub fn inet_diag(datagram: &[u8]) {
    guest::fuzz_netlink(datagram);
}

/// Parses the kernel's answer about packet filters.
pub fn packet_filters(datagram: &[u8]) {
    host::fuzz_filters(datagram);
}

/// Counts frames of a VM's tap, each after a byte that is its length, and makes facts of them.
pub fn frames(bytes: &[u8]) {
    flows::fuzz_frames(bytes);
}

/// Parses the answer of a guest probe, a host probe, or a host probe that watched flows.
pub fn probe_answer(bytes: &[u8]) {
    transport::fuzz_answer(bytes);
}
