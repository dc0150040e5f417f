//! Trying the migration path, where the user allows it: one TCP connection to a free migration port, a few pings that may
//! not be fragmented, and, where that is allowed too, one bounded stream.
//!
//! One end listens on its migration address and takes one connection, from the other end alone; the other connects as
//! QEMU would. Both give up by themselves. At most one trial runs on a host at a time.

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

use serde::{Deserialize, Serialize};

pub(super) use ping::largest_packet;
pub use rate::Rates;

use vmgate_facts::{Cause, Unknown};

/// Longest wait of one end for the other.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// Longest that a stream may last.
pub const LONGEST_STREAM: Duration = Duration::from_secs(30);
/// Bytes that go to and fro, one at a time, to learn the round-trip time.
const ROUND_TRIPS: usize = 11;
/// Name of the lock, an abstract socket: it leaves nothing on the disk and ends with the process.
const LOCK: &[u8] = b"vmgate-path-trial";

/// What one end is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Which end this is.
    pub role: Role,
    /// What is sent after the round trips; none for nothing.
    pub stream: Option<Stream>,
}

/// The two ends of a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Listens there.
    Listen(SocketAddr),
    /// Connects to this port of the peer.
    Connect(u16),
}

/// A stream and its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Most bytes in a second.
    pub cap_bytes_per_second: u64,
    /// How long; written as seconds.
    #[serde(rename = "length_seconds", with = "crate::wire::seconds")]
    pub length: Duration,
}

/// What came of a trial, as one end saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// Whether the two ends met.
    pub met: bool,
    /// What happened, in words.
    pub detail: String,
    /// Median round-trip time; only the end that connects knows it.
    pub rtt_seconds: Option<f64>,
    /// Part of a stream's time in which it did not wait for the path: its cap, or the host itself, held it back. Only the
    /// end that connects knows it.
    pub held_ratio: Option<f64>,
    /// What arrived of a stream; only the end that listens knows it.
    pub rates: Option<Rates>,
}

impl Tried {
    fn not_met(detail: String) -> Self {
        Self { met: false, detail, rtt_seconds: None, held_ratio: None, rates: None }
    }
}

/// Does this end's part.
pub(super) fn run(peer: IpAddr, trial: &Trial) -> Result<Tried, Unknown> {
    let _lock = lock(LOCK)?;
    match trial.role {
        Role::Listen(at) => listen::listen(at, peer, trial.stream.as_ref()),
        Role::Connect(port) => {
            Ok(connect::connect(SocketAddr::new(peer, port), trial.stream.as_ref(), PATIENCE))
        }
    }
}

/// Keeps other trials off this host for as long as it lives.
fn lock(name: &[u8]) -> Result<UnixListener, Unknown> {
    UnixAddr::from_abstract_name(name).and_then(|address| UnixListener::bind_addr(&address)).map_err(
        |error| {
            let why = if error.kind() == std::io::ErrorKind::AddrInUse {
                "another vmgate tries a migration path on this host now; one at a time".to_owned()
            } else {
                format!("the lock against other trials on this host: {error}")
            };
            Unknown::new(Cause::NotAllowed, why)
        },
    )
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

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
        assert!(lock(name).unwrap_err().reason.contains("one at a time"));
        drop(first);
        assert!(lock(name).is_ok());
    }
}
