//! Route that this host's kernel takes to an address, policy rules included (RTM_GETROUTE; `ip route get`).
//!
//! The request carries no mark, user or port, so rules that test those treat it as a packet without them.

use std::{
    collections::BTreeMap,
    fs,
    io::{Error, ErrorKind},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};
use vmgate_facts::{Cause, PathRoute, Unknown, text::plain};

use crate::netlink::{Request, address, attribute, number32, query};

const RTM_GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
/// Asks for the table that decided, and not just for the main one (linux/rtnetlink.h).
const RTM_F_LOOKUP_TABLE: u32 = 0x1000;
/// struct rtmsg.
const FIXED: usize = 12;

/// The route that the kernel takes to an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTo {
    /// Destination address in the question.
    pub to: IpAddr,
    /// Source address of packets to it.
    pub from: IpAddr,
    /// Interface, gateway and table.
    pub route: PathRoute,
}

/// Asks the kernel for the route to an address.
pub(crate) fn to(address: IpAddr) -> Result<RouteTo, Unknown> {
    let answer =
        query(libc::NETLINK_ROUTE, &request(address)).map_err(|error| unreachable(address, &error))?;
    parse(address, &answer, &interface_names()).ok_or_else(|| {
        Unknown::new(Cause::Malformed, format!("cannot parse the kernel's answer for the route to {address}"))
    })
}

fn request(address: IpAddr) -> Request {
    let (family, octets) = match address {
        IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
    };
    let prefix = u8::try_from(octets.len() * 8).unwrap_or(0);
    let mut fixed = vec![u8::try_from(family).unwrap_or(0), prefix, 0, 0, 0, 0, 0, 0];
    fixed.extend(RTM_F_LOOKUP_TABLE.to_ne_bytes());
    Request::new(RTM_GETROUTE, &fixed).with(RTA_DST, &octets)
}

fn unreachable(address: IpAddr, error: &Error) -> Unknown {
    let no_route = matches!(error.kind(), ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable);
    let what =
        if no_route { "the host has no route to" } else { "the host's kernel did not report its route to" };
    Unknown::new(Cause::NotSupported, format!("{what} {address} ({error})"))
}

/// Parses the answer; `names` are the interfaces by index.
fn parse(to: IpAddr, payload: &[u8], names: &BTreeMap<u32, String>) -> Option<RouteTo> {
    let of = |kind| attribute(payload, FIXED, kind);
    let nic = names.get(&number32(of(RTA_OIF)?, 0)?)?.clone();
    // An IPv4 route over an IPv6 next hop has the address family before the address.
    let gateway = of(RTA_GATEWAY).and_then(address).or_else(|| address(of(RTA_VIA)?.get(2..)?));
    Some(RouteTo {
        to,
        from: address(of(RTA_PREFSRC)?)?,
        route: PathRoute {
            nic,
            gateway: gateway.map(|gateway| gateway.to_string()),
            table: number32(of(RTA_TABLE)?, 0)?,
        },
    })
}

/// Names of interfaces by their index.
pub(crate) fn interface_names() -> BTreeMap<u32, String> {
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| {
        let index = fs::read_to_string(entry.path().join("ifindex")).ok()?.trim().parse().ok()?;
        Some((index, plain(entry.file_name().to_str()?)))
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use crate::host::path::route::*;

    #[test]
    fn the_way_to_this_machine_is_its_loopback() {
        for text in ["127.0.0.1", "127.8.9.10"] {
            let found = to(text.parse().unwrap()).unwrap();
            assert_eq!((found.route.nic.as_str(), &found.route.gateway), ("lo", &None));
            // The local table, or the main one: while there are no further rules, IPv4 keeps both in one.
            assert!([254, 255].contains(&found.route.table), "{found:?}");
            assert!(found.from.is_loopback());
        }
    }

    #[test]
    fn an_answer_is_taken_apart() {
        // `ip route get 10.9.0.1`, decided by table 100, over an IPv6 next hop.
        let mut payload = vec![0; FIXED];
        for (kind, value) in [
            (RTA_DST, vec![10, 9, 0, 1]),
            (RTA_OIF, 7_u32.to_ne_bytes().to_vec()),
            (RTA_PREFSRC, vec![10, 0, 0, 1]),
            (RTA_TABLE, 100_u32.to_ne_bytes().to_vec()),
            (RTA_VIA, [vec![10, 0], vec![0xfe; 16]].concat()),
        ] {
            payload.extend(crate::netlink::encoded(kind, &value));
        }
        let names = BTreeMap::from([(7, "eth1".to_owned())]);
        let to = "10.9.0.1".parse().unwrap();
        let found = parse(to, &payload, &names).unwrap();
        assert_eq!((found.route.nic.as_str(), found.route.table), ("eth1", 100));
        assert!(found.route.gateway.unwrap().starts_with("fefe:"));
        for cut in 0..payload.len() {
            let _ = parse(to, &payload[..cut], &names);
        }
        assert!(parse(to, &payload, &BTreeMap::new()).is_none());
    }
}
