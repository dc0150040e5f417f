//! Kernel settings from /proc/sys/net/ipv4.

use vmgate_facts::{Cause, Fact, Sysctl, Unknown};

use crate::guest::{GuestReader, malformed};

/// Reads each setting on its own: an old kernel may lack one.
pub(super) fn look(reader: &dyn GuestReader) -> Sysctl {
    let number = |name: &str| Fact::from(number(reader, name));
    // Linux counts keepalive times in whole seconds, far below 2^52.
    #[allow(clippy::cast_precision_loss)]
    let seconds = |name: &str| number(name).map(|seconds: i64| seconds as f64);
    // Settings of newer kernels: if the file is absent, the kernel's built-in constant applies.
    let where_present = |name: &str| match crate::guest::sysctl::number(reader, name) {
        Ok(value) => Fact::Known(Some(value)),
        Err(why) if why.cause == Cause::NotSupported => Fact::Known(None),
        Err(why) => Fact::Unknown(why),
    };
    #[allow(clippy::cast_precision_loss)]
    let scaled = |name: &str, units: f64| {
        where_present(name).map(|value: Option<i64>| value.map(|value| value as f64 / units))
    };
    Sysctl {
        tcp_retries1: number("tcp_retries1"),
        tcp_retries2: number("tcp_retries2"),
        tcp_syn_retries: number("tcp_syn_retries"),
        tcp_synack_retries: number("tcp_synack_retries"),
        tcp_syn_linear_timeouts: where_present("tcp_syn_linear_timeouts"),
        tcp_orphan_retries: number("tcp_orphan_retries"),
        tcp_early_retrans: number("tcp_early_retrans"),
        tcp_rto_min_seconds: scaled("tcp_rto_min_us", 1e6),
        tcp_rto_max_seconds: scaled("tcp_rto_max_ms", 1e3),
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
