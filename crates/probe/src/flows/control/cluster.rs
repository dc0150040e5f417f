//! Cluster software and storage, recognised by its port: no time stands in its packets, or they are encrypted.

use super::{layers::Ports, statement::Statement};
use crate::flows::octets::Octets;

/// Ports, first and last, with the protocol.
type Service = (u16, u16, &'static str);

/// Services of UDP that use the port at both ends. Their ports lie where resolvers take ports at random, so one end alone
/// proves nothing.
const UDP_BOTH: [Service; 7] = [
    (3343, 3343, "wsfc"),
    (5404, 5412, "corosync"),
    (7946, 7946, "memberlist"),
    (8301, 8302, "consul"),
    (9094, 9094, "memberlist"),
    (42424, 42424, "oracle-rac"),
    (54327, 54327, "hazelcast"),
];

/// Services of UDP whose senders use any port.
const UDP: [Service; 3] = [(694, 694, "heartbeat"), (7500, 7500, "jgroups"), (9694, 9694, "pgpool")];

const TCP: [Service; 13] = [
    (2380, 2380, "etcd"),
    (2888, 2888, "zookeeper"),
    (3121, 3121, "pacemaker-remote"),
    (3260, 3260, "iscsi"),
    (3888, 3888, "zookeeper"),
    (4567, 4567, "galera"),
    (5701, 5701, "hazelcast"),
    (7788, 7799, "drbd"),
    (7800, 7800, "jgroups"),
    (8300, 8300, "consul"),
    (9300, 9300, "elasticsearch"),
    (16379, 16379, "redis-cluster"),
    (25672, 25672, "rabbitmq"),
];

/// Ports below belong to services that they are assigned to: a peer there makes the other port a client's.
const FIRST_UNPRIVILEGED: u16 = 1024;
/// First octets of DRBD's packets, in its three formats.
const DRBD: [&[u8]; 3] = [&[0x83, 0x74, 0x02, 0x67], &[0x83, 0x5a], &[0x86, 0x20, 0xec, 0x20]];

pub(super) fn of_udp(ports: Ports) -> Option<Statement> {
    let both = by_port(&UDP_BOTH, ports.destination).filter(|(_, protocol)| {
        by_port(&UDP_BOTH, ports.source).is_some_and(|(_, source)| source == *protocol)
    });
    both.or_else(|| at_one_end(&UDP, ports)).map(statement)
}

pub(super) fn of_tcp(ports: Ports, segment: Octets<'_>) -> Option<Statement> {
    let found = at_one_end(&TCP, ports)?;
    // The range of DRBD's ports is large, and its peers are impatient: its packets must prove it.
    let proven = found.1 != "drbd" || DRBD.iter().any(|start| segment.begins_with(start));
    proven.then(|| statement(found))
}

fn statement((port, protocol): (u16, &'static str)) -> Statement {
    Statement { port: Some(port), ..Statement::of(protocol, "") }
}

/// Service at either end; the receiver's port decides, as the sender's may be anything.
fn at_one_end(services: &[Service], ports: Ports) -> Option<(u16, &'static str)> {
    [(ports.destination, ports.source), (ports.source, ports.destination)].into_iter().find_map(
        |(port, other)| by_port(services, port).filter(|_| other >= FIRST_UNPRIVILEGED || other == port),
    )
}

fn by_port(services: &[Service], port: u16) -> Option<(u16, &'static str)> {
    let (.., protocol) = services.iter().find(|(first, last, _)| (*first..=*last).contains(&port))?;
    Some((port, protocol))
}
