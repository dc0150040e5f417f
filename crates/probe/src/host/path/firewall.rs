//! Firewall chains of this host that could block a migration: base chains of nf_tables for incoming or outgoing
//! packets, and legacy iptables tables. Rules are not interpreted: a chain with rules, or with a drop policy, could.

use std::{
    fs,
    io::{Error, ErrorKind},
};

use serde::{Deserialize, Serialize};
use vmgate_facts::{Cause, Unknown};

use crate::netlink::{Request, attribute, dump, text};

/// NFNL_SUBSYS_NFTABLES and NFT_MSG_GETCHAIN (linux/netfilter/nf_tables.h).
const GET_CHAIN: u16 = 10 << 8 | 4;
/// struct nfgenmsg.
const FIXED: usize = 4;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_USE: u16 = 6;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const POLICY_ACCEPT: u32 = 1;

/// Families (linux/netfilter.h).
mod family {
    pub(super) const INET: u8 = 1;
    pub(super) const IPV4: u8 = 2;
    pub(super) const NETDEV: u8 = 5;
    pub(super) const IPV6: u8 = 10;
}

/// Names of the chains that could block packets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Firewall {
    /// Chains for incoming packets.
    pub incoming: Vec<String>,
    /// Chains for outgoing packets.
    pub outgoing: Vec<String>,
}

/// Lists the chains; needs CAP_NET_ADMIN.
pub(crate) fn look() -> Result<Firewall, Unknown> {
    let mut firewall = Firewall::default();
    match dump(libc::NETLINK_NETFILTER, &Request::new(GET_CHAIN, &[0; FIXED])) {
        Ok(chains) => {
            chains.iter().filter_map(|payload| chain(payload)).for_each(
                |(name, direction)| match direction {
                    Direction::In => firewall.incoming.push(name),
                    Direction::Out => firewall.outgoing.push(name),
                },
            );
        }
        // A kernel without nf_tables has none of its chains.
        Err(error) if is_missing(&error) => {}
        Err(error) => {
            let cause = match error.kind() {
                ErrorKind::PermissionDenied => Cause::PermissionDenied,
                _ => Cause::NotSupported,
            };
            let why = format!("cannot list the firewall's chains (nf_tables, needs CAP_NET_ADMIN): {error}");
            return Err(Unknown::new(cause, why));
        }
    }
    for (file, name) in
        [("/proc/net/ip_tables_names", "iptables"), ("/proc/net/ip6_tables_names", "ip6tables")]
    {
        // The file does not exist if the tables were never loaded.
        let tables = fs::read_to_string(file).unwrap_or_default();
        if tables.lines().any(|table| table == "filter") {
            firewall.incoming.push(format!("{name} filter INPUT"));
            firewall.outgoing.push(format!("{name} filter OUTPUT"));
        }
    }
    Ok(firewall)
}

fn is_missing(error: &Error) -> bool {
    let codes = [libc::EPROTONOSUPPORT, libc::EOPNOTSUPP, libc::EINVAL, libc::ENOENT];
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    In,
    Out,
}

/// Name, as `nft` writes it, and direction of a chain that could block a migration; none if it could not.
fn chain(payload: &[u8]) -> Option<(String, Direction)> {
    let of = |kind| attribute(payload, FIXED, kind);
    let hook = big32(attribute(of(NFTA_CHAIN_HOOK)?, 0, NFTA_HOOK_HOOKNUM)?)?;
    let (family, direction) = match (payload.first().copied()?, hook) {
        // Hooks: prerouting, input, forward, output, postrouting; a device has ingress and egress.
        (family::INET, 0 | 1) => ("inet", Direction::In),
        (family::INET, 3 | 4) => ("inet", Direction::Out),
        (family::IPV4, 0 | 1) => ("ip", Direction::In),
        (family::IPV4, 3 | 4) => ("ip", Direction::Out),
        (family::IPV6, 0 | 1) => ("ip6", Direction::In),
        (family::IPV6, 3 | 4) => ("ip6", Direction::Out),
        (family::NETDEV, 0) => ("netdev", Direction::In),
        (family::NETDEV, 1) => ("netdev", Direction::Out),
        _ => return None,
    };
    // Address translation changes packets and does not stop them.
    let filters = of(NFTA_CHAIN_TYPE).map(text).is_none_or(|kind| kind == "filter");
    let rules = of(NFTA_CHAIN_USE).and_then(big32).unwrap_or(0);
    let drops = of(NFTA_CHAIN_POLICY).and_then(big32).is_some_and(|policy| policy != POLICY_ACCEPT);
    let name = format!("{family} {} {}", text(of(NFTA_CHAIN_TABLE)?), text(of(NFTA_CHAIN_NAME)?));
    (filters && (rules > 0 || drops)).then_some((name, direction))
}

/// A number in network order.
fn big32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.first_chunk().copied()?))
}

#[cfg(test)]
mod tests {
    use crate::{host::path::firewall::*, netlink::encoded};

    fn message(family: u8, hook: u32, policy: u32, rules: u32, kind: &[u8]) -> Vec<u8> {
        let attributes = |list: &[(u16, Vec<u8>)]| {
            list.iter().flat_map(|(kind, value)| encoded(*kind, value)).collect::<Vec<_>>()
        };
        let number = |number: u32| number.to_be_bytes().to_vec();
        let mut bytes = vec![family, 0, 0, 0];
        bytes.extend(attributes(&[
            (NFTA_CHAIN_TABLE, b"filter\0".to_vec()),
            (NFTA_CHAIN_NAME, b"input\0".to_vec()),
            (NFTA_CHAIN_HOOK, attributes(&[(NFTA_HOOK_HOOKNUM, number(hook))])),
            (NFTA_CHAIN_POLICY, number(policy)),
            (NFTA_CHAIN_USE, number(rules)),
            (NFTA_CHAIN_TYPE, kind.to_vec()),
        ]));
        bytes
    }

    #[test]
    fn a_chain_that_could_stop_packets_is_told_from_one_that_could_not() {
        let seen = |payload: Vec<u8>| chain(&payload);
        let input = || Some(("inet filter input".to_owned(), Direction::In));
        assert_eq!(seen(message(1, 1, 1, 3, b"filter\0")), input(), "it has rules");
        assert_eq!(seen(message(1, 1, 0, 0, b"filter\0")), input(), "it drops by policy");
        assert_eq!(seen(message(1, 1, 1, 0, b"filter\0")), None, "empty, and accepts");
        assert_eq!(seen(message(1, 1, 1, 3, b"nat\0")), None);
        assert_eq!(seen(message(1, 2, 0, 3, b"filter\0")), None, "forwarding");
        assert_eq!(seen(message(7, 1, 0, 3, b"filter\0")), None, "a bridge's");
        assert_eq!(seen(message(2, 3, 1, 1, b"filter\0")).unwrap().1, Direction::Out);
        let whole = message(1, 1, 0, 0, b"filter\0");
        for cut in 0..whole.len() {
            let _ = chain(&whole[..cut]);
        }
    }
}
