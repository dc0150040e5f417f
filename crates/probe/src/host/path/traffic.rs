//! Traffic of this host's interfaces, measured over a window.

use std::{
    collections::BTreeMap,
    fs, thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use vmgate_facts::{Unknown, text::plain};

use crate::host::not_read;

/// Longest window.
pub(crate) const LONGEST: Duration = Duration::from_mins(1);

/// Traffic of one interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Bytes received per second.
    pub received_bytes_per_second: u64,
    /// Bytes sent per second.
    pub sent_bytes_per_second: u64,
}

/// Measures each interface's traffic: reads the counters twice, `window` apart.
pub(crate) fn measure(window: Duration) -> Result<BTreeMap<String, Traffic>, Unknown> {
    let (start, before) = (Instant::now(), counters()?);
    thread::sleep(window.min(LONGEST));
    let after = counters()?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(after
        .into_iter()
        .filter_map(|(name, (received, sent))| {
            // An interface that was created meanwhile has no first sample.
            let (received_before, sent_before) = before.get(&name)?;
            let rate = |after: u64, before: u64| per_second(after.saturating_sub(before), seconds);
            let traffic = Traffic {
                received_bytes_per_second: rate(received, *received_before),
                sent_bytes_per_second: rate(sent, *sent_before),
            };
            Some((name, traffic))
        })
        .collect())
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
// no window sees 2^53 bytes, and the quotient is positive
fn per_second(bytes: u64, seconds: f64) -> u64 {
    (bytes as f64 / seconds.max(1e-6)) as u64
}

/// Bytes received and sent by each interface since it was created.
fn counters() -> Result<BTreeMap<String, (u64, u64)>, Unknown> {
    const CLASS_NET: &str = "/sys/class/net";
    let entries = fs::read_dir(CLASS_NET).map_err(|error| not_read(CLASS_NET, &error))?;
    let counted = entries.flatten().filter_map(|entry| {
        let number = |name: &str| {
            let text = fs::read_to_string(entry.path().join("statistics").join(name)).ok()?;
            text.trim().parse::<u64>().ok()
        };
        Some((plain(entry.file_name().to_str()?), (number("rx_bytes")?, number("tx_bytes")?)))
    });
    Ok(counted.collect())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use crate::host::path::traffic::*;

    #[test]
    fn what_is_sent_in_the_window_is_seen() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = socket.local_addr().unwrap();
        let sender = thread::spawn(move || {
            for _ in 0..20 {
                socket.send_to(&[0; 10_000], to).unwrap();
                thread::sleep(Duration::from_millis(10));
            }
        });
        let seen = measure(Duration::from_millis(300)).unwrap();
        sender.join().unwrap();
        let lo = seen.get("lo").unwrap();
        assert!(lo.sent_bytes_per_second > 100_000, "{lo:?}");
        assert_eq!(per_second(100, 2.0), 50);
        assert_eq!(per_second(100, 0.0), 100_000_000, "no division by zero");
    }
}
