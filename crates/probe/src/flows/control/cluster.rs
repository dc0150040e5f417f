//! Cluster software and storage, recognised by its port: no time stands in its packets, or they are encrypted.

use super::{layers::Ports, statement::Statement};

/// Ports of UDP, first and last, with the protocol.
const UDP: [(u16, u16, &str); 10] = [
    (694, 694, "heartbeat"),
    (3343, 3343, "wsfc"),
    (5404, 5412, "corosync"),
    (7500, 7500, "jgroups"),
    (7946, 7946, "memberlist"),
    (8301, 8302, "consul"),
    (9094, 9094, "memberlist"),
    (9694, 9694, "pgpool"),
    (42424, 42424, "oracle-rac"),
    (54327, 54327, "hazelcast"),
];

/// Ports of TCP, first and last, with the protocol.
const TCP: [(u16, u16, &str); 14] = [
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
    (33061, 33061, "mysql-group-replication"),
];

pub(super) fn of_udp(ports: Ports) -> Option<Statement> {
    by_port(&UDP, ports)
}

pub(super) fn of_tcp(ports: Ports) -> Option<Statement> {
    by_port(&TCP, ports)
}

/// Protocol of a port at either end; the receiver's port decides, as the sender's may be ephemeral.
fn by_port(table: &[(u16, u16, &'static str)], ports: Ports) -> Option<Statement> {
    [ports.destination, ports.source].into_iter().find_map(|port| {
        let (.., protocol) = table.iter().find(|(first, last, _)| (*first..=*last).contains(&port))?;
        Some(Statement { port: Some(port), ..Statement::of(protocol, "") })
    })
}
