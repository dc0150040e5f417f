//! Routes of the main table: IPv4 by `procfs`, IPv6 from /proc/net/ipv6_route, which `procfs` does not read.

use std::{fs, net::Ipv6Addr};

use vmgate_facts::{Cause, Route, Unknown, text::plain};

use crate::host::{not_read, procfs_error};

const IPV6_ROUTE: &str = "/proc/net/ipv6_route";

/// Flags of a route (linux/route.h, linux/ipv6_route.h).
mod flag {
    pub(super) const UP: u32 = 0x1;
    pub(super) const REJECT: u32 = 0x200;
    pub(super) const CACHE: u32 = 0x0100_0000;
    pub(super) const LOCAL: u32 = 0x8000_0000;
}

/// Routes of both families.
pub(super) fn look() -> Result<Vec<Route>, Unknown> {
    let mut routes = ipv4()?;
    match fs::read_to_string(IPV6_ROUTE) {
        Ok(table) => routes.extend(ipv6(&table)?),
        // A kernel without IPv6 has no such routes.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(not_read(IPV6_ROUTE, &error)),
    }
    Ok(routes)
}

fn ipv4() -> Result<Vec<Route>, Unknown> {
    let entries = procfs::net::route().map_err(|error| procfs_error(&error))?;
    Ok(entries
        .into_iter()
        .filter(|entry| {
            let flags = u32::from(entry.flags);
            flags & flag::UP != 0 && flags & flag::REJECT == 0
        })
        .map(|entry| Route {
            destination: format!("{}/{}", entry.destination, u32::from(entry.mask).count_ones()),
            nic: plain(&entry.iface),
            gateway: (!entry.gateway.is_unspecified()).then(|| entry.gateway.to_string()),
            metric: entry.metrics,
        })
        .collect())
}

/// Parses columns: destination, its prefix, source, its prefix, next hop, metric, two counters, flags, interface;
/// numbers in hexadecimal (net/ipv6/route.c). The file holds all tables; entries that lead nowhere are skipped.
fn ipv6(table: &str) -> Result<Vec<Route>, Unknown> {
    let mut routes = Vec::new();
    for line in table.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let malformed =
            || Unknown::new(Cause::Malformed, format!("{IPV6_ROUTE}: not a route: `{}`", plain(line)));
        let [destination, prefix, _, _, gateway, metric, _, _, flags, nic] = fields.as_slice() else {
            return Err(malformed());
        };
        let number = |text: &str| u32::from_str_radix(text, 16).map_err(|_| malformed());
        let address =
            |text: &str| u128::from_str_radix(text, 16).map(Ipv6Addr::from_bits).map_err(|_| malformed());
        let (destination, gateway, flags) = (address(destination)?, address(gateway)?, number(flags)?);
        let way_out = flags & flag::UP != 0
            && flags & (flag::REJECT | flag::LOCAL | flag::CACHE) == 0
            && !destination.is_multicast()
            && *nic != "lo";
        if way_out {
            routes.push(Route {
                destination: format!("{destination}/{}", number(prefix)?),
                nic: plain(nic),
                gateway: (!gateway.is_unspecified()).then(|| gateway.to_string()),
                metric: number(metric)?,
            });
        }
    }
    Ok(routes)
}

#[cfg(test)]
mod tests {
    use crate::host::route::*;

    #[test]
    fn only_ways_out_are_routes() {
        let table = "\
fd000000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     mig0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0
00000000000000000000000000000001 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000003 00000000 80200001       lo
fd000000000000000000000000000002 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000002 00000000 80200001     mig0
ff000000000000000000000000000000 08 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000004 00000000 00000001     mig0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
";
        let routes = ipv6(table).unwrap();
        assert_eq!(routes.len(), 2);
        assert_eq!((routes[0].destination.as_str(), routes[0].metric), ("fd00::/64", 256));
        assert_eq!(routes[1].destination, "::/0");
        assert_eq!(routes[1].gateway.as_deref(), Some("fe80::1"));
        assert!(ipv6("garbage\n").is_err());
    }
}
