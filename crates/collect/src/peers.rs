//! TCP peers of the guest that are VMs on one of the two hosts. While the guest is stopped the peer's timers run, so the
//! peer's settings decide if a connection survives.
//!
//! Collected only on request: libvirt marks a domain as tainted when its guest agent is asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use vmgate_facts::{Cause, Fact, Guest, TcpConnection, TcpPeer, Unknown, Uuid, text::plain};
use vmgate_libvirt::{Domain, Hypervisor, domain_xml};

use super::agent::AgentGuest;

/// Most VMs whose configuration is read for their addresses, on each host.
const MOST_VMS: usize = 500;
/// Most peers whose guest agent is asked.
const MOST_PEERS: usize = 8;
/// Longest time for one peer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the guest agents of those peers of `guest` that run on these hosts, for at most `limit` in all.
pub(super) fn ask(
    guest: &Guest,
    own_uuid: Option<&Uuid>,
    hosts: &[&Hypervisor],
    limit: Duration,
) -> Result<Vec<TcpPeer>, Unknown> {
    let deadline = Instant::now() + limit;
    let connections = known(guest.tcp.as_ref().and_then(|tcp| tcp.connections.clone()))?;
    let neighbours = known(guest.neighbours.clone())?;
    let remotes: BTreeSet<String> = connections
        .iter()
        .filter_map(|one| Some(one.remote.parse::<SocketAddr>().ok()?.ip().to_string()))
        .collect();
    let macs: BTreeSet<&str> = neighbours
        .iter()
        .filter(|neighbour| remotes.contains(&neighbour.address))
        .map(|neighbour| neighbour.mac.as_str())
        .collect();
    if macs.is_empty() {
        return Ok(Vec::new());
    }
    let mut found: BTreeMap<Uuid, Domain> = BTreeMap::new();
    for host in hosts {
        let uuids = host.active_vm_uuids()?;
        for uuid in uuids.iter().filter(|uuid| Some(*uuid) != own_uuid).take(MOST_VMS) {
            if Instant::now() > deadline {
                return Err(Unknown::new(
                    Cause::TimedOut,
                    "the time limit ended before the VMs of the TCP peers were found",
                ));
            }
            // A VM that has ended meanwhile is no peer any more.
            let Ok(domain) = host.domain(uuid.as_str()) else { continue };
            let config = domain.xml().ok().and_then(|xml| domain_xml::parse(&xml).ok());
            let is_peer = config.is_some_and(|config| {
                config.nics.iter().any(|nic| macs.contains(nic.mac.to_ascii_lowercase().as_str()))
            });
            if is_peer && found.len() < MOST_PEERS {
                found.insert(uuid.clone(), domain);
            }
        }
    }
    Ok(found.into_values().map(|domain| peer(domain, connections.as_slice(), deadline)).collect())
}

fn known<T>(fact: Fact<T>) -> Result<T, Unknown> {
    match fact {
        Fact::Known(value) => Ok(value),
        Fact::Unknown(why) => Err(why),
    }
}

fn peer(domain: Domain, own: &[TcpConnection], deadline: Instant) -> TcpPeer {
    let vm = domain.name().map(|name| plain(&name)).unwrap_or_default();
    let left = deadline.saturating_duration_since(Instant::now()).min(PATIENCE);
    let seen = AgentGuest::open(domain, left).map(|agent| vmgate_probe::guest::look(&agent));
    match seen {
        Ok(guest) => of_guest(vm, guest, own),
        Err(why) => TcpPeer { vm, sysctl: Fact::Unknown(why.clone()), connections: Fact::Unknown(why) },
    }
}

/// Facts of a peer: its settings, and those of its connections that lead to the guest.
fn of_guest(vm: String, guest: Guest, own: &[TcpConnection]) -> TcpPeer {
    let is_ours = |theirs: &TcpConnection| {
        own.iter().any(|ours| ours.local == theirs.remote && ours.remote == theirs.local)
    };
    let connections = guest.tcp.and_then(|tcp| tcp.connections);
    TcpPeer {
        vm,
        sysctl: guest.sysctl,
        connections: connections.map(|all| all.into_iter().filter(is_ours).collect()),
    }
}

#[cfg(test)]
mod tests {
    use vmgate_facts::{Tcp, TcpState};

    use super::*;

    #[test]
    fn of_a_peer_only_the_common_connections_are_kept() {
        let end = |local: &str, remote: &str| TcpConnection::new(local, remote, TcpState::Established);
        let own = [end("10.0.0.5:1", "10.0.0.7:2")];
        let theirs = vec![end("10.0.0.7:2", "10.0.0.5:1"), end("10.0.0.7:2", "10.0.0.9:4")];
        let tcp = Tcp { connections: Fact::Known(theirs.clone()), ..Tcp::default() };
        let guest = Guest { tcp: Fact::Known(tcp), ..Guest::default() };
        let peer = of_guest("db1".into(), guest, &own);
        assert_eq!(peer.connections, Fact::Known(vec![theirs[0].clone()]));
    }
}
