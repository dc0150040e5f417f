//! The open connections of the server: a bounded number, of which no peer can keep the others out.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::task::AbortHandle;

/// Most connections at once.
pub(super) const MOST: usize = 128;

/// State of a connection: its reader was admitted, or is a stranger yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Arc<AtomicBool>);

impl Progress {
    /// The request has arrived, and its reader may read.
    pub(super) fn admitted(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_admitted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

struct Connection {
    peer: IpAddr,
    progress: Progress,
    task: AbortHandle,
}

/// The open connections in the order of their arrival.
#[derive(Default)]
pub(super) struct Connections {
    open: Vec<Connection>,
}

impl Connections {
    /// Makes room for one more connection, at the expense of the peer that has most of them: strangers before
    /// those who were admitted, and the oldest first.
    pub(super) fn make_room(&mut self) {
        self.open.retain(|connection| !connection.task.is_finished());
        while self.open.len() >= MOST {
            let states: Vec<_> = self.open.iter().map(|one| (one.peer, one.progress.is_admitted())).collect();
            let Some(victim) = victim(&states) else { return };
            self.open.remove(victim).task.abort();
        }
    }

    /// Adds a connection.
    pub(super) fn add(&mut self, peer: IpAddr, progress: Progress, task: AbortHandle) {
        self.open.push(Connection { peer: network(peer), progress, task });
    }
}

/// Index of the connection that is closed when all are taken, of their peers and states in the order of arrival.
fn victim(connections: &[(IpAddr, bool)]) -> Option<usize> {
    let count = |peer| connections.iter().filter(|(other, _)| *other == peer).count();
    let most = connections.iter().map(|(peer, _)| count(*peer)).max()?;
    let of_greedy = connections.iter().enumerate().filter(|(_, (peer, _))| count(*peer) == most);
    of_greedy.min_by_key(|(at, (_, is_admitted))| (*is_admitted, *at)).map(|(at, _)| at)
}

/// Network that counts as one peer: an IPv4 address, or the /64 that one machine may have all addresses of.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_most_connections_loses_the_oldest_stranger() {
        let at = |last| IpAddr::from([192, 0, 2, last]);
        let of = |connections: &[(u8, bool)]| {
            victim(&connections.iter().map(|(last, admitted)| (at(*last), *admitted)).collect::<Vec<_>>())
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[(1, false), (2, true), (2, false), (2, false)]), Some(2));
        assert_eq!(of(&[(1, false), (2, true), (2, true)]), Some(1), "all of the greedy one's were admitted");
        assert_eq!(of(&[(1, false), (1, false)]), Some(0));
    }

    #[test]
    fn a_machine_is_one_peer_whatever_addresses_it_takes() {
        let same = |one: &str, other: &str| network(one.parse().unwrap()) == network(other.parse().unwrap());
        assert!(same("2001:db8::1", "2001:db8::ffff:1"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }
}
