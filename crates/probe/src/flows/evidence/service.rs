//! Names of TCP services by their port: those whose users notice a silence.

use vmgate_facts::Opener;

/// Ports with the names of their services (IANA, and the vendors' defaults).
const SERVICES: [(u16, &str); 32] = [
    (22, "SSH"),
    (80, "HTTP"),
    (88, "Kerberos"),
    (179, "BGP"),
    (389, "LDAP"),
    (443, "HTTPS"),
    (445, "SMB"),
    (636, "LDAP over TLS"),
    (1433, "SQL Server"),
    (1521, "Oracle"),
    (1883, "MQTT"),
    (2049, "NFS"),
    (2379, "etcd"),
    (2380, "etcd peer"),
    (2181, "ZooKeeper"),
    (3260, "iSCSI"),
    (3306, "MySQL"),
    (3389, "RDP"),
    (3868, "Diameter"),
    (4222, "NATS"),
    (4420, "NVMe over TCP"),
    (4567, "Galera"),
    (5432, "PostgreSQL"),
    (5671, "AMQP over TLS"),
    (5672, "AMQP"),
    (6379, "Redis"),
    (6443, "Kubernetes API"),
    (6789, "Ceph monitor"),
    (8883, "MQTT over TLS"),
    (9092, "Kafka"),
    (9300, "Elasticsearch"),
    (27017, "MongoDB"),
];

/// Name of the service of a port.
pub(super) fn name(port: u16) -> Option<&'static str> {
    SERVICES.iter().find(|(known, _)| *known == port).map(|(_, name)| *name)
}

/// Service of a connection: that of the end that was opened, or of either end where nobody knows who opened it.
pub(super) fn of(guest: u16, peer: u16, opened_by: Opener) -> Option<&'static str> {
    match opened_by {
        Opener::Guest => name(peer),
        Opener::Peer => name(guest),
        Opener::Unknown => name(peer).or_else(|| name(guest)),
    }
}
