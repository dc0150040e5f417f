//! Things that the wire shows and the guest's own account lacks: a stale or lying agent is found out.
//!
//! Connections come and go between two looks. So only what lasted through the whole window counts, and only what two looks into
//! the guest, one about its beginning and one after its end, both lack.

use std::net::{IpAddr, SocketAddr};

use vmgate_facts::{ControlSession, Denied, DeniedKind, Fact, Guest, Wire, WireConnection};

/// Longest time from the start of the window to the first packet of a connection that lasted through it, and from the last
/// packet to the end, as a share of the window.
const MARGIN: f64 = 0.25;
/// Most things that are listed.
const MOST: usize = 64;

/// Things that the wire shows and this account of the guest lacks. A part of the account that is unknown denies nothing.
pub(super) fn by(guest: &Guest, wire: &Wire) -> Vec<Denied> {
    let sessions = wire.control.iter().filter(|session| denies_session(guest, session)).map(|session| {
        let ControlSession { protocol, title, local, remote, identity, .. } = session;
        let name = if title.is_empty() { protocol } else { title };
        let identity = if identity.is_empty() { String::new() } else { format!(", {identity}") };
        (DeniedKind::ControlSession, format!("{name} {local} -> {remote}{identity}"))
    });
    let lasting = wire.tcp.iter().filter(|connection| lasted(connection, wire.window_seconds));
    let connections = lasting.filter(|connection| denies_connection(guest, connection)).map(|connection| {
        let service = connection.service.as_deref().map(|name| format!(" ({name})")).unwrap_or_default();
        (DeniedKind::TcpConnection, format!("TCP {} -> {}{service}", connection.local, connection.remote))
    });
    let groups = wire.groups.iter().filter(|group| denies_group(guest, &group.address));
    let groups = groups.map(|group| {
        (DeniedKind::MulticastGroup, format!("multicast group {} ({})", group.address, group.reported_by))
    });
    let all = sessions.chain(connections).chain(groups).take(MOST);
    all.map(|(kind, what)| Denied { kind, what }).collect()
}

/// Things that both lists have.
pub(super) fn by_both(first: &[Denied], second: &[Denied]) -> Vec<Denied> {
    first.iter().filter(|denied| second.contains(denied)).cloned().collect()
}

/// True if the connection is the guest's own, was there before the window, and is after it.
fn lasted(connection: &WireConnection, window_seconds: f64) -> bool {
    let margin = MARGIN * window_seconds;
    !connection.forwarded
        && !connection.opening_seen
        && !connection.closing_seen
        && connection.packets_from_guest > 0
        && connection.packets_to_guest > 0
        && connection.first_seen_seconds <= margin
        && connection.last_seen_seconds >= window_seconds - margin
}

fn denies_connection(guest: &Guest, connection: &WireConnection) -> bool {
    let Some(known) = guest.tcp.known().and_then(|tcp| tcp.connections.known()) else { return false };
    !known.iter().any(|one| same(&one.local, &connection.local) && same(&one.remote, &connection.remote))
}

fn denies_group(guest: &Guest, group: &str) -> bool {
    let Some(known) = guest.multicast_groups.known() else { return false };
    !known.iter().any(|one| same(&one.address, group))
}

/// A session over a group of the link: whoever takes part has joined it. Sessions between two ends are connections or sockets:
/// a socket that is bound to the session's port must be there.
fn denies_session(guest: &Guest, session: &ControlSession) -> bool {
    if session.packets_from_guest == 0 || !session.active {
        return false;
    }
    match session.remote.parse::<IpAddr>() {
        Ok(IpAddr::V4(group)) if group.octets().starts_with(&[224, 0, 0]) => {
            denies_group(guest, &session.remote)
        }
        Ok(IpAddr::V6(group)) if group.octets().starts_with(&[0xff, 2]) => {
            denies_group(guest, &session.remote)
        }
        // Who only sends to a wider group need not have joined it.
        Ok(group) if group.is_multicast() => false,
        _ => denies_socket(guest, &session.local),
    }
}

fn denies_socket(guest: &Guest, local: &str) -> bool {
    let Ok(local) = local.parse::<SocketAddr>() else { return false };
    let udp = guest.udp.known().and_then(|udp| udp.sockets.known());
    let tcp = guest.tcp.known();
    let connections = tcp.and_then(|tcp| tcp.connections.known());
    let listeners = tcp.and_then(|tcp| tcp.listeners.known());
    let (Some(udp), Some(connections), Some(listeners)) = (udp, connections, listeners) else { return false };
    let of_connection = |text: &str| text.parse::<SocketAddr>().is_ok_and(|end| end.port() == local.port());
    !udp.iter().any(|socket| socket.port == local.port())
        && !listeners.iter().any(|listener| listener.port == local.port())
        && !connections.iter().any(|one| of_connection(&one.local))
}

/// True for two spellings of one address, with or without a port; an IPv4 address may be written as IPv6.
fn same(one: &str, other: &str) -> bool {
    fn plain(text: &str) -> Option<(IpAddr, u16)> {
        let end = text.parse::<SocketAddr>().map(|end| (end.ip(), end.port()));
        let end = end.or_else(|_| text.parse::<IpAddr>().map(|address| (address, 0))).ok()?;
        Some((end.0.to_canonical(), end.1))
    }
    one == other || plain(one).is_some_and(|end| Some(end) == plain(other))
}

/// The fact, from two looks at the guest. `again` is called only if the first look lacks something.
pub(super) fn compared<E>(
    first: &Guest,
    wire: &Wire,
    again: impl FnOnce() -> Result<Guest, E>,
) -> Fact<Vec<Denied>> {
    let candidates = by(first, wire);
    if candidates.is_empty() {
        return Fact::Known(candidates);
    }
    match again() {
        Ok(guest) => Fact::Known(by_both(&candidates, &by(&guest, wire))),
        Err(_) => Fact::unknown(
            vmgate_facts::Cause::TimedOut,
            "the guest's account lacks something that the wire shows, and it did not answer a second time",
        ),
    }
}

#[cfg(test)]
mod tests {
    use vmgate_facts::{Cause, Opener, Tcp, TcpConnection, TcpState, WireSystem};

    use super::*;

    fn connection(local: &str, remote: &str) -> WireConnection {
        WireConnection {
            local: local.into(),
            remote: remote.into(),
            vlan: None,
            opened_by: Opener::Guest,
            opening_seen: false,
            closing_seen: false,
            forwarded: false,
            age_seconds: Fact::default(),
            first_seen_seconds: 0.1,
            last_seen_seconds: 9.9,
            packets_from_guest: 10,
            packets_to_guest: 10,
            sent_again_by_guest: 0,
            sent_again_by_peer: 0,
            rtt_seconds: Fact::default(),
            keepalives_from_guest: 0,
            keepalives_to_guest: 0,
            service: Some("BGP".into()),
        }
    }

    fn wire(tcp: Vec<WireConnection>) -> Wire {
        Wire {
            interface: "vnet0".into(),
            window_seconds: 10.0,
            packets_read: 40,
            complete: true,
            holes: Vec::new(),
            addresses: Vec::new(),
            system: WireSystem::default(),
            tcp,
            protocols: Vec::new(),
            control: Vec::new(),
            groups: Vec::new(),
            groups_complete: false,
            leases: Vec::new(),
            neighbours: vmgate_facts::WireNeighbours::default(),
            denied: Fact::default(),
        }
    }

    fn guest(connections: &[(&str, &str)]) -> Guest {
        let connections = connections
            .iter()
            .map(|(local, remote)| TcpConnection::new(*local, *remote, TcpState::Established))
            .collect();
        Guest {
            tcp: Fact::Known(Tcp { connections: Fact::Known(connections), ..Tcp::default() }),
            ..Guest::default()
        }
    }

    const ENDS: (&str, &str) = ("10.0.0.5:179", "10.0.0.7:40000");

    #[test]
    fn a_connection_that_no_look_lists_is_denied_and_one_that_came_or_went_is_not() {
        let shown = wire(vec![connection(ENDS.0, ENDS.1)]);
        let never = || -> Result<Guest, ()> { panic!("nothing is lacking") };
        assert_eq!(compared(&guest(&[ENDS]), &shown, never), Fact::Known(Vec::new()));

        let denied = compared(&guest(&[]), &shown, || Ok::<_, ()>(guest(&[]))).known().unwrap().clone();
        assert_eq!(denied[0].what, "TCP 10.0.0.5:179 -> 10.0.0.7:40000 (BGP)");
        let came = compared(&guest(&[]), &shown, || Ok::<_, ()>(guest(&[ENDS])));
        assert_eq!(came, Fact::Known(Vec::new()), "the second look lists it");

        let others: [fn(&mut WireConnection); 5] = [
            |one| one.forwarded = true,
            |one| one.opening_seen = true,
            |one| one.closing_seen = true,
            |one| one.first_seen_seconds = 5.0,
            |one| one.last_seen_seconds = 5.0,
        ];
        for change in others {
            let mut one = connection(ENDS.0, ENDS.1);
            change(&mut one);
            assert_eq!(compared(&guest(&[]), &wire(vec![one]), never), Fact::Known(Vec::new()));
        }
    }

    #[test]
    fn what_the_guest_does_not_tell_it_does_not_deny() {
        let silent = Guest::unknown(&vmgate_facts::Unknown::new(Cause::NoGuestAgent, "no agent"));
        let mut shown = wire(vec![connection(ENDS.0, ENDS.1)]);
        shown.groups = vec![vmgate_facts::WireGroup {
            address: "239.1.2.3".into(),
            reported_by: "IGMPv3".into(),
            vlan: None,
            link_local: false,
        }];
        assert_eq!(by(&silent, &shown), Vec::new());
        let knows_none = Guest { multicast_groups: Fact::Known(Vec::new()), ..silent };
        assert_eq!(by(&knows_none, &shown)[0].what, "multicast group 239.1.2.3 (IGMPv3)");
    }

    #[test]
    fn two_spellings_of_an_address_are_one() {
        assert!(same("10.0.0.5:179", "[::ffff:10.0.0.5]:179") && same("ff02::12", "ff02:0::12"));
        assert!(!same("10.0.0.5:179", "10.0.0.5:180") && !same("10.0.0.5", "10.0.0.5:1"));
    }
}
