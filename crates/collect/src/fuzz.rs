//! Entry point for `fuzz/` (feature `fuzzing`) of a parser that is private otherwise.

use crate::transport;

/// Parses the answer of a guest probe, or of a host probe about the host, a VM's flows or its pages.
pub fn probe_answer(bytes: &[u8]) {
    transport::fuzz_answer(bytes);
}
