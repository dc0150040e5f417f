//! Frames as they cross a VM's tap, each after a byte that is its length.
//!
//! `cargo +nightly fuzz run frames -- -max_total_time=300`
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmgate_probe::flows::fuzz_frames;

fuzz_target!(|data: &[u8]| {
    fuzz_frames(data);
});
