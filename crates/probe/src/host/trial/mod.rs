//! Path test, run only if the user allows it: one TCP connection to a free migration port, a few pings that must not be
//! fragmented, and, if that is allowed too, one bounded stream.
//!
//! One end listens on its migration address and accepts one connection, only from the other end; the other connects as
//! QEMU would. Each has its own time limit. At most one test runs on a host at a time.

mod connect;
mod listen;
mod ping;
mod rate;

use std::{
    net::{IpAddr, SocketAddr},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr as UnixAddr, UnixListener},
    },
    time::Duration,
};

pub(super) use ping::largest_packet;
pub use rate::Rates;
use serde::{Deserialize, Serialize};
use vmgate_facts::{Cause, Unknown};

/// Longest wait of one end for the other.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// Longest duration of a stream.
pub const LONGEST_STREAM: Duration = Duration::from_secs(30);
/// Number of one-byte round trips from which the round-trip time is measured.
const ROUND_TRIPS: usize = 11;
/// Name of the lock, an abstract socket, which leaves nothing on the disk and ends with the process.
const LOCK: &[u8] = b"vmgate-path-trial";

/// Orders for one end of a path test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Role of this end.
    pub role: Role,
    /// The stream that is sent after the round trips; none sends no stream.
    pub stream: Option<Stream>,
}

/// The two ends of a path test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Listens at this address.
    Listen(SocketAddr),
    /// Connects to this port of the peer.
    Connect(u16),
}

/// A stream and its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Most bytes per second.
    pub cap_bytes_per_second: u64,
    /// Duration.
    #[serde(rename = "length_seconds", with = "crate::wire::seconds")]
    pub length: Duration,
}

/// Result of a path test, as seen by one end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrialResult {
    /// True if the two ends connected.
    pub met: bool,
    /// Description of the result, in words.
    pub detail: String,
    /// Median round-trip time; only the end that connects knows it.
    pub rtt_seconds: Option<f64>,
    /// Share of a stream's time in which the path did not limit it, but its cap or the host itself did. Only the
    /// connecting end knows it.
    pub held_ratio: Option<f64>,
    /// Rates of the stream on arrival; only the listening end knows them.
    pub rates: Option<Rates>,
}

impl TrialResult {
    fn not_connected(detail: String) -> Self {
        Self { met: false, detail, rtt_seconds: None, held_ratio: None, rates: None }
    }
}

/// Runs this end's part of the test.
pub(super) fn run(peer: IpAddr, trial: &Trial) -> Result<TrialResult, Unknown> {
    let _lock = lock(LOCK)?;
    match trial.role {
        Role::Listen(at) => listen::listen(at, peer, trial.stream.as_ref()),
        Role::Connect(port) => {
            Ok(connect::connect(SocketAddr::new(peer, port), trial.stream.as_ref(), PATIENCE))
        }
    }
}

/// Takes the lock that keeps other path tests off this host until it is dropped.
fn lock(name: &[u8]) -> Result<UnixListener, Unknown> {
    UnixAddr::from_abstract_name(name).and_then(|address| UnixListener::bind_addr(&address)).map_err(
        |error| {
            let why = if error.kind() == std::io::ErrorKind::AddrInUse {
                "another vmgate is testing a migration path on this host: only one test may run at a time"
                    .to_owned()
            } else {
                format!("cannot take the lock against other path tests on this host: {error}")
            };
            Unknown::new(Cause::NotAllowed, why)
        },
    )
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use crate::host::trial::*;

    fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    #[test]
    fn both_ends_meet_and_a_stream_keeps_its_cap() {
        let (peer, port) = (IpAddr::from([127, 0, 0, 1]), free_port());
        let stream = Stream { cap_bytes_per_second: 8 << 20, length: Duration::from_secs(1) };
        let listener =
            thread::spawn(move || listen::listen(SocketAddr::new(peer, port), peer, Some(&stream)).unwrap());
        let there = connect::connect(SocketAddr::new(peer, port), Some(&stream), PATIENCE);
        let here = listener.join().unwrap();
        assert!(there.met && here.met, "{there:?} {here:?}");
        assert!(there.rtt_seconds.unwrap() < 1.0);
        assert!(there.held_ratio.unwrap() > 0.5, "the loopback carries more than 8 MiB/s: {there:?}");
        let rates = here.rates.unwrap();
        assert!(rates.mean_bytes_per_second <= 9 << 20, "above its cap: {rates:?}");
        assert!(rates.mean_bytes_per_second >= 2 << 20, "far below its cap: {rates:?}");
        assert!(rates.p5_bytes_per_second <= rates.p95_bytes_per_second);
    }

    #[test]
    fn where_nothing_listens_it_is_said() {
        let nowhere = SocketAddr::new([127, 0, 0, 1].into(), free_port());
        let tried = connect::connect(nowhere, None, Duration::from_millis(200));
        assert!(!tried.met && tried.detail.contains("refused"), "{tried:?}");
    }

    #[test]
    fn one_trial_at_a_time() {
        let name = b"vmgate-path-trial-test";
        let first = lock(name).unwrap();
        assert!(lock(name).unwrap_err().reason.contains("only one test"));
        drop(first);
        assert!(lock(name).is_ok());
    }
}
