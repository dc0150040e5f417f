//! Listening end of a path test: one connection, only from the peer, bounded in time and bytes.

use std::{
    io::{Error, ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use vmgate_facts::{Cause, Unknown};

use crate::host::trial::{LONGEST_STREAM, PATIENCE, ROUND_TRIPS, Rates, Stream, TrialResult};

/// Pause between two checks for a connection.
const POLL: Duration = Duration::from_millis(2);
const BUFFER: usize = 256 << 10;

/// Listens at `at` for one connection from the peer, echoes its bytes, and receives the stream if there is one.
pub(super) fn listen(at: SocketAddr, peer: IpAddr, stream: Option<&Stream>) -> Result<TrialResult, Unknown> {
    let listener = TcpListener::bind(at)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|error| {
            Unknown::new(Cause::NotSupported, format!("the probe cannot listen on {at}: {error}"))
        })?;
    // The connecting end first measures its interfaces, and its login may take longer.
    let deadline = Instant::now() + PATIENCE + PATIENCE;
    let Some(mut connection) = accept(&listener, peer, deadline) else {
        return Ok(TrialResult::not_connected(format!("{peer} did not connect to {at}")));
    };
    drop(listener);
    let met = |detail, rates| TrialResult { met: true, detail, rtt_seconds: None, held_ratio: None, rates };
    let answered = echo(&mut connection);
    if let Err(error) = answered {
        return Ok(met(format!("{peer} connected to {at}, but the round-trip test failed: {error}"), None));
    }
    let rates = stream.map(|stream| take(&mut connection, stream));
    Ok(match rates.transpose() {
        Ok(rates) => met(format!("{peer} connected to {at}"), rates),
        Err(error) => met(format!("{peer} connected to {at}, but the stream failed: {error}"), None),
    })
}

fn accept(listener: &TcpListener, peer: IpAddr, deadline: Instant) -> Option<TcpStream> {
    while Instant::now() < deadline {
        match listener.accept() {
            Ok((connection, from)) if from.ip().to_canonical() == peer => return Some(connection),
            // A connection of somebody else is closed; however many there are, they cost no more than the wait.
            Ok(_) | Err(_) => thread::sleep(POLL),
        }
    }
    None
}

fn echo(connection: &mut TcpStream) -> Result<(), Error> {
    connection.set_nonblocking(false)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    let mut byte = [0];
    for _ in 0..ROUND_TRIPS {
        connection.read_exact(&mut byte)?;
        connection.write_all(&byte)?;
    }
    Ok(())
}

/// Receives bytes until the peer ends the stream, and records their arrival times.
fn take(connection: &mut TcpStream, stream: &Stream) -> Result<Rates, Error> {
    let mut buffer = vec![0; BUFFER];
    let start = Instant::now();
    let longest = stream.length.min(LONGEST_STREAM) + PATIENCE;
    let most = stream.cap_bytes_per_second.max(1).saturating_mul(longest.as_secs() + 1);
    let mut taken = 0_u64;
    let mut arrivals: Vec<(Duration, usize)> = Vec::new();
    loop {
        let count = connection.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        let at = start.elapsed();
        // However small its packets are, a stream costs an entry a millisecond.
        match arrivals.last_mut().filter(|(last, _)| last.as_millis() == at.as_millis()) {
            Some((last, bytes)) => (*last, *bytes) = (at, bytes.saturating_add(count)),
            None => arrivals.push((at, count)),
        }
        taken = taken.saturating_add(count as u64);
        if at > longest || taken > most {
            return Err(Error::new(
                ErrorKind::TimedOut,
                "the stream did not end in time, or is larger than agreed",
            ));
        }
    }
    Rates::of(&arrivals).ok_or_else(|| Error::other("too few bytes arrived to compute a rate"))
}
