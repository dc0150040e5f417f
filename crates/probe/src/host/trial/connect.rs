//! Connecting end of a path test, like QEMU on the source: a plain TCP socket with the host's own settings.

use std::{
    io::{Error, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use crate::host::trial::{LONGEST_STREAM, PATIENCE, ROUND_TRIPS, Stream, TrialResult};

/// Pause between two attempts: the listening end may not be ready yet.
const AGAIN: Duration = Duration::from_millis(50);
/// Longest wait for one attempt; a SYN is retransmitted after a second (RFC 6298).
const ATTEMPT: Duration = Duration::from_millis(2500);
/// Time between two portions of a stream.
const PORTION: Duration = Duration::from_millis(2);
/// A stream is at most one part in this many of a second ahead of its cap.
const BURSTS_A_SECOND: u64 = 50;
/// Largest portion in bytes, as much as a socket takes at once.
const LARGEST_PORTION: u64 = 1 << 20;

/// Connects within `patience`, measures the round-trip time, and sends the stream if there is one.
pub(super) fn connect(to: SocketAddr, stream: Option<&Stream>, patience: Duration) -> TrialResult {
    let deadline = Instant::now() + patience;
    let mut connection = loop {
        match TcpStream::connect_timeout(&to, ATTEMPT.min(patience)) {
            Ok(connection) => break connection,
            Err(_) if Instant::now() + AGAIN < deadline => thread::sleep(AGAIN),
            Err(error) => return TrialResult::not_connected(unreached(to, &error)),
        }
    };
    let met = |detail, rtt_seconds, held_ratio| TrialResult {
        met: true,
        detail,
        rtt_seconds,
        held_ratio,
        rates: None,
    };
    let rtt = match round_trips(&mut connection) {
        Ok(rtt) => rtt,
        Err(error) => {
            return met(format!("connected to {to}, but the round-trip test failed: {error}"), None, None);
        }
    };
    match stream.map(|stream| send(&mut connection, stream)).transpose() {
        Ok(held) => met(format!("connected to {to}"), Some(rtt), held),
        Err(error) => met(format!("connected to {to}, but the stream failed: {error}"), Some(rtt), None),
    }
}

fn unreached(to: SocketAddr, error: &Error) -> String {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => {
            format!("{to} does not answer: a firewall drops the packets, or the route leads elsewhere")
        }
        ErrorKind::ConnectionRefused => format!("{to} refused the connection"),
        _ => format!("{to} cannot be reached: {error}"),
    }
}

/// Median round-trip time of one byte, in seconds.
fn round_trips(connection: &mut TcpStream) -> Result<f64, Error> {
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    let mut times = Vec::with_capacity(ROUND_TRIPS);
    let mut byte = [0];
    for _ in 0..ROUND_TRIPS {
        let start = Instant::now();
        connection.write_all(&byte)?;
        connection.read_exact(&mut byte)?;
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times.get(ROUND_TRIPS / 2).copied().unwrap_or_default().as_secs_f64())
}

/// Sends at the cap for the stream's length, and waits until the listening end has read all of it. Returns the share of
/// the time in which it was not blocked by the path.
fn send(connection: &mut TcpStream, stream: &Stream) -> Result<f64, Error> {
    let length = stream.length.min(LONGEST_STREAM);
    let cap = stream.cap_bytes_per_second.max(1);
    let most = (cap / BURSTS_A_SECOND).clamp(1, LARGEST_PORTION);
    // Without a minimum portion every turn of the loop would send the few bytes that have just become due.
    let least = allowance(cap, PORTION).clamp(1, most);
    let data = vec![0_u8; usize::try_from(most).unwrap_or(0)];
    let start = Instant::now();
    let mut sent = 0_u64;
    let mut waited = Duration::ZERO;
    while start.elapsed() < length {
        let due = allowance(cap, start.elapsed());
        // Time lost to the path or this machine is not made up by a burst above the cap.
        sent = sent.max(due.saturating_sub(cap / BURSTS_A_SECOND));
        let ready = due.saturating_sub(sent);
        if ready < least {
            thread::sleep(PORTION);
            continue;
        }
        let portion = usize::try_from(ready.min(most)).unwrap_or(0);
        let begin = Instant::now();
        let count = connection.write(data.get(..portion).unwrap_or_default())?;
        waited += begin.elapsed();
        sent = sent.saturating_add(u64::try_from(count).unwrap_or(0));
    }
    let held_ratio = 1.0 - waited.as_secs_f64() / start.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
    connection.shutdown(Shutdown::Write)?;
    // The listening end closes when it has read everything.
    let mut rest = [0; 1];
    connection.read(&mut rest).map(|_| held_ratio)
}

/// Bytes that may have been sent after `elapsed`.
fn allowance(cap: u64, elapsed: Duration) -> u64 {
    let bytes = u128::from(cap) * elapsed.as_nanos() / 1_000_000_000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
