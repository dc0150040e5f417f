//! Stateful packet filters that bridged traffic passes: nftables by netlink(7), which includes iptables-nft
//! (linux/netfilter/nf_tables.h, nf_tables_compat.h).
//!
//! A filter's state stays on the source, so the destination's filter sees every connection from the middle. Covered are
//! nftables and the presence of legacy iptables tables; not connections tracked by Open vSwitch or an eBPF program.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Error, ErrorKind},
};

use vmgate_facts::{Cause, StatefulFilter, Unknown, text::plain};

use crate::{
    host::not_read,
    netlink::{
        self, NLMSG_DONE, NLMSG_ERROR, Netlink, NetlinkParseError, attribute, attributes, messages, number32,
    },
};

/// Sysctl that passes bridged traffic to the filters of ip; exists only with br_netfilter.
const CALL_IPTABLES: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
/// The same for ip6.
const CALL_IP6TABLES: &str = "/proc/sys/net/bridge/bridge-nf-call-ip6tables";
/// Names of the legacy iptables tables in use.
const LEGACY_TABLES: &str = "/proc/net/ip_tables_names";
/// The same for ip6.
const LEGACY_TABLES6: &str = "/proc/net/ip6_tables_names";

const NFTABLES: u16 = 10 << 8;
const NEW_CHAIN: u16 = NFTABLES | 3;
const GET_CHAIN: u16 = NFTABLES | 4;
const NEW_RULE: u16 = NFTABLES | 6;
const GET_RULE: u16 = NFTABLES | 7;
/// struct nfgenmsg.
const MESSAGE: usize = 4;
const DATAGRAM: usize = 64 << 10;
/// Most chains and rules that are read; more is an error.
const MOST: usize = 200_000;

/// Hooks that forwarded traffic passes: NF_INET_PRE_ROUTING, NF_INET_FORWARD and NF_INET_POST_ROUTING. The bridge
/// family uses the same numbers.
const PASSED: [u32; 3] = [0, 2, 4];

/// Key of a chain: family, table and name.
type ChainId = (u8, String, String);

/// Families whose filters bridged traffic passes (br_netfilter).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BridgeNetfilter {
    ip: bool,
    ip6: bool,
}

/// The kernel's chains and stateful rules.
#[derive(Debug, Default)]
struct Ruleset {
    /// Hooks of base chains.
    hooks: BTreeMap<ChainId, u32>,
    /// Chains with their number of stateful rules.
    stateful: BTreeMap<ChainId, u64>,
}

/// The stateful filters that bridged traffic passes.
pub(super) fn look() -> Result<Vec<StatefulFilter>, Unknown> {
    let is_on = |path| text(path).map(|text| !matches!(&*text, "" | "0"));
    let bridge_netfilter = BridgeNetfilter { ip: is_on(CALL_IPTABLES)?, ip6: is_on(CALL_IP6TABLES)? };
    for (path, bridge_netfilter) in
        [(LEGACY_TABLES, bridge_netfilter.ip), (LEGACY_TABLES6, bridge_netfilter.ip6)]
    {
        let names = if bridge_netfilter { text(path)? } else { String::new() };
        if !names.is_empty() {
            return Err(Unknown::new(
                Cause::NotSupported,
                format!(
                    "bridged traffic passes legacy iptables tables ({names}), which vmgate cannot read: check the output of `iptables-legacy-save` on the host for conntrack, state or NAT"
                ),
            ));
        }
    }
    let ruleset = ruleset().map_err(|error| {
        let cause = match error.kind() {
            ErrorKind::PermissionDenied => Cause::PermissionDenied,
            _ => Cause::NotSupported,
        };
        Unknown::new(cause, format!("the host's kernel does not list its packet filters (nftables): {error}"))
    })?;
    Ok(ruleset.passed(bridge_netfilter))
}

/// The text of a file; empty if the file does not exist.
fn text(path: &str) -> Result<String, Unknown> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(plain(&text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(not_read(path, &error)),
    }
}

fn ruleset() -> Result<Ruleset, Error> {
    let mut ruleset = Ruleset::default();
    let netlink = match Netlink::open(libc::NETLINK_NETFILTER) {
        // A kernel without nfnetlink has no nftables.
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(ruleset),
        opened => opened?,
    };
    let mut buffer = vec![0; DATAGRAM];
    for kind in [GET_CHAIN, GET_RULE] {
        netlink.send(&request(kind))?;
        let mut seen = 0;
        while let Some(code) = ruleset.take(netlink.receive(&mut buffer)?, &mut seen).map_err(Error::other)? {
            match code {
                0 if seen > MOST => return Err(Error::other(format!("more than {MOST} chains and rules"))),
                0 => {}
                // The kernel has no nftables.
                libc::EINVAL | libc::EOPNOTSUPP => return Ok(Ruleset::default()),
                code => return Err(Error::from_raw_os_error(code)),
            }
        }
    }
    Ok(ruleset)
}

/// The netlink request for all objects of a kind, in every family.
fn request(kind: u16) -> [u8; 20] {
    const REQUEST_AND_DUMP: u16 = 0x301;
    let mut bytes = [0; 20];
    let head =
        20_u32.to_ne_bytes().into_iter().chain(kind.to_ne_bytes()).chain(REQUEST_AND_DUMP.to_ne_bytes());
    for (place, byte) in bytes.iter_mut().zip(head) {
        *place = byte;
    }
    bytes
}

impl Ruleset {
    /// Adds one datagram of an answer. Returns none after the last one, else the kernel's error code or 0.
    fn take(&mut self, datagram: &[u8], seen: &mut usize) -> Result<Option<i32>, NetlinkParseError> {
        for message in messages(datagram) {
            let message = message?;
            *seen += 1;
            match message.kind {
                NLMSG_DONE => return Ok(None),
                NLMSG_ERROR => {
                    let code = number32(message.payload, 0).ok_or(NetlinkParseError)?;
                    return Ok(Some(code.cast_signed().wrapping_neg()));
                }
                NEW_CHAIN => self.chain(message.payload).ok_or(NetlinkParseError)?,
                NEW_RULE => self.rule(message.payload).ok_or(NetlinkParseError)?,
                _ => {}
            }
        }
        Ok(Some(0))
    }

    fn chain(&mut self, payload: &[u8]) -> Option<()> {
        const TABLE: u16 = 1;
        const NAME: u16 = 3;
        const HOOK: u16 = 4;
        const HOOK_NUMBER: u16 = 1;
        let family = *payload.first()?;
        let id = (family, name(payload, MESSAGE, TABLE)?, name(payload, MESSAGE, NAME)?);
        if let Some(hook) = attribute(payload, MESSAGE, HOOK) {
            let number = attribute(hook, 0, HOOK_NUMBER)?.first_chunk().copied()?;
            self.hooks.insert(id, u32::from_be_bytes(number));
        }
        Some(())
    }

    fn rule(&mut self, payload: &[u8]) -> Option<()> {
        const TABLE: u16 = 1;
        const CHAIN: u16 = 2;
        const EXPRESSIONS: u16 = 4;
        let family = *payload.first()?;
        let expressions = attribute(payload, MESSAGE, EXPRESSIONS).unwrap_or_default();
        if attributes(expressions, 0).any(|(_, expression)| is_stateful(expression)) {
            let id = (family, name(payload, MESSAGE, TABLE)?, name(payload, MESSAGE, CHAIN)?);
            let count = self.stateful.entry(id).or_default();
            *count = count.saturating_add(1);
        }
        Some(())
    }

    /// The stateful chains that bridged traffic passes. A chain without a hook is called by another chain of its table;
    /// calls are not followed, so it counts as passed if any chain of its table is.
    fn passed(self, bridge_netfilter: BridgeNetfilter) -> Vec<StatefulFilter> {
        let passed: BTreeSet<(u8, &str)> = self
            .hooks
            .iter()
            .filter(|(_, hook)| PASSED.contains(hook))
            .map(|((family, table, _), _)| (*family, table.as_str()))
            .collect();
        let is_passed = |(family, table, _): &ChainId, hook: Option<&u32>| match hook {
            Some(hook) => PASSED.contains(hook),
            None => passed.contains(&(*family, table.as_str())),
        };
        self.stateful
            .iter()
            .filter(|(id, _)| is_passed(id, self.hooks.get(id)))
            .filter_map(|((family, table, chain), rules)| {
                let family = match i32::from(*family) {
                    libc::NFPROTO_BRIDGE => "bridge",
                    libc::NFPROTO_INET if bridge_netfilter.ip || bridge_netfilter.ip6 => "inet",
                    libc::NFPROTO_IPV4 if bridge_netfilter.ip => "ip",
                    libc::NFPROTO_IPV6 if bridge_netfilter.ip6 => "ip6",
                    _ => return None,
                };
                Some(StatefulFilter {
                    family: family.to_owned(),
                    table: table.clone(),
                    chain: chain.clone(),
                    rules: *rules,
                })
            })
            .collect()
    }
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(datagram: &[u8]) {
    let mut ruleset = Ruleset::default();
    let _ = ruleset.take(datagram, &mut 0);
    let _ = ruleset.passed(BridgeNetfilter { ip: true, ip6: true });
}

/// True if an expression reads or changes the state of connections.
fn is_stateful(expression: &[u8]) -> bool {
    const NAME: u16 = 1;
    const DATA: u16 = 2;
    let text = |bytes: &[u8]| bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
    let Some(expression_name) = attribute(expression, 0, NAME).map(text) else { return false };
    match &*expression_name {
        b"ct" | b"nat" | b"masq" | b"redir" | b"connlimit" | b"synproxy" | b"flow_offload" => true,
        // Extensions of iptables: their name is the first attribute of their data.
        b"match" | b"target" => {
            let extension =
                attribute(expression, 0, DATA).and_then(|data| attribute(data, 0, NAME)).map(text);
            matches!(
                extension.as_deref(),
                Some(
                    b"conntrack"
                        | b"state"
                        | b"connlimit"
                        | b"connbytes"
                        | b"connmark"
                        | b"helper"
                        | b"MASQUERADE"
                        | b"SNAT"
                        | b"DNAT"
                        | b"REDIRECT"
                        | b"NETMAP"
                        | b"CONNMARK"
                )
            )
        }
        _ => false,
    }
}

fn name(payload: &[u8], offset: usize, wanted: u16) -> Option<String> {
    attribute(payload, offset, wanted).map(netlink::text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::{host::stateful_filter::*, netlink::encoded as nested};

    fn message(kind: u16, family: i32, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut payload = vec![u8::try_from(family).unwrap(), 0, 0, 0];
        payload.extend(attributes.concat());
        let mut bytes = u32::try_from(16 + payload.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(16, 0);
        bytes.extend(payload);
        bytes
    }

    fn chain(family: i32, table: &str, name: &str, hook: Option<u32>) -> Vec<u8> {
        let mut attributes = vec![nested(1, table.as_bytes()), nested(3, name.as_bytes())];
        attributes.extend(hook.map(|hook| nested(4, &nested(1, &hook.to_be_bytes()))));
        message(NEW_CHAIN, family, &attributes)
    }

    fn rule(family: i32, table: &str, chain: &str, expression: &[u8]) -> Vec<u8> {
        let attributes =
            [nested(1, table.as_bytes()), nested(2, chain.as_bytes()), nested(4, &nested(1, expression))];
        message(NEW_RULE, family, &attributes)
    }

    const BOTH: BridgeNetfilter = BridgeNetfilter { ip: true, ip6: true };

    fn seen(datagrams: &[Vec<u8>], bridge_netfilter: BridgeNetfilter) -> Vec<String> {
        let mut ruleset = Ruleset::default();
        for datagram in datagrams {
            ruleset.take(datagram, &mut 0).unwrap();
        }
        let passed = ruleset.passed(bridge_netfilter);
        passed.iter().map(|f| format!("{} {} {} {}", f.family, f.table, f.chain, f.rules)).collect()
    }

    #[test]
    fn only_chains_that_forwarded_traffic_passes_count() {
        let state = nested(1, b"ct\0");
        let (ip, bridge) = (libc::NFPROTO_IPV4, libc::NFPROTO_BRIDGE);
        let rules = [
            chain(ip, "filter", "INPUT", Some(1)),
            chain(ip, "filter", "FORWARD", Some(2)),
            chain(ip, "host", "in", Some(1)),
            chain(ip, "host", "called", None),
            chain(ip, "filter", "called", None),
            chain(bridge, "guests", "forward", Some(2)),
            rule(ip, "filter", "INPUT", &state),
            rule(ip, "filter", "FORWARD", &state),
            rule(ip, "filter", "FORWARD", &state),
            rule(ip, "host", "called", &state),
            rule(ip, "filter", "called", &state),
            rule(bridge, "guests", "forward", &nested(1, b"counter\0")),
        ];
        assert_eq!(seen(&rules, BOTH), ["ip filter FORWARD 2", "ip filter called 1"]);
        assert!(
            seen(&rules, BridgeNetfilter { ip: false, ip6: true }).is_empty(),
            "bridged traffic does not come there"
        );
        let bridged = [rules.as_slice(), &[rule(bridge, "guests", "forward", &state)]].concat();
        assert_eq!(seen(&bridged, BridgeNetfilter { ip: false, ip6: false }), ["bridge guests forward 1"]);
    }

    #[test]
    fn extensions_of_iptables_are_known_by_their_own_name() {
        let extension = |kind: &str, name: &str| {
            [nested(1, kind.as_bytes()), nested(2, &nested(1, name.as_bytes()))].concat()
        };
        assert!(is_stateful(&extension("match\0", "conntrack\0")));
        assert!(is_stateful(&extension("target\0", "MASQUERADE\0")));
        assert!(!is_stateful(&extension("match\0", "physdev\0")));
        assert!(!is_stateful(&nested(1, b"cmp\0")) && !is_stateful(b""));
    }

    #[test]
    fn this_kernel_answers_root_and_refuses_others() {
        let is_root = rustix::process::geteuid().is_root();
        match ruleset() {
            Ok(_) => assert!(is_root),
            Err(error) => assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}"),
        }
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in prop::sample::select(vec![NEW_CHAIN, NEW_RULE])) {
            let mut ruleset = Ruleset::default();
            let _ = ruleset.take(&bytes, &mut 0);
            let _ = ruleset.take(&message(kind, 2, std::slice::from_ref(&bytes)), &mut 0);
            let _ = ruleset.passed(BOTH);
        }
    }
}
