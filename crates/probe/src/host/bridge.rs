//! Bridges of the host: those of the kernel, and those of Open vSwitch, by a read-only query to its database.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use serde_json::Value;
use vmgate_facts::{Bridge, BridgeController, BridgeKind, Cause, Fact, SpanningTree, Unknown, text::plain};

use crate::{
    host::{
        not_read,
        uplink::{Surroundings, uplinks},
    },
    netlink::{interfaces, tunnel_remotes},
};

const INTERFACES: &str = "/sys/class/net";

/// Ticks per second of intervals in sysfs (USER_HZ), independent of the kernel's own tick.
const TICKS_PER_SECOND: f64 = 100.0;

/// Default time between two general queries (RFC 3376, section 8.2).
const DEFAULT_QUERY_INTERVAL_SECONDS: f64 = 125.0;

/// Sockets of Open vSwitch's database server.
const OVS_SOCKETS: [&str; 2] = ["/run/openvswitch/db.sock", "/var/run/openvswitch/db.sock"];

/// The question for all bridges (RFC 7047, section 4.1.3).
const OVS_QUESTION: &str = r#"{"method":"transact","id":0,"params":["Open_vSwitch",{"op":"select","table":"Bridge","where":[],"columns":["name","mcast_snooping_enable","stp_enable","rstp_enable","controller","fail_mode","other_config"]},{"op":"select","table":"Open_vSwitch","where":[],"columns":["external_ids"]}]}"#;

/// Forward delay of a bridge of Open vSwitch without a setting (ovs-vswitchd.conf.db(5)).
const OVS_FORWARD_DELAY_SECONDS: f64 = 15.0;

/// Bridge of OVN where nothing else is set (ovn-controller(8)).
const OVN_BRIDGE: &str = "br-int";

/// Kinds of interface that lead into an overlay, as the kernel names them (DEVTYPE).
const TUNNELS: [&str; 2] = ["vxlan", "geneve"];

/// Longest wait for the database, and most bytes of its answer.
const OVS_LIMIT: Duration = Duration::from_secs(2);
const OVS_ANSWER: u64 = 1 << 20;

/// All bridges, by name.
pub(super) fn bridges() -> Result<Vec<Bridge>, Unknown> {
    let mut bridges = linux_bridges()?;
    let socket = OVS_SOCKETS.iter().map(Path::new).find(|socket| socket.exists());
    if let Some(socket) = socket {
        bridges.extend(open_vswitch(socket)?);
    }
    bridges.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(bridges)
}

fn linux_bridges() -> Result<Vec<Bridge>, Unknown> {
    let entries = fs::read_dir(INTERFACES).map_err(|error| not_read(INTERFACES, &error))?;
    let entries: Vec<_> = entries.flatten().collect();
    let around = Surroundings::look();
    // The table of a large overlay is long: it is read only where there is one.
    let has_tunnel = entries.iter().any(|entry| is_tunnel(&entry.path()));
    let echoes = if has_tunnel { echoing_tunnels() } else { Ok(BTreeSet::new()) };
    let bridge = |entry: &fs::DirEntry| {
        kernel_bridge(&entry.path().join("bridge"), entry.file_name().to_str()?, &around, &echoes)
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

/// The bridges of Open vSwitch.
fn open_vswitch(socket: &Path) -> Result<Vec<Bridge>, Unknown> {
    let bridges = ask(socket).map_err(|error| not_read(&socket.display().to_string(), &error))?;
    let bridges = bridges.ok_or_else(|| {
        Unknown::new(Cause::Malformed, "the answer of Open vSwitch's database does not follow RFC 7047")
    })?;
    Ok(bridges)
}

fn ask(socket: &Path) -> io::Result<Option<Vec<Bridge>>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(OVS_LIMIT))?;
    stream.set_write_timeout(Some(OVS_LIMIT))?;
    stream.write_all(OVS_QUESTION.as_bytes())?;
    // The server keeps the connection open: the answer ends where its JSON ends.
    let mut answers = serde_json::Deserializer::from_reader(stream.take(OVS_ANSWER)).into_iter::<Value>();
    let answer = answers.next().transpose().map_err(io::Error::from)?;
    let rows = |path: &str| answer.as_ref().and_then(|answer| answer.pointer(path)?.as_array());
    let switch = rows("/result/1/rows").and_then(|rows| rows.first());
    let identities = switch.and_then(|row| row.get("external_ids"));
    let ovn = identities.and_then(|ids| entry(ids, "ovn-remote")).is_some();
    let ovn_bridge = identities.and_then(|ids| entry(ids, "ovn-bridge")).unwrap_or(OVN_BRIDGE);
    let bridge = |row: &Value| open_vswitch_bridge(row, ovn.then_some(ovn_bridge));
    Ok(rows("/result/0/rows").map(|rows| rows.iter().filter_map(bridge).collect()))
}

/// Value of a key of a map of RFC 7047 (section 5.1).
fn entry<'a>(map: &'a Value, key: &str) -> Option<&'a str> {
    let pairs = map.as_array()?.get(1)?.as_array()?;
    pairs.iter().find_map(|pair| {
        let pair = pair.as_array()?;
        (pair.first()?.as_str()? == key).then(|| pair.get(1)?.as_str())?
    })
}

/// True if an optional value or a set of RFC 7047 holds nothing.
fn is_empty(value: Option<&Value>) -> bool {
    let Some(value) = value else { return true };
    match value.as_array().map(Vec::as_slice) {
        Some([kind, Value::Array(members)]) => kind == "set" && members.is_empty(),
        _ => value.is_null(),
    }
}

/// One bridge. Open vSwitch snoops on queries and sends none itself (ovs-vswitchd.conf.db(5)).
fn open_vswitch_bridge(row: &Value, ovn_bridge: Option<&str>) -> Option<Bridge> {
    let name = row.get("name")?.as_str()?;
    let on = |column: &str| row.get(column).and_then(Value::as_bool);
    let setting = |key: &str| row.get("other_config").and_then(|map| entry(map, key)?.parse::<f64>().ok());
    let spanning_tree = match (on("stp_enable"), on("rstp_enable")) {
        (_, Some(true)) => Fact::Known(SpanningTree::Rstp),
        (Some(true), _) => Fact::Known(SpanningTree::Stp),
        (Some(false), _) => Fact::Known(SpanningTree::None),
        _ => Fact::unknown(Cause::NotSupported, "the database of Open vSwitch does not tell stp_enable"),
    };
    let key = if on("rstp_enable") == Some(true) { "rstp-forward-delay" } else { "stp-forward-delay" };
    let controlled_by = if ovn_bridge == Some(name) {
        BridgeController::Ovn
    } else if !is_empty(row.get("controller")) || row.get("fail_mode").is_some_and(|mode| mode == "secure") {
        BridgeController::Openflow
    } else {
        BridgeController::Itself
    };
    Some(Bridge {
        name: plain(name),
        kind: BridgeKind::OpenVswitch,
        vlan_aware: true,
        multicast_snooping: row.get("mcast_snooping_enable").and_then(Value::as_bool).unwrap_or(false),
        multicast_querier: false,
        multicast_query_interval_seconds: DEFAULT_QUERY_INTERVAL_SECONDS,
        spanning_tree,
        forward_delay_seconds: Fact::Known(setting(key).unwrap_or(OVS_FORWARD_DELAY_SECONDS)),
        controlled_by: Fact::Known(controlled_by),
        default_vlan: None,
        uplinks: Fact::unknown(Cause::NotSupported, "the ports of a bridge of Open vSwitch are not read"),
    })
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, thread};

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

    /// Answers of a mock server, in the form of RFC 7047 and not.
    #[test]
    fn open_vswitch_is_asked_and_not_trusted() {
        let answers = |answer: &'static str| {
            let folder = tempfile::tempdir().unwrap();
            let socket = folder.path().join("db.sock");
            let listener = UnixListener::bind(&socket).unwrap();
            thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut question = vec![0; OVS_QUESTION.len()];
                stream.read_exact(&mut question).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
                thread::sleep(Duration::from_millis(200));
            });
            open_vswitch(&socket)
        };
        let found =
            answers(r#"{"id":0,"result":[{"rows":[{"name":"br-int"},{"name":"br-ex"}]}],"error":null}"#);
        let names: Vec<_> = found.unwrap().into_iter().map(|bridge| bridge.name).collect();
        assert_eq!(names, ["br-int", "br-ex"]);
        let settings = r#"{"id":0,"result":[{"rows":[
            {"name":"br-int","stp_enable":false,"rstp_enable":false,"controller":["set",[]],"fail_mode":"secure"},
            {"name":"br-ex","stp_enable":true,"rstp_enable":false,"controller":["set",[]],"fail_mode":["set",[]],
             "other_config":["map",[["stp-forward-delay","4"]]]},
            {"name":"br-sdn","stp_enable":false,"rstp_enable":true,"controller":["uuid","550e8400"],"fail_mode":["set",[]]}
            ]},{"rows":[{"external_ids":["map",[["ovn-remote","tcp:10.0.0.1:6642"]]]}]}],"error":null}"#;
        let found = answers(settings).unwrap();
        let kinds: Vec<_> = found
            .iter()
            .map(|b| (*b.spanning_tree.known().unwrap(), *b.controlled_by.known().unwrap()))
            .collect();
        assert_eq!(
            kinds,
            [
                (SpanningTree::None, BridgeController::Ovn),
                (SpanningTree::Stp, BridgeController::Itself),
                (SpanningTree::Rstp, BridgeController::Openflow)
            ]
        );
        assert_eq!(
            found.iter().map(|b| *b.forward_delay_seconds.known().unwrap()).collect::<Vec<_>>(),
            [15.0, 4.0, 15.0]
        );
        assert!(answers(r#"{"id":0,"error":"no such database"}"#).is_err());
        assert!(answers("hello").is_err());
    }
}
