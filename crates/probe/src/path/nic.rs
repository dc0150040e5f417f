//! The interface at each end of the path, and other users of that interface.

use std::net::IpAddr;

use vmgate_facts::{Cause, Fact, Nic, NicKind, PathNic, Route, Shaper, ShaperKind};

use crate::{
    host::RateLimit,
    path::{
        PathEnd,
        address::{prefix_match, split_prefix},
        wire::{devices, guest_bridge, is_passed_by_others, shares_a_wire_by_name, speed},
    },
};

/// Direction of traffic that a shaper limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Sending,
    Receiving,
}

/// Interface through which the source's kernel sends to the address. If the kernel was not asked: that of the longest
/// matching route of the main table; of equal ones the lowest metric.
pub(super) fn source_nic(address: IpAddr, end: &PathEnd) -> Fact<PathNic> {
    if let Fact::Known(found) = &end.network.route
        && found.to == address
    {
        return nic_named(&found.route.nic, end, Direction::Sending);
    }
    end.routes.as_ref().and_then(|routes| {
        let best = routes
            .iter()
            .filter_map(|route| Some((prefix_match(&route.destination, address)?, route)))
            // The kernel takes the first of equal routes, `max_by_key` the last.
            .rev()
            .max_by_key(|(prefix, route)| (*prefix, u32::MAX - route.metric));
        match best {
            Some((_, route)) => nic_named(&route.nic, end, Direction::Sending),
            None => Fact::unknown(Cause::NotSupported, format!("the source host has no route to {address}")),
        }
    })
}

/// Interface of the destination with the address.
pub(super) fn destination_nic(address: IpAddr, end: &PathEnd) -> Fact<PathNic> {
    end.nics.as_ref().and_then(|nics| {
        let holds = |nic: &&Nic| {
            nic.addresses.iter().any(|given| split_prefix(given).map(|(ip, _)| ip) == Some(address))
        };
        match nics.iter().find(holds) {
            Some(nic) => nic_named(&nic.name, end, Direction::Receiving),
            None => Fact::unknown(
                Cause::NotSupported,
                format!("no interface of the destination host has the address {address}"),
            ),
        }
    })
}

fn nic_named(name: &str, end: &PathEnd, direction: Direction) -> Fact<PathNic> {
    let seen = end.nics.as_ref().and_then(|nics| end.routes.as_ref().map(|routes| (nics, routes)));
    seen.and_then(|(nics, routes)| match nics.iter().find(|nic| nic.name == name) {
        Some(nic) => Fact::Known(path_nic(nic, nics, routes, end, direction)),
        None => Fact::unknown(
            Cause::NotSupported,
            format!("the interface `{name}` of the route is not among the host's interfaces"),
        ),
    })
}

fn path_nic(nic: &Nic, nics: &[Nic], routes: &[Route], end: &PathEnd, direction: Direction) -> PathNic {
    let name = nic.name.as_str();
    let devices = devices(nic, nics);
    let carries_default_route =
        routes.iter().any(|route| is_default(route) && shares_a_wire_by_name(&route.nic, name, nics));
    let storage: Fact<Vec<String>> = end.network.storage.as_ref().map(|storage| {
        storage
            .iter()
            .filter(|one| shares_a_wire_by_name(&one.nic, name, nics))
            .map(|one| one.what.clone())
            .collect()
    });
    let has_storage = storage.known().is_none_or(|storage| !storage.is_empty());
    let shapers = end.network.shapers.as_ref().map(|shapers| {
        let limits = if direction == Direction::Sending { &shapers.sent } else { &shapers.received };
        let here = limits.iter().filter(|limit| devices.contains(&limit.nic));
        // Other traffic of the host itself passes the same lower interfaces.
        let shared = |limit: &RateLimit| {
            is_passed_by_others(&limit.nic, name, nics)
                || (nic.kind != NicKind::Bridge && (carries_default_route || has_storage))
        };
        here.map(|limit| Shaper {
            nic: limit.nic.clone(),
            kind: limit.kind,
            rate_bytes_per_second: limit.rate_bytes_per_second,
            shared: is_one_bucket(limit.kind) && shared(limit),
        })
        .collect()
    });
    let used = end.with_peer(|peer| {
        peer.traffic.as_ref().map(|traffic| {
            let seen = devices.iter().filter_map(|device| traffic.get(device));
            seen.map(|seen| seen.received_bytes_per_second.max(seen.sent_bytes_per_second)).max().unwrap_or(0)
        })
    });
    PathNic {
        name: nic.name.clone(),
        kind: nic.kind,
        up: nic.up,
        speed_bytes_per_second: speed(nic, nics),
        mtu_bytes: nic.mtu_bytes,
        guest_bridge: guest_bridge(nic, nics),
        carries_default_route,
        storage,
        shapers,
        used_bytes_per_second: used,
        devices: Fact::Known(devices),
    }
}

/// True if all traffic shares the rate of such a shaper; other kinds limit each flow or class to the rate.
fn is_one_bucket(kind: ShaperKind) -> bool {
    match kind {
        ShaperKind::Tbf | ShaperKind::Police => true,
        // CAKE gives each host and flow its share, fq each flow a rate, HTB each class.
        ShaperKind::Htb | ShaperKind::Fq | ShaperKind::Cake => false,
    }
}

fn is_default(route: &Route) -> bool {
    split_prefix(&route.destination).is_some_and(|(ip, prefix)| ip.is_unspecified() && prefix == 0)
}
