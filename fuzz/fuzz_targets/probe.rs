//! The answer of a probe that ran elsewhere, on the wire or bare: of a guest, of a host, or about the flows or the pages of
//! a VM.
//!
//! `cargo +nightly fuzz run probe -- -max_total_time=300`
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmgate_collect::fuzz;

fuzz_target!(|data: &[u8]| {
    fuzz::probe_answer(data);
});
