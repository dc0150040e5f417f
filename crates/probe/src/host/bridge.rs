//! Bridges of the host: those of the kernel, and those of Open vSwitch.

use std::{collections::BTreeSet, fs, path::Path};

use vmgate_facts::{Bridge, BridgeController, BridgeKind, Cause, Fact, SpanningTree, Unknown, text::plain};

use crate::{
    host::{
        not_read, open_vswitch,
        uplink::{Surroundings, uplinks},
    },
    netlink::{interfaces, tunnel_remotes},
};

const INTERFACES: &str = "/sys/class/net";

/// Ticks per second of intervals in sysfs (USER_HZ), independent of the kernel's own tick.
const TICKS_PER_SECOND: f64 = 100.0;

/// Default time between two general queries (RFC 3376, section 8.2).
pub(super) const DEFAULT_QUERY_INTERVAL_SECONDS: f64 = 125.0;

/// Kinds of interface that lead into an overlay, as the kernel names them (DEVTYPE).
const TUNNELS: [&str; 2] = ["vxlan", "geneve"];

/// All bridges, by name.
pub(super) fn bridges() -> Result<Vec<Bridge>, Unknown> {
    let around = Surroundings::look();
    let mut bridges = linux_bridges(&around)?;
    bridges.extend(open_vswitch::bridges(&around)?);
    bridges.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(bridges)
}

fn linux_bridges(around: &Surroundings) -> Result<Vec<Bridge>, Unknown> {
    let entries = fs::read_dir(INTERFACES).map_err(|error| not_read(INTERFACES, &error))?;
    let entries: Vec<_> = entries.flatten().collect();
    // The table of a large overlay is long: it is read only where there is one.
    let has_tunnel = entries.iter().any(|entry| is_tunnel(&entry.path()));
    let echoes = if has_tunnel { echoing_tunnels() } else { Ok(BTreeSet::new()) };
    let bridge = |entry: &fs::DirEntry| {
        kernel_bridge(&entry.path().join("bridge"), entry.file_name().to_str()?, around, &echoes)
    };
    Ok(entries.iter().filter_map(bridge).collect())
}

/// Tunnels that send to an address of this host, by the index of their interface.
fn echoing_tunnels() -> Result<BTreeSet<u32>, Unknown> {
    let not_read = |error| not_read("the forwarding tables of the bridges", &error);
    let own: BTreeSet<_> = interfaces()
        .map_err(not_read)?
        .into_iter()
        .flat_map(|interface| interface.addresses)
        .map(|(address, _)| address)
        .collect();
    let remotes = tunnel_remotes().map_err(not_read)?;
    Ok(remotes.into_iter().filter(|(_, remote)| own.contains(remote)).map(|(tunnel, _)| tunnel).collect())
}

fn kernel_bridge(
    folder: &Path,
    name: &str,
    around: &Surroundings,
    echoes: &Result<BTreeSet<u32>, Unknown>,
) -> Option<Bridge> {
    let number = |file: &str| -> Option<u32> {
        fs::read_to_string(folder.join(file)).ok().and_then(|text| text.trim().parse().ok())
    };
    let vlan_aware = number("vlan_filtering") == Some(1);
    folder.is_dir().then(|| Bridge {
        name: plain(name),
        kind: BridgeKind::Linux,
        vlan_aware,
        // A kernel without snooping floods multicast to all ports and sends no queries.
        multicast_snooping: number("multicast_snooping") == Some(1),
        multicast_querier: number("multicast_querier") == Some(1),
        multicast_query_interval_seconds: number("multicast_query_interval")
            .map_or(DEFAULT_QUERY_INTERVAL_SECONDS, |ticks| f64::from(ticks) / TICKS_PER_SECOND),
        spanning_tree: match number("stp_state") {
            Some(0) => Fact::Known(SpanningTree::None),
            Some(1) => Fact::Known(SpanningTree::Stp),
            Some(2) => Fact::Known(SpanningTree::Rstp),
            _ => Fact::unknown(Cause::NotSupported, "the kernel does not tell the bridge's stp_state"),
        },
        forward_delay_seconds: match number("forward_delay") {
            Some(ticks) => Fact::Known(f64::from(ticks) / TICKS_PER_SECOND),
            None => Fact::unknown(Cause::NotSupported, "the kernel does not tell the bridge's forward_delay"),
        },
        controlled_by: kernel_controller(folder, echoes),
        default_vlan: number("default_pvid").filter(|vlan| vlan_aware && *vlan != 0),
        uplinks: uplinks(folder, vlan_aware, around).map_or_else(
            || Fact::unknown(Cause::NotSupported, "the kernel does not tell the bridge's ports"),
            Fact::Known,
        ),
    })
}

/// A port into an overlay that does not learn, or that answers for neighbours, waits for a control plane.
fn kernel_controller(folder: &Path, echoes: &Result<BTreeSet<u32>, Unknown>) -> Fact<BridgeController> {
    let ports = fs::read_dir(folder.with_file_name("brif")).into_iter().flatten().flatten();
    let ports: Vec<_> = ports.map(|port| port.path()).filter(|port| is_tunnel(&port.join(".."))).collect();
    let of = |port: &Path, file: &str| fs::read_to_string(port.join(file)).unwrap_or_default();
    let is = |port: &Path, file: &str, value: &str| of(port, file).trim() == value;
    let is_told = |port: &Path| {
        is(port, "learning", "0") || is(port, "neigh_suppress", "1") || is(port, "neigh_vlan_suppress", "1")
    };
    if ports.iter().any(|port| is_told(port)) {
        return Fact::Known(BridgeController::Evpn);
    }
    match echoes {
        Err(why) if !ports.is_empty() => Fact::Unknown(why.clone()),
        Ok(echoes)
            if ports.iter().any(|port| {
                of(port, "../ifindex").trim().parse().is_ok_and(|index| echoes.contains(&index))
            }) =>
        {
            Fact::Known(BridgeController::Echo)
        }
        _ => Fact::Known(BridgeController::Itself),
    }
}

/// True if an interface is a tunnel into an overlay.
fn is_tunnel(interface: &Path) -> bool {
    let event = fs::read_to_string(interface.join("uevent"));
    event.is_ok_and(|event| {
        event.lines().filter_map(|line| line.strip_prefix("DEVTYPE=")).any(|kind| TUNNELS.contains(&kind))
    })
}

#[cfg(test)]
mod tests {
    use crate::host::bridge::*;

    #[test]
    fn bridges_of_this_machine_are_the_kernels() {
        assert!(bridges().unwrap().iter().all(|bridge| !bridge.name.is_empty()));
    }

    #[test]
    fn a_bridge_tells_whether_it_snoops_and_asks() {
        let folder = tempfile::tempdir().unwrap();
        for (name, value) in [
            ("multicast_snooping", "1\n"),
            ("multicast_querier", "1\n"),
            ("multicast_query_interval", "1000\n"),
            ("stp_state", "1\n"),
            ("forward_delay", "1500\n"),
        ] {
            fs::write(folder.path().join(name), value).unwrap();
        }
        let found =
            kernel_bridge(folder.path(), "br0", &Surroundings::default(), &Ok(BTreeSet::new())).unwrap();
        assert_eq!((found.multicast_snooping, found.multicast_querier), (true, true));
        assert!((found.multicast_query_interval_seconds - 10.0).abs() < 1e-9);
        assert_eq!(found.spanning_tree, Fact::Known(SpanningTree::Stp));
        assert_eq!(found.forward_delay_seconds, Fact::Known(15.0));
        assert_eq!(
            kernel_bridge(
                &folder.path().join("none"),
                "eth0",
                &Surroundings::default(),
                &Ok(BTreeSet::new())
            ),
            None
        );
        let silent = tempfile::tempdir().unwrap();
        let silent =
            kernel_bridge(silent.path(), "br1", &Surroundings::default(), &Ok(BTreeSet::new())).unwrap();
        assert!(!silent.multicast_snooping);
        assert_eq!((silent.spanning_tree.known(), silent.forward_delay_seconds.known()), (None, None));
    }

    #[test]
    fn a_tunnel_that_does_not_learn_has_a_control_plane() {
        let told = |devtype: &str, file: &str, value: &str, echoes: &Result<BTreeSet<u32>, Unknown>| {
            let interfaces = tempfile::tempdir().unwrap();
            let port = interfaces.path().join("br0/brif/vx1");
            fs::create_dir_all(interfaces.path().join("br0/bridge")).unwrap();
            fs::create_dir_all(&port).unwrap();
            fs::write(
                interfaces.path().join("br0/brif/uevent"),
                format!("DEVTYPE={devtype}\nINTERFACE=vx1\n"),
            )
            .unwrap();
            fs::write(interfaces.path().join("br0/brif/ifindex"), "7\n").unwrap();
            fs::write(port.join(file), value).unwrap();
            kernel_bridge(&interfaces.path().join("br0/bridge"), "br0", &Surroundings::default(), echoes)
                .unwrap()
                .controlled_by
        };
        let (none, of_this) = (Ok(BTreeSet::new()), Ok(BTreeSet::from([7])));
        let evpn = Fact::Known(BridgeController::Evpn);
        assert_eq!(told("vxlan", "learning", "0\n", &of_this), evpn);
        assert_eq!(told("geneve", "neigh_suppress", "1\n", &none), evpn);
        assert_eq!(told("vxlan", "learning", "1\n", &none), Fact::Known(BridgeController::Itself));
        assert_eq!(told("vxlan", "learning", "1\n", &of_this), Fact::Known(BridgeController::Echo));
        assert_eq!(told("wlan", "learning", "0\n", &of_this), Fact::Known(BridgeController::Itself));
        let unread = Err(Unknown::new(Cause::PermissionDenied, "no netlink"));
        assert!(told("vxlan", "learning", "1\n", &unread).known().is_none());
        assert!(told("wlan", "learning", "1\n", &unread).known().is_some());
    }
}
