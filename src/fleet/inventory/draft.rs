//! Draft of an inventory from what hosts tell: their names, the network that migrations may use, and pools of equal CPUs.
//!
//! Only what is plain is written: a network on which every host has an address, and which neither guests nor the default
//! route use. Where there are several the fastest is taken, and the others stand in a comment.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use vmgate_facts::{Fact, Host, HostUri, Nic, NicKind, Uri};

/// A host as it told of itself.
#[derive(Debug, Clone)]
pub struct FoundHost {
    /// Name for the inventory.
    pub name: String,
    /// URI that a document may name.
    pub uri: Uri,
    /// Addresses by which this machine reaches the host.
    pub reached_at: Vec<IpAddr>,
    /// Facts of the host; unknown where it did not answer.
    pub host: Fact<Host>,
}

/// A network that hosts share: its first address and its prefix length.
type Network = (IpAddr, u8);

/// An address of a host on a network, with the speed of its interface.
#[derive(Debug, Clone, Copy)]
struct Place {
    address: IpAddr,
    speed: Option<u64>,
}

/// Text of an inventory of these hosts.
pub fn draft(hosts: &[FoundHost]) -> String {
    let migration = migration_networks(hosts);
    let pools = pools(hosts);
    let mut text = String::from("schema: vmgate/inventory/v1\n");
    if let Some(((network, prefix), _)) = migration.first() {
        let _ = writeln!(text, "networks:\n  - name: {network}/{prefix}");
        for ((other, prefix), _) in migration.iter().skip(1) {
            let _ = writeln!(text, "  # Also possible for migrations: {other}/{prefix}");
        }
    }
    if !pools.is_empty() {
        text.push_str("# Hosts whose CPU model is the same.\npools:\n");
        for pool in pools.keys() {
            let _ = writeln!(text, "  - name: {}", yaml(pool));
        }
    }
    text.push_str("hosts:\n");
    for (at, host) in hosts.iter().enumerate() {
        let _ = writeln!(text, "  - name: {}\n    uri: {}", yaml(&host.name), yaml(&plain_uri(&host.uri)));
        if let Some(pool) = pools.iter().find_map(|(pool, members)| members.contains(&at).then_some(pool)) {
            let _ = writeln!(text, "    pool: {}", yaml(pool));
        }
        let address = migration.first().and_then(|(network, places)| Some((network, places.get(at)?)));
        if let Some(((network, prefix), place)) = address {
            let _ = writeln!(
                text,
                "    networks: [{network}/{prefix}]\n    migrate_address: {}",
                yaml(&place.address.to_string())
            );
        }
        if let Fact::Unknown(why) = &host.host {
            let _ = writeln!(text, "    # It did not answer: {}", vmgate_facts::text::plain(&why.reason));
        }
    }
    text
}

/// Networks that may carry migrations, the fastest first, with the place of each host.
fn migration_networks(hosts: &[FoundHost]) -> Vec<(Network, Vec<Place>)> {
    let Some(first) = hosts.first() else { return Vec::new() };
    let on_every_host = |network: Network| {
        let places = hosts.iter().map(|host| places(host).into_iter().find(|(other, _)| *other == network));
        let places: Option<Vec<Place>> = places.map(|found| found.map(|(_, place)| place)).collect();
        places.map(|places| (network, places))
    };
    let mut found: Vec<_> =
        places(first).into_iter().filter_map(|(network, _)| on_every_host(network)).collect();
    found.dedup_by_key(|(network, _)| *network);
    found.sort_by_key(|(_, places)| std::cmp::Reverse(places.iter().filter_map(|place| place.speed).min()));
    if hosts.len() > 1 { found } else { Vec::new() }
}

/// Addresses of a host that could carry migrations.
fn places(found: &FoundHost) -> Vec<(Network, Place)> {
    let Some(host) = found.host.known() else { return Vec::new() };
    let nics = host.nics.known().map(Vec::as_slice).unwrap_or_default();
    let routes = host.routes.known().map(Vec::as_slice).unwrap_or_default();
    let is_default =
        |nic: &&Nic| routes.iter().any(|route| route.destination.ends_with("/0") && route.nic == nic.name);
    let is_reached = |nic: &&Nic| addresses(nic).any(|(address, _)| found.reached_at.contains(&address));
    let usable = nics.iter().filter(|nic| {
        nic.up && !matches!(nic.kind, NicKind::Loopback | NicKind::Tap) && !carries_guests(nic, nics)
    });
    let usable = usable.filter(|nic| !is_default(nic) && !is_reached(nic));
    usable
        .flat_map(|nic| {
            addresses(nic).map(|(address, prefix)| {
                ((network_of(address, prefix), prefix), Place { address, speed: speed(nic, nics) })
            })
        })
        .collect()
}

/// True for a bridge that has guests' taps.
fn carries_guests(nic: &Nic, nics: &[Nic]) -> bool {
    let virtual_bridge = nic.kind == NicKind::Bridge && nic.name.starts_with("virbr");
    virtual_bridge
        || nics
            .iter()
            .any(|port| port.kind == NicKind::Tap && port.master.as_deref() == Some(nic.name.as_str()))
}

/// Speed of an interface, or of the slowest below it.
fn speed(nic: &Nic, nics: &[Nic]) -> Option<u64> {
    let below = nics.iter().filter(|other| nic.lower.contains(&other.name));
    nic.speed_bytes_per_second.or_else(|| below.filter_map(|other| other.speed_bytes_per_second).min())
}

/// Addresses of an interface with their prefix lengths; link-local ones name no network that hosts share.
fn addresses(nic: &Nic) -> impl Iterator<Item = (IpAddr, u8)> + '_ {
    let parse = |text: &String| {
        let (address, prefix) = text.split_once('/')?;
        Some((address.parse::<IpAddr>().ok()?, prefix.parse::<u8>().ok()?))
    };
    nic.addresses.iter().filter_map(parse).filter(|(address, _)| match address {
        IpAddr::V4(address) => !address.is_link_local(),
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    })
}

fn network_of(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix.into())).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

/// Hosts by CPU model, where at least two have the same.
fn pools(hosts: &[FoundHost]) -> BTreeMap<String, Vec<usize>> {
    let mut pools: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (at, found) in hosts.iter().enumerate() {
        if let Some(model) = found.host.known().and_then(|host| host.cpu_model.known()) {
            pools.entry(model.clone()).or_default().push(at);
        }
    }
    pools.retain(|_, members| members.len() > 1);
    pools
}

/// The URI as a document may hold it: without keys, programs and the like, which stand in vmgate.yaml.
fn plain_uri(uri: &Uri) -> String {
    let text = uri.to_string();
    if text.parse::<HostUri>().is_ok() {
        return text;
    }
    let host = uri.host.as_deref().map_or_else(|| "localhost".to_owned(), str::to_owned);
    format!("qemu+ssh://{host}/system")
}

/// A text as a scalar of YAML: JSON's strings are strings of YAML.
fn yaml(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+:/@._-".contains(c))
        && !text.ends_with(':')
        && !matches!(text, "true" | "false" | "null" | "yes" | "no" | "on" | "off");
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use super::{super::Inventory, *};

    fn nic(name: &str, kind: NicKind, address: &str, speed: Option<u64>) -> Nic {
        Nic {
            name: name.to_owned(),
            kind,
            up: true,
            speed_bytes_per_second: speed,
            mtu_bytes: 1500,
            master: None,
            lower: Vec::new(),
            addresses: vec![address.to_owned()],
            errors: 0,
            drops: Fact::Known(0),
            duplex: None,
            vlan_id: None,
            bond: None,
        }
    }

    fn found(n: u8) -> FoundHost {
        let mut tap = nic("vnet0", NicKind::Tap, "fe80::1/64", None);
        tap.master = Some("br0".to_owned());
        let nics = vec![
            nic("lo", NicKind::Loopback, "127.0.0.1/8", None),
            nic("mgmt0", NicKind::Physical, &format!("10.77.3.{n}/24"), Some(125_000_000)),
            nic("br0", NicKind::Bridge, &format!("10.77.2.{n}/24"), None),
            nic("mig1", NicKind::Physical, &format!("10.77.4.{n}/24"), Some(125_000_000)),
            nic("mig0", NicKind::Physical, &format!("10.77.1.{n}/24"), Some(1_250_000_000)),
            tap,
        ];
        FoundHost {
            name: format!("hv{n}"),
            uri: Uri::from_operator(&format!("qemu+ssh://root@hv{n}/system")).unwrap(),
            reached_at: vec![format!("10.77.3.{n}").parse().unwrap()],
            host: Fact::Known(Host {
                nics: Fact::Known(nics),
                cpu_model: Fact::Known("Cascadelake-Server".to_owned()),
                ..Host::default()
            }),
        }
    }

    #[test]
    fn the_draft_is_an_inventory_with_the_fastest_network_that_only_hosts_use() {
        let text = draft(&[found(1), found(2)]);
        let inventory = Inventory::parse("inventory.yaml", text.as_bytes()).unwrap();
        let addresses: Vec<_> =
            inventory.hosts.iter().map(|host| host.migrate_address.unwrap().to_string()).collect();
        assert_eq!(addresses, ["10.77.1.1", "10.77.1.2"], "{text}");
        assert_eq!(inventory.pools[0].name, "Cascadelake-Server");
        assert!(text.contains("# Also possible for migrations: 10.77.4.0/24"), "{text}");
    }

    #[test]
    fn a_host_that_does_not_answer_is_listed_and_nothing_is_guessed_of_it() {
        let silent = FoundHost {
            host: Fact::unknown(vmgate_facts::Cause::HostUnreachable, "no route\nto host"),
            ..found(2)
        };
        let text = draft(&[found(1), silent]);
        let inventory = Inventory::parse("inventory.yaml", text.as_bytes()).unwrap();
        assert_eq!(inventory.hosts.len(), 2);
        assert!(
            inventory.hosts.iter().all(|host| host.migrate_address.is_none() && host.pool.is_none()),
            "{text}"
        );
        assert!(text.contains("# It did not answer: no route"), "{text}");
        let odd = FoundHost { name: "hv: 1 #x".to_owned(), ..found(1) };
        assert_eq!(Inventory::parse("i", draft(&[odd]).as_bytes()).unwrap().hosts[0].name, "hv: 1 #x");
    }
}
