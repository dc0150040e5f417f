//! The migration path, worked out from what both hosts said of their networks. No I/O.

use std::net::IpAddr;

use crate::fact::{Cause, Change, Fact, MigrationTransport, Nic, NicKind, Path, PathNic, Route};

/// Most interfaces that may stand on top of one another.
const DEEPEST: usize = 8;

/// What is known of one end's network.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// Its interfaces.
    pub nics: &'a Fact<Vec<Nic>>,
    /// Its routes.
    pub routes: &'a Fact<Vec<Route>>,
}

/// Works the path out. `address` is where QEMU at the source will connect to.
pub fn path(address: Fact<IpAddr>, source: End, destination: End, change: &Change) -> Path {
    let source_nic = address.as_ref().and_then(|address| leaving(*address, source));
    let destination_nic = address.as_ref().and_then(|address| holding(*address, destination));
    Path {
        bandwidth_bytes_per_second: bandwidth(&source_nic, &destination_nic, change),
        destination_address: address.map(|address| address.to_string()),
        transport: Fact::Known(MigrationTransport::Tcp),
        source_nic,
        destination_nic,
        goodput_bytes_per_second: Fact::default(),
    }
}

/// The interface that the longest matching route to the address leaves by; of equal ones the lowest metric.
fn leaving(address: IpAddr, end: End) -> Fact<PathNic> {
    end.routes.as_ref().and_then(|routes| {
        let best = routes
            .iter()
            .filter_map(|route| Some((prefix_match(&route.destination, address)?, route)))
            // The kernel takes the first of equal routes, `max_by_key` the last.
            .rev()
            .max_by_key(|(prefix, route)| (*prefix, u32::MAX - route.metric));
        match best {
            Some((_, route)) => named(&route.nic, end),
            None => Fact::unknown(Cause::NotSupported, format!("the source host has no route to {address}")),
        }
    })
}

/// The interface that holds the address.
fn holding(address: IpAddr, end: End) -> Fact<PathNic> {
    end.nics.as_ref().and_then(|nics| {
        let holds = |nic: &&Nic| {
            nic.addresses.iter().any(|given| split_prefix(given).map(|(ip, _)| ip) == Some(address))
        };
        match nics.iter().find(holds) {
            Some(nic) => named(&nic.name, end),
            None => Fact::unknown(
                Cause::NotSupported,
                format!("no interface of the destination host holds {address}"),
            ),
        }
    })
}

fn named(name: &str, end: End) -> Fact<PathNic> {
    let seen = end.nics.as_ref().and_then(|nics| end.routes.as_ref().map(|routes| (nics, routes)));
    seen.and_then(|(nics, routes)| match nics.iter().find(|nic| nic.name == name) {
        Some(nic) => Fact::Known(PathNic {
            name: nic.name.clone(),
            kind: nic.kind,
            up: nic.up,
            speed_bytes_per_second: speed(nic, nics),
            mtu_bytes: nic.mtu_bytes,
            guest_bridge: guest_bridge(nic, nics),
            carries_default_route: routes
                .iter()
                .any(|route| is_default(route) && stacked(&route.nic, name, nics)),
        }),
        None => Fact::unknown(
            Cause::NotSupported,
            format!("the interface `{name}` of the route is not among the host's interfaces"),
        ),
    })
}

fn is_default(route: &Route) -> bool {
    split_prefix(&route.destination).is_some_and(|(ip, prefix)| ip.is_unspecified() && prefix == 0)
}

/// Nominal speed of an interface: its own, or that of the slowest below it, since VLANs and bridges may have none.
fn speed(nic: &Nic, nics: &[Nic]) -> Option<u64> {
    nic.speed_bytes_per_second.or_else(|| {
        below(nic, nics, 0)
            .iter()
            .filter(|lower| lower.kind != NicKind::Tap)
            .filter_map(|lower| lower.speed_bytes_per_second)
            .min()
    })
}

/// The bridge that shares a wire with the interface: it is that bridge; or the bridge stands on it, or on a bond or
/// VLAN that stands on it; or both stand on the same interface below. A bridge without guests now may have some in a
/// minute, so every bridge counts.
fn guest_bridge(nic: &Nic, nics: &[Nic]) -> Option<String> {
    let mut bridges = nics.iter().filter(|other| other.kind == NicKind::Bridge);
    bridges.find(|bridge| share_a_wire(nic, bridge, nics)).map(|bridge| bridge.name.clone())
}

/// Whether two interfaces are the same, stand on one another, or stand on the same third.
fn share_a_wire(one: &Nic, other: &Nic, nics: &[Nic]) -> bool {
    let wires = |nic: &Nic| {
        let mut wires: Vec<String> = below(nic, nics, 0).iter().map(|lower| lower.name.clone()).collect();
        wires.push(nic.name.clone());
        wires
    };
    let (one, other) = (wires(one), wires(other));
    one.iter().any(|wire| other.contains(wire))
}

/// Whether `upper` is `lower` or stands on it, or the two share an interface below.
fn stacked(upper: &str, lower: &str, nics: &[Nic]) -> bool {
    let find = |name: &str| nics.iter().find(|nic| nic.name == name);
    upper == lower
        || matches!((find(upper), find(lower)), (Some(upper), Some(lower)) if share_a_wire(upper, lower, nics))
}

/// Every interface below one: those it lists, those that name it as their master, and theirs in turn.
fn below<'a>(nic: &Nic, nics: &'a [Nic], depth: usize) -> Vec<&'a Nic> {
    if depth >= DEEPEST {
        return Vec::new();
    }
    let direct = nics.iter().filter(|other| {
        other.name != nic.name
            && (nic.lower.contains(&other.name) || other.master.as_deref() == Some(nic.name.as_str()))
    });
    direct.flat_map(|lower| std::iter::once(lower).chain(below(lower, nics, depth + 1))).collect()
}

/// The slower end's nominal speed, or the change's limit where that is lower.
fn bandwidth(source: &Fact<PathNic>, destination: &Fact<PathNic>, change: &Change) -> Fact<u64> {
    let speed = |end: &Fact<PathNic>, which: &str| {
        end.as_ref().and_then(|nic| match nic.speed_bytes_per_second {
            Some(speed) => Fact::Known(speed),
            None => Fact::unknown(
                Cause::NotSupported,
                format!("the driver of {} at the {which} names no speed", nic.name),
            ),
        })
    };
    speed(source, "source").and_then(|source| {
        speed(destination, "destination").map(|destination| {
            let slower = source.min(destination);
            change.bandwidth_limit_bytes_per_second.map_or(slower, |limit| limit.min(slower))
        })
    })
}

/// Prefix length of the destination where it holds the address.
fn prefix_match(destination: &str, address: IpAddr) -> Option<u8> {
    let (network, prefix) = split_prefix(destination)?;
    let same = match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let mask = u32::MAX.checked_shl(32_u32.checked_sub(prefix.into())?).unwrap_or(0);
            network.to_bits() & mask == address.to_bits() & mask
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(128_u32.checked_sub(prefix.into())?).unwrap_or(0);
            network.to_bits() & mask == address.to_bits() & mask
        }
        _ => false,
    };
    same.then_some(prefix)
}

fn split_prefix(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    Some((address.parse().ok()?, prefix.parse().ok()?))
}

/// The host of a migration address: `10.77.1.2`, `hv2-mig`, `tcp://10.77.1.2:49152`, `tcp:[fd00::2]` alike.
pub fn host_of_address(text: &str) -> &str {
    let text = text
        .split_once(':')
        .filter(|(scheme, _)| matches!(*scheme, "tcp" | "tls" | "rdma"))
        .map_or(text, |(_, rest)| rest);
    let text = text.strip_prefix("//").unwrap_or(text);
    let text = text.split('/').next().unwrap_or(text);
    if let Some((host, _)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return host;
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => host,
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nic(name: &str, kind: NicKind, lower: &[&str], addresses: &[&str]) -> Nic {
        Nic {
            name: name.into(),
            kind,
            up: true,
            speed_bytes_per_second: (kind == NicKind::Physical).then_some(1_250_000_000),
            mtu_bytes: 1500,
            master: None,
            lower: lower.iter().map(|name| (*name).to_owned()).collect(),
            addresses: addresses.iter().map(|address| (*address).to_owned()).collect(),
            errors: 0,
        }
    }

    fn route(destination: &str, nic: &str, metric: u32) -> Route {
        Route { destination: destination.into(), nic: nic.into(), gateway: None, metric }
    }

    fn found(nics: Vec<Nic>, routes: Vec<Route>) -> Path {
        let (nics, routes) = (Fact::Known(nics), Fact::Known(routes));
        let end = End { nics: &nics, routes: &routes };
        path(Fact::Known("10.77.1.2".parse().unwrap()), end, end, &Change::default())
    }

    #[test]
    fn a_dedicated_interface_is_seen_as_one() {
        let nics = vec![
            nic("mig0", NicKind::Physical, &[], &["10.77.1.2/24"]),
            nic("eth0", NicKind::Physical, &[], &["192.0.2.1/24"]),
            nic("br0", NicKind::Bridge, &["eth0", "vnet0"], &[]),
            nic("vnet0", NicKind::Tap, &[], &[]),
        ];
        let routes = vec![
            route("0.0.0.0/0", "br0", 0),
            route("10.77.1.0/24", "mig0", 100),
            route("10.0.0.0/8", "eth0", 0),
        ];
        let path = found(nics, routes);
        let source = path.source_nic.known().unwrap();
        assert_eq!(
            (source.name.as_str(), source.guest_bridge.as_deref(), source.carries_default_route),
            ("mig0", None, false)
        );
        assert_eq!(path.destination_nic.known().unwrap().name, "mig0");
        assert_eq!(path.bandwidth_bytes_per_second, Fact::Known(1_250_000_000));
        assert_eq!(path.destination_address, Fact::Known("10.77.1.2".into()));
    }

    #[test]
    fn sharing_with_guests_is_found_through_vlans_and_bonds() {
        let shared = |nics: Vec<Nic>, via: &str| {
            let path = found(nics, vec![route("10.77.0.0/16", via, 0), route("0.0.0.0/0", "br0", 0)]);
            let nic = path.source_nic.known().unwrap().clone();
            (nic.guest_bridge, nic.carries_default_route)
        };
        let eth0 = || nic("eth0", NicKind::Physical, &[], &[]);
        let bridge = |lower: &[&str]| nic("br0", NicKind::Bridge, lower, &["10.77.1.2/24"]);
        let tap = || Nic { master: Some("br0".into()), ..nic("vnet0", NicKind::Tap, &[], &[]) };
        assert_eq!(
            shared(vec![eth0(), bridge(&["eth0"]), tap()], "br0"),
            (Some("br0".into()), true),
            "the bridge itself"
        );
        assert_eq!(
            shared(vec![eth0(), bridge(&["eth0"]), tap()], "eth0"),
            (Some("br0".into()), true),
            "its port"
        );
        let vlan = |name: &str| nic(name, NicKind::Vlan, &["eth0"], &[]);
        assert_eq!(
            shared(vec![eth0(), vlan("eth0.10"), vlan("eth0.20"), bridge(&["eth0.20"]), tap()], "eth0.10"),
            (Some("br0".into()), true),
            "two VLANs on one wire"
        );
        let bond = nic("bond0", NicKind::Bond, &["eth0", "eth1"], &[]);
        assert_eq!(
            shared(
                vec![eth0(), nic("eth1", NicKind::Physical, &[], &[]), bond, bridge(&["bond0"]), tap()],
                "bond0"
            ),
            (Some("br0".into()), true),
            "the bond below the bridge"
        );
        let alone = nic("mig0", NicKind::Physical, &[], &[]);
        assert_eq!(shared(vec![eth0(), alone, bridge(&["eth0"]), tap()], "mig0"), (None, false));
    }

    #[test]
    fn a_vlan_has_the_speed_of_its_wire_and_a_limit_counts() {
        let nics = vec![
            nic("eth0", NicKind::Physical, &[], &[]),
            nic("v", NicKind::Vlan, &["eth0"], &["10.77.1.2/24"]),
        ];
        let (nics, routes) = (Fact::Known(nics), Fact::Known(vec![route("10.77.1.0/24", "v", 0)]));
        let end = End { nics: &nics, routes: &routes };
        let change = Change { bandwidth_limit_bytes_per_second: Some(100), ..Change::default() };
        let limited = path(Fact::Known("10.77.1.2".parse().unwrap()), end, end, &change);
        assert_eq!(limited.source_nic.known().unwrap().speed_bytes_per_second, Some(1_250_000_000));
        assert_eq!(limited.bandwidth_bytes_per_second, Fact::Known(100));
    }

    #[test]
    fn what_is_missing_is_unknown_with_its_reason() {
        let path = found(vec![], vec![route("192.0.2.0/24", "eth0", 0)]);
        assert!(
            matches!(&path.source_nic, Fact::Unknown(why) if why.reason.contains("no route to 10.77.1.2"))
        );
        assert!(
            matches!(&path.destination_nic, Fact::Unknown(why) if why.reason.contains("holds 10.77.1.2"))
        );
        assert!(path.bandwidth_bytes_per_second.known().is_none());
    }

    #[test]
    fn interfaces_in_a_circle_do_not_hang() {
        let a = nic("a", NicKind::Bridge, &["b"], &["10.77.1.2/24"]);
        let b = nic("b", NicKind::Vlan, &["a"], &[]);
        assert!(found(vec![a, b], vec![route("10.77.1.0/24", "a", 0)]).source_nic.known().is_some());
    }

    #[test]
    fn an_address_is_found_in_every_shape() {
        for (text, host) in [
            ("10.77.1.2", "10.77.1.2"),
            ("tcp:10.77.1.2", "10.77.1.2"),
            ("tcp://10.77.1.2:49152", "10.77.1.2"),
            ("tcp://[fd00::2]:49152/", "fd00::2"),
            ("tcp:[fd00::2]", "fd00::2"),
            ("fd00::2", "fd00::2"),
            ("hv2-mig", "hv2-mig"),
            ("tls:hv2-mig:49152", "hv2-mig"),
        ] {
            assert_eq!(host_of_address(text), host, "{text}");
        }
    }
}
