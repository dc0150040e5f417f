//! Kernel settings from /proc/sys/net/ipv4.

use super::{GuestReader, malformed};
use crate::fact::{Fact, Sysctl, Unknown};

/// Reads each setting for itself: an old kernel may lack one.
pub(super) fn look(reader: &dyn GuestReader) -> Sysctl {
    let number = |name: &str| Fact::from(number(reader, name));
    // Linux counts keepalive times in whole seconds, far below 2^52.
    #[allow(clippy::cast_precision_loss)]
    let seconds = |name: &str| number(name).map(|seconds: i64| seconds as f64);
    Sysctl {
        tcp_retries1: number("tcp_retries1"),
        tcp_retries2: number("tcp_retries2"),
        tcp_syn_retries: number("tcp_syn_retries"),
        tcp_synack_retries: number("tcp_synack_retries"),
        tcp_keepalive_time_seconds: seconds("tcp_keepalive_time"),
        tcp_keepalive_interval_seconds: seconds("tcp_keepalive_intvl"),
        tcp_keepalive_probes: number("tcp_keepalive_probes"),
    }
}

fn number(reader: &dyn GuestReader, name: &str) -> Result<i64, Unknown> {
    let path = format!("/proc/sys/net/ipv4/{name}");
    let text = reader.read(&path)?;
    std::str::from_utf8(&text)
        .ok()
        .and_then(|text| text.trim().parse::<i32>().ok())
        .filter(|number| *number >= 0)
        .map(i64::from)
        .ok_or_else(|| malformed(&path, "not a number"))
}
