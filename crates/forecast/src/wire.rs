//! Facts of a guest that tells nothing, from the packets of its interfaces (`guest.wire`).
//!
//! Only what is unknown is filled in, only from a capture that missed nothing and was long enough to hear what is said every few
//! seconds, and what the packets do not show stays unknown for that reason. A connection's budget is that of a system with its vendor's settings, and says so.
//!
//! Members of clusters are recognised by their silence, too: whoever sent nothing for the whole window and was not declared
//! dead survives a silence of that length. So no other member exists if the window was as long as the silence to come.

use vmgate_facts::{
    Cause, Fact, Facts, FlowDirection, Forecast, Guest, MemorySync, MulticastGroup, Sctp, SctpAssociation,
    Sysctl, SystemFamily, Tcp, TcpConnection, TcpEvidence, TcpState, Udp, UdpCapture, UdpFlow, UdpSocket,
    Unknown, Wire, WireConnection,
};
use vmgate_rules::catalogue::Catalogues;

use crate::budget::fill_tcp;

const SCTP: u8 = 132;
/// First ephemeral port of Linux; those of Windows and FreeBSD begin higher.
const FIRST_EPHEMERAL: u16 = 32_768;
/// Shortest window from which the absence of traffic is concluded: SCTP and many services speak every few seconds when idle.
const LEAST_WINDOW_SECONDS: f64 = 5.0;
/// Factor by which a failure detector's time-out must exceed the blackout (rule memory-sync-survives-blackout).
const DETECTOR_MARGIN: f64 = 2.0;

/// Fills in what the guest did not tell and the wire shows.
pub(super) fn fill(guest: &mut Guest) {
    let Fact::Known(wire) = &guest.wire else { return };
    let wire = wire.clone();
    if guest.addresses.known().is_none() && !wire.addresses.is_empty() {
        guest.addresses = Fact::Known(wire.addresses.clone());
    }
    // A group that was reported is joined; only after a query is the list the whole.
    if guest.multicast_groups.known().is_none() && (wire.groups_complete || !wire.groups.is_empty()) {
        guest.multicast_groups = Fact::Known(groups(&wire));
    }
    if let Some(why_not) = cannot_decide(&wire) {
        return note(guest, &why_not);
    }
    fill_connections(guest, &wire);
    fill_associations(guest, &wire);
    if let Fact::Known(udp) = &mut guest.udp
        && let (Fact::Unknown(why), Fact::Known(flows)) = (&udp.sockets, &udp.flows)
        && flows.complete
    {
        udp.sockets = Fact::Known(sockets(flows, &wire, why));
    }
}

/// Reason why nothing is concluded from what the capture does not show.
fn cannot_decide(wire: &Wire) -> Option<String> {
    if let Some(hole) = wire.holes.first() {
        return Some(format!("its packets do not decide, as the capture has a hole: {hole}"));
    }
    (wire.window_seconds < LEAST_WINDOW_SECONDS).then(|| {
        format!(
            "its packets do not decide, as vmgate watched them for {:.1} s only: check with --guest wire, or with --dirty-window 10",
            wire.window_seconds
        )
    })
}

/// Adds to the reasons of unknown facts why the wire does not decide them.
fn note(guest: &mut Guest, why_not: &str) {
    let note = |why: &mut Unknown| why.reason = format!("{}; {why_not}", why.reason);
    if let Fact::Unknown(why) = &mut guest.tcp {
        note(why);
    }
    if let Fact::Unknown(why) = &mut guest.sctp {
        note(why);
    }
    if let Fact::Known(Udp { sockets: Fact::Unknown(why), .. }) = &mut guest.udp {
        note(why);
    }
}

fn groups(wire: &Wire) -> Vec<MulticastGroup> {
    let group = |group: &vmgate_facts::WireGroup| MulticastGroup {
        address: group.address.clone(),
        interface: group.vlan.map_or_else(|| "the wire".to_owned(), |id| format!("VLAN {id}")),
        link_local: group.link_local,
    };
    wire.groups.iter().map(group).collect()
}

fn fill_connections(guest: &mut Guest, wire: &Wire) {
    let (why, peers) = match &guest.tcp {
        Fact::Unknown(why) => (why.clone(), Fact::Unknown(why.clone())),
        Fact::Known(Tcp { connections: Fact::Unknown(why), peers, .. }) => (why.clone(), peers.clone()),
        Fact::Known(_) => return,
    };
    let listeners = match &guest.tcp {
        Fact::Known(tcp) => tcp.listeners.clone(),
        Fact::Unknown(why) => Fact::Unknown(why.clone()),
    };
    let open = wire.tcp.iter().filter(|one| !one.closing_seen && one.packets_to_guest > 0);
    let connections = open.map(|one| connection(one, &wire.system.family, &why)).collect();
    guest.tcp = Fact::Known(Tcp { connections: Fact::Known(connections), listeners, peers });
}

fn connection(seen: &WireConnection, family: &Fact<SystemFamily>, why: &Unknown) -> TcpConnection {
    let mut connection = TcpConnection {
        user_timeout_seconds: Fact::Unknown(why.clone()),
        keepalive: Fact::Unknown(why.clone()),
        peer_budget_seconds: Fact::Known(None),
        owner: Fact::Unknown(why.clone()),
        unacknowledged: Fact::Unknown(why.clone()),
        timer: Fact::Unknown(why.clone()),
        evidence: TcpEvidence::Wire,
        ..TcpConnection::new(&*seen.local, &*seen.remote, TcpState::Established)
    };
    // The ends of a connection that the guest forwards are other machines.
    let family = family.known().filter(|_| !seen.forwarded);
    let (budget, assumed) = assumed_budget(&connection, family.copied());
    connection.budget_seconds = budget;
    connection.assumed = Some(assumed);
    connection
}

/// Silence that a connection survives with the settings of its system's vendor, and these in words. Of an unknown system
/// the least patient is assumed.
fn assumed_budget(connection: &TcpConnection, family: Option<SystemFamily>) -> (Fact<f64>, String) {
    match family {
        Some(SystemFamily::Linux) => (
            linux_budget(connection),
            "the defaults of Linux, which the guest looks like: tcp_retries2 15".to_owned(),
        ),
        Some(SystemFamily::Windows) => (
            Fact::Known(WINDOWS.survives_seconds()),
            "the defaults of Windows, which the guest looks like: 5 retransmissions, the first after 0.3 s".to_owned(),
        ),
        Some(SystemFamily::Freebsd) => (
            Fact::Known(FREEBSD.survives_seconds()),
            "the defaults of FreeBSD, which the guest looks like: 12 retransmissions, the first after 0.23 s".to_owned(),
        ),
        None => (
            Fact::Known(WINDOWS.survives_seconds()),
            "the packets do not tell the system at its end, so that the defaults of the least patient one hold, those of Windows"
                .to_owned(),
        ),
    }
}

/// Retransmission by a fixed number of tries, each after twice the time of the one before.
struct CountedTries {
    tries: i32,
    first_seconds: f64,
    most_seconds: f64,
}

/// Windows: TcpMaxDataRetransmissions 5 (Microsoft KB 170359), MinRto 300 ms of the setting Internet (Set-NetTCPSetting).
const WINDOWS: CountedTries = CountedTries { tries: 5, first_seconds: 0.3, most_seconds: 60.0 };
/// FreeBSD: TCP_MAXRXTSHIFT 12, rexmit_min 30 ms and rexmit_slop 200 ms, TCPTV_REXMTMAX 64 s (sys/netinet/tcp_timer.c).
const FREEBSD: CountedTries = CountedTries { tries: 12, first_seconds: 0.23, most_seconds: 64.0 };

impl CountedTries {
    /// Time of the last retransmission, at the shortest round trips.
    fn survives_seconds(&self) -> f64 {
        (0..self.tries).map(|times| (self.first_seconds * 2_f64.powi(times)).min(self.most_seconds)).sum()
    }
}

/// Budget by the kernel's arithmetic with Linux' defaults (Documentation/networking/ip-sysctl).
fn linux_budget(connection: &TcpConnection) -> Fact<f64> {
    let settings = Sysctl {
        tcp_retries1: Fact::Known(3),
        tcp_retries2: Fact::Known(15),
        tcp_syn_retries: Fact::Known(6),
        tcp_synack_retries: Fact::Known(5),
        tcp_orphan_retries: Fact::Known(0),
        tcp_early_retrans: Fact::Known(3),
        ..Sysctl::default()
    };
    let mut end = connection.clone();
    fill_tcp(&mut end, &Fact::Known(settings));
    end.budget_seconds
}

/// Without a packet of SCTP no association was in use; of those in use the packets tell no settings.
fn fill_associations(guest: &mut Guest, wire: &Wire) {
    let why = match &guest.sctp {
        Fact::Unknown(why) | Fact::Known(Sctp { associations: Fact::Unknown(why) }) => why.clone(),
        Fact::Known(_) => return,
    };
    let unknown = |what: &str| Unknown { reason: format!("{what}; {}", why.reason), cause: why.cause };
    let seen = wire.protocols.iter().filter(|seen| seen.protocol == SCTP && seen.packets_from_guest > 0);
    let associations = seen.map(|seen| {
        let not_shown = unknown("the settings of an SCTP association are not in its packets");
        let (count, seconds) = (Fact::Unknown(not_shown.clone()), Fact::Unknown(not_shown));
        SctpAssociation {
            local: seen.local.clone(),
            remote: seen.remote.clone(),
            path_max_retrans: count.clone(),
            rto_seconds: seconds.clone(),
            rto_min_seconds: seconds.clone(),
            rto_max_seconds: seconds.clone(),
            rto_initial_seconds: seconds.clone(),
            heartbeat_seconds: seconds.clone(),
            association_max_retrans: count,
            budget_seconds: seconds,
        }
    });
    guest.sctp = Fact::Known(Sctp { associations: Fact::Known(associations.collect()) });
}

/// Sockets of the guest that sent or received datagrams, one for each of its ends. What only came to the tap counts if it was
/// sent to an address of the guest.
fn sockets(capture: &UdpCapture, wire: &Wire, why: &Unknown) -> Vec<UdpSocket> {
    let mut found: Vec<UdpSocket> = Vec::new();
    for flow in &capture.flows {
        let Some((address, port)) = end(&flow.local) else { continue };
        let sent = flow.direction != FlowDirection::ToGuest;
        let multicast = flow.multicast_group.is_some();
        if (!sent && !wire.addresses.contains(&address))
            || found.iter().any(|socket| socket.local == flow.local)
        {
            continue;
        }
        found.push(UdpSocket {
            local: flow.local.clone(),
            port,
            remote: (!multicast && is_client(flow, port)).then(|| flow.remote.clone()),
            drops: Fact::Unknown(why.clone()),
            owner: Fact::Unknown(why.clone()),
            service: flow.service.clone(),
        });
    }
    found
}

/// True if the guest's end is the client's: its port is the ephemeral one.
fn is_client(flow: &UdpFlow, port: u16) -> bool {
    port >= FIRST_EPHEMERAL && end(&flow.remote).is_some_and(|(_, remote)| remote < FIRST_EPHEMERAL)
}

/// Address and port of an end.
fn end(text: &str) -> Option<(String, u16)> {
    let end: std::net::SocketAddr = text.parse().ok()?;
    Some((end.ip().to_string(), end.port()))
}

/// Fills in the members of clusters, from the sessions on the wire, if the window was as long as the silence that such
/// software may have to survive.
pub(super) fn fill_members(facts: &mut Facts, forecast: &Forecast, catalogues: &Catalogues) {
    let dark = facts.path.as_ref().and_then(|path| path.guest_network.as_ref());
    let dark = dark.and_then(|network| network.dark_seconds.as_ref()).map(|dark| dark.p95);
    let blackout = forecast.blackout_seconds.as_ref().map(|blackout| blackout.p95);
    let Fact::Known(guest) = &mut facts.guest else { return };
    let (Fact::Known(wire), Fact::Unknown(why)) = (&guest.wire, &guest.memory_sync) else { return };
    let (Fact::Known(blackout), Fact::Known(dark)) = (blackout, dark) else { return };
    if cannot_decide(wire).is_some() {
        return;
    }
    let needed = DETECTOR_MARGIN * blackout + dark;
    guest.memory_sync = if wire.window_seconds >= needed {
        Fact::Known(members(wire, catalogues))
    } else {
        Fact::unknown(
            Cause::NotAllowed,
            format!(
                "{}; on the wire vmgate looked for {:.1} s, and a member of a cluster that sends less often may be declared dead within the {needed:.1} s that are required: look for longer with --dirty-window {:.0}",
                why.reason,
                wire.window_seconds,
                needed.ceil().clamp(1.0, 60.0)
            ),
        )
    };
}

fn members(wire: &Wire, catalogues: &Catalogues) -> Vec<MemorySync> {
    let mut found: Vec<MemorySync> = Vec::new();
    for session in wire.control.iter().filter(|session| session.packets_from_guest > 0 && session.active) {
        if found.iter().all(|member| member.id != session.protocol)
            && let Some(member) = catalogues
                .member(&session.protocol, format!("its packets {} -> {}", session.local, session.remote))
        {
            found.push(member);
        }
    }
    found
}

#[cfg(test)]
mod tests;
