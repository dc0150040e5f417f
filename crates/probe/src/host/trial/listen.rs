//! The end that listens: one connection, from the peer, bounded in time and bytes.

use std::{
    io::{Error, ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use super::{PATIENCE, ROUND_TRIPS, Rates, Stream, Tried};
use vmgate_facts::{Cause, Unknown};

/// Pause between two looks for a connection.
const POLL: Duration = Duration::from_millis(2);
const BUFFER: usize = 256 << 10;

/// Listens at `at` until the peer was there.
pub(super) fn listen(at: SocketAddr, peer: IpAddr, stream: Option<&Stream>) -> Result<Tried, Unknown> {
    let listener = TcpListener::bind(at)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|error| {
            Unknown::new(Cause::NotSupported, format!("the probe cannot listen on {at}: {error}"))
        })?;
    // The other end watches its interfaces first, and starts later by as much as two logins may differ.
    let deadline = Instant::now() + PATIENCE + PATIENCE;
    let Some(mut connection) = accept(&listener, peer, deadline) else {
        return Ok(Tried::not_met(format!("nothing came from {peer} to {at}")));
    };
    drop(listener);
    let met = |detail, rates| Tried { met: true, detail, rtt_seconds: None, held_ratio: None, rates };
    let answered = echo(&mut connection);
    if let Err(error) = answered {
        return Ok(met(format!("{peer} came to {at}, and then: {error}"), None));
    }
    let rates = stream.map(|stream| take(&mut connection, stream));
    Ok(match rates.transpose() {
        Ok(rates) => met(format!("{peer} came to {at}"), rates),
        Err(error) => met(format!("{peer} came to {at}, and its stream broke: {error}"), None),
    })
}

fn accept(listener: &TcpListener, peer: IpAddr, deadline: Instant) -> Option<TcpStream> {
    while Instant::now() < deadline {
        match listener.accept() {
            Ok((connection, from)) if from.ip().to_canonical() == peer => return Some(connection),
            // Somebody else: the connection is closed.
            Ok(_) => {}
            Err(_) => thread::sleep(POLL),
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

/// Takes what comes until the peer ends it, and notes when it came.
fn take(connection: &mut TcpStream, stream: &Stream) -> Result<Rates, Error> {
    let mut buffer = vec![0; BUFFER];
    let start = Instant::now();
    let deadline = start + stream.length + PATIENCE;
    let mut came = Vec::new();
    loop {
        let count = connection.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        came.push((start.elapsed(), count));
        if Instant::now() > deadline {
            return Err(Error::new(ErrorKind::TimedOut, "it did not end in time"));
        }
    }
    Rates::of(&came).ok_or_else(|| Error::other("too little of it came to tell a rate"))
}
