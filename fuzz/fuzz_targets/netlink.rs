//! The kernel's answers over netlink: sockets, routes and packet filters, of any bytes.
//!
//! `cargo +nightly fuzz run netlink -- -max_total_time=300`
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmgate_probe::{guest::fuzz_netlink, host::fuzz_filters};

fuzz_target!(|data: &[u8]| {
    fuzz_netlink(data);
    fuzz_filters(data);
});
