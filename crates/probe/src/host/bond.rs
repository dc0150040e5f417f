//! Bonds, from /proc/net/bonding (drivers/net/bonding/bond_procfs.c).

use std::{fs, path::Path};

use vmgate_facts::{Bond, BondPort, Duplex, text::plain};

const BONDING: &str = "/proc/net/bonding";

/// The bond with that name; none if it does not exist.
pub(super) fn look(name: &str) -> Option<Bond> {
    parse(&fs::read_to_string(Path::new(BONDING).join(name)).ok()?)
}

/// Parses a bond: the file begins with the bond itself; each port begins with a line `Slave Interface`. LACP adds
/// further lines, none of which begins like those that are read here.
fn parse(text: &str) -> Option<Bond> {
    let mut bond = Bond { mode: String::new(), active: None, ports: Vec::new() };
    for line in text.lines() {
        let Some((name, value)) = line.trim().split_once(": ") else { continue };
        let value = value.trim();
        match (name, bond.ports.last_mut()) {
            ("Slave Interface", _) => {
                bond.ports.push(BondPort { name: plain(value), up: false, link_failures: 0 });
            }
            ("MII Status", Some(port)) => port.up = value == "up",
            ("Link Failure Count", Some(port)) => port.link_failures = value.parse().ok()?,
            ("Bonding Mode", None) => bond.mode = plain(value),
            ("Currently Active Slave", None) if value != "None" => bond.active = Some(plain(value)),
            _ => {}
        }
    }
    (!bond.mode.is_empty()).then_some(bond)
}

/// Duplex as /sys/class/net shows it.
pub(super) fn duplex(word: &str) -> Option<Duplex> {
    match word {
        "full" => Some(Duplex::Full),
        "half" => Some(Duplex::Half),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::host::bond::*;

    /// Output of Linux 6.1 for an active-backup bond whose first port has lost its link.
    const ACTIVE_BACKUP: &str = "\
Ethernet Channel Bonding Driver: v6.1.0-32-amd64

Bonding Mode: fault-tolerance (active-backup)
Primary Slave: eth2 (primary_reselect always)
Currently Active Slave: eth3
MII Status: up
MII Polling Interval (ms): 100
Up Delay (ms): 0
Down Delay (ms): 0
Peer Notification Delay (ms): 0

Slave Interface: eth2
MII Status: down
Speed: Unknown
Duplex: Unknown
Link Failure Count: 3
Permanent HW addr: 52:54:00:aa:00:02
Slave queue ID: 0

Slave Interface: eth3
MII Status: up
Speed: 10000 Mbps
Duplex: full
Link Failure Count: 0
Permanent HW addr: 52:54:00:aa:00:03
Slave queue ID: 0
";

    /// Output of Linux 5.10 for an LACP bond.
    const LACP: &str = "\
Ethernet Channel Bonding Driver: v5.10.0-28-amd64

Bonding Mode: IEEE 802.3ad Dynamic link aggregation
Transmit Hash Policy: layer3+4 (1)
MII Status: up
MII Polling Interval (ms): 100

802.3ad info
LACP rate: fast
Min links: 0
Aggregator selection policy (ad_select): stable
Active Aggregator Info:
\tAggregator ID: 1
\tNumber of ports: 2

Slave Interface: ens1f0
MII Status: up
Speed: 25000 Mbps
Duplex: full
Link Failure Count: 0
Aggregator ID: 1
details actor lacp pdu:
    system priority: 65535
    port state: 61

Slave Interface: ens1f1
MII Status: up
Speed: 25000 Mbps
Duplex: full
Link Failure Count: 1
";

    #[test]
    fn a_bond_that_has_lost_a_port_is_seen() {
        let bond = parse(ACTIVE_BACKUP).unwrap();
        assert_eq!(bond.mode, "fault-tolerance (active-backup)");
        assert_eq!(bond.active.as_deref(), Some("eth3"));
        let ports: Vec<_> =
            bond.ports.iter().map(|port| (port.name.as_str(), port.up, port.link_failures)).collect();
        assert_eq!(ports, [("eth2", false, 3), ("eth3", true, 0)]);
    }

    #[test]
    fn all_ports_of_an_lacp_bond_carry() {
        let bond = parse(LACP).unwrap();
        assert_eq!(bond.active, None);
        assert!(bond.ports.len() == 2 && bond.ports.iter().all(|port| port.up));
    }

    #[test]
    fn what_is_no_bond_is_none() {
        assert_eq!(parse(""), None);
        assert_eq!(parse("Slave Interface: eth0\nLink Failure Count: many\n"), None);
        assert_eq!(look("../../self/status"), None, "a file without a mode");
    }
}
