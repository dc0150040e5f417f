//! Facts that decide the budget of each TCP connection: its RTO, backoff, timer, options and route.
//!
//! Every access path reads /proc/net/tcp. A probe that runs in the guest also asks the kernel (INET_DIAG, socket
//! options, routes); the kernel's figures replace those of /proc, connection by connection. Each names its evidence.

mod columns;
mod diag;
mod gather;
mod route;
mod socket_options;

use std::{collections::BTreeMap, net::SocketAddr};

pub(super) use columns::fill as fill_from_columns;
pub(super) use gather::gather;
use vmgate_facts::{Cause, Fact, KeepAlive, TcpConnection, TcpEvidence, TcpTimer, Unknown};

/// TCP sockets as the kernel reports them, by local and remote address.
#[derive(Debug, Clone, Default)]
pub struct KernelSockets(BTreeMap<(SocketAddr, SocketAddr), KernelSocket>);

/// One TCP socket as the kernel reports it.
#[derive(Debug, Clone, PartialEq)]
struct KernelSocket {
    timer: Option<TcpTimer>,
    retransmits: i64,
    unacknowledged: bool,
    /// RTO and backoff; absent for a connection that the peer is opening.
    rto: Option<(f64, i64)>,
    user_timeout_seconds: Fact<Option<f64>>,
    keepalive: Fact<Option<KeepAlive>>,
    rto_min_seconds: Fact<Option<f64>>,
}

/// The unknown of an access path that cannot ask the guest's kernel.
pub(super) fn needs_guest_probe() -> Unknown {
    Unknown::new(
        Cause::NoGuestProbe,
        "only a probe that runs in the guest can ask its kernel for socket options",
    )
}

/// Replaces the figures of /proc by the kernel's own. A connection that opened or closed in between keeps those of
/// /proc.
pub(super) fn refine(connections: &mut [TcpConnection], sockets: Result<KernelSockets, Unknown>) {
    let sockets = match sockets {
        Ok(sockets) => sockets.0,
        Err(why) => {
            for connection in connections {
                set_unknown(&mut connection.user_timeout_seconds, &why);
                set_unknown(&mut connection.keepalive, &why);
                set_unknown(&mut connection.rto_min_seconds, &why);
            }
            return;
        }
    };
    for connection in connections {
        let ends = (connection.local.parse(), connection.remote.parse());
        let (Ok(local), Ok(remote)) = ends else { continue };
        let Some(socket) = sockets.get(&(local, remote)) else { continue };
        connection.evidence = TcpEvidence::InetDiag;
        connection.retransmits = socket.retransmits;
        connection.unacknowledged = Fact::Known(socket.unacknowledged);
        connection.user_timeout_seconds = socket.user_timeout_seconds.clone();
        connection.rto_min_seconds = socket.rto_min_seconds.clone();
        if let Some(timer) = socket.timer {
            connection.timer = Fact::Known(timer);
        }
        if let Some((rto, backoff)) = socket.rto {
            connection.rto_seconds = Fact::Known(rto);
            connection.backoff = Fact::Known(backoff);
        }
        if socket.keepalive.known().is_some() || connection.keepalive.known().is_none() {
            connection.keepalive = socket.keepalive.clone();
        }
    }
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(datagram: &[u8]) {
    let _ = (diag::parse(datagram), route::parse(datagram));
}

fn set_unknown<T>(fact: &mut Fact<T>, why: &Unknown) {
    if fact.known().is_none() {
        *fact = Fact::Unknown(why.clone());
    }
}

/// The timer of idiag_timer, or of the column tr of /proc/net/tcp: both use the same numbers.
fn timer(number: u8) -> Option<TcpTimer> {
    match number {
        0 => Some(TcpTimer::Off),
        1 => Some(TcpTimer::Retransmission),
        2 => Some(TcpTimer::Keepalive),
        4 => Some(TcpTimer::ZeroWindowProbe),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use vmgate_facts::TcpState;

    use crate::guest::tcp::*;

    #[test]
    fn the_kernels_word_replaces_that_of_proc() {
        let mut connections = [
            TcpConnection::new("10.0.0.5:1", "10.0.0.7:2", TcpState::Established),
            TcpConnection::new("10.0.0.5:3", "10.0.0.7:4", TcpState::Established),
        ];
        let socket = KernelSocket {
            timer: timer(1),
            retransmits: 2,
            unacknowledged: true,
            rto: Some((0.816, 2)),
            user_timeout_seconds: Fact::Known(Some(5.0)),
            keepalive: Fact::Known(None),
            rto_min_seconds: Fact::Known(None),
        };
        let key = ("10.0.0.5:1".parse().unwrap(), "10.0.0.7:2".parse().unwrap());
        refine(&mut connections, Ok(KernelSockets([(key, socket)].into())));
        assert_eq!(connections[0].evidence, TcpEvidence::InetDiag);
        assert_eq!((connections[0].rto_seconds.clone(), connections[0].retransmits), (Fact::Known(0.816), 2));
        assert_eq!(connections[1].evidence, TcpEvidence::Proc, "gone in between");
        refine(&mut connections[1..], Err(needs_guest_probe()));
        assert_eq!(connections[1].keepalive, Fact::Unknown(needs_guest_probe()));
    }
}
