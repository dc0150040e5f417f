//! Bridges of Open vSwitch and their ports, by a read-only query to its database (RFC 7047).

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use serde_json::Value;
use vmgate_facts::{
    Bridge, BridgeController, BridgeKind, Cause, Fact, SpanningTree, Unknown, Uplink, text::plain,
};

use crate::host::{bridge::DEFAULT_QUERY_INTERVAL_SECONDS, not_read, uplink::Surroundings};

/// Sockets of Open vSwitch's database server.
const SOCKETS: [&str; 2] = ["/run/openvswitch/db.sock", "/var/run/openvswitch/db.sock"];

/// The question for all bridges, ports and interfaces (RFC 7047, section 4.1.3).
const QUESTION: &str = r#"{"method":"transact","id":0,"params":["Open_vSwitch",{"op":"select","table":"Bridge","where":[],"columns":["name","mcast_snooping_enable","stp_enable","rstp_enable","controller","fail_mode","other_config","ports"]},{"op":"select","table":"Open_vSwitch","where":[],"columns":["external_ids"]},{"op":"select","table":"Port","where":[],"columns":["_uuid","interfaces","tag","trunks"]},{"op":"select","table":"Interface","where":[],"columns":["_uuid","name","type","link_state"]}]}"#;

/// Forward delay of a bridge of Open vSwitch without a setting (ovs-vswitchd.conf.db(5)).
const FORWARD_DELAY_SECONDS: f64 = 15.0;

/// Bridge of OVN where nothing else is set (ovn-controller(8)).
const OVN_BRIDGE: &str = "br-int";

/// Longest wait for the database, and most bytes of its answer.
const LIMIT: Duration = Duration::from_secs(2);
const ANSWER: u64 = 1 << 20;

/// The bridges of Open vSwitch; none where it is not there.
pub(super) fn bridges(around: &Surroundings) -> Result<Vec<Bridge>, Unknown> {
    let Some(socket) = SOCKETS.iter().map(Path::new).find(|socket| socket.exists()) else {
        return Ok(Vec::new());
    };
    bridges_of(socket, around)
}

fn bridges_of(socket: &Path, around: &Surroundings) -> Result<Vec<Bridge>, Unknown> {
    let answer = ask(socket).map_err(|error| not_read(&socket.display().to_string(), &error))?;
    let bridges = answer.as_ref().and_then(|answer| in_answer(answer, around));
    bridges.ok_or_else(|| {
        Unknown::new(Cause::Malformed, "the answer of Open vSwitch's database does not follow RFC 7047")
    })
}

fn ask(socket: &Path) -> io::Result<Option<Value>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.write_all(QUESTION.as_bytes())?;
    // The server keeps the connection open: the answer ends where its JSON ends.
    let mut answers = serde_json::Deserializer::from_reader(stream.take(ANSWER)).into_iter::<Value>();
    answers.next().transpose().map_err(io::Error::from)
}

fn in_answer(answer: &Value, around: &Surroundings) -> Option<Vec<Bridge>> {
    let rows = |table: usize| Some(answer.get("result")?.get(table)?.get("rows")?.as_array()?.as_slice());
    let identities = rows(1).and_then(|rows| rows.first()?.get("external_ids"));
    let ovn = identities.and_then(|ids| entry(ids, "ovn-remote")).is_some();
    let ovn_bridge = identities.and_then(|ids| entry(ids, "ovn-bridge")).unwrap_or(OVN_BRIDGE);
    let bridge = |row: &Value| {
        let known =
            rows(2).zip(rows(3)).and_then(|(ports, interfaces)| uplinks(row, ports, interfaces, around));
        let uplinks = known.map_or_else(
            || Fact::unknown(Cause::NotSupported, "a port of the bridge leads to a tunnel or another bridge"),
            Fact::Known,
        );
        Some(Bridge { uplinks, ..settings(row, ovn.then_some(ovn_bridge))? })
    };
    Some(rows(0)?.iter().filter_map(bridge).collect())
}

/// Ports of a bridge that are cables, by the kinds of ovs-vswitchd.conf.db(5); none where one leads on to where nobody looks.
fn uplinks(
    bridge: &Value,
    ports: &[Value],
    interfaces: &[Value],
    around: &Surroundings,
) -> Option<Vec<Uplink>> {
    let referred = |row: &Value, column: &str, table| -> Vec<&Value> {
        let ids: Vec<_> = members(row.get(column)).collect();
        let refers = |row: &&Value| row.get("_uuid").is_some_and(|id| ids.contains(&id));
        <[Value]>::iter(table).filter(refers).collect()
    };
    let mut found = Vec::new();
    for port in referred(bridge, "ports", ports) {
        for interface in referred(port, "interfaces", interfaces) {
            let text = |column: &str| interface.get(column).and_then(Value::as_str).unwrap_or_default();
            let (name, kind) = (text("name"), text("type"));
            let is_cable = match kind {
                "" | "system" => around.is_cable(name),
                "dpdk" | "afxdp" => true,
                "internal" | "dpdkvhostuser" | "dpdkvhostuserclient" => false,
                _ => return None,
            };
            if is_cable {
                let vlans = [members(port.get("tag")), members(port.get("trunks"))].into_iter().flatten();
                let vlans: Vec<_> = vlans.filter_map(|vlan| u32::try_from(vlan.as_u64()?).ok()).collect();
                let (tag, switch_ports) = around.behind(name);
                found.push(Uplink {
                    name: plain(name),
                    forwards: text("link_state") != "down",
                    vlans: (!vlans.is_empty()).then_some(vlans),
                    tag,
                    switch_ports,
                });
            }
        }
    }
    Some(found)
}

/// Members of a set of RFC 7047, which of one member is that member.
fn members(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    let members = match value.and_then(Value::as_array).map(Vec::as_slice) {
        Some([kind, Value::Array(members)]) if kind == "set" => members.as_slice(),
        _ => value.map(std::slice::from_ref).unwrap_or_default(),
    };
    members.iter()
}

/// Value of a key of a map of RFC 7047 (section 5.1).
fn entry<'a>(map: &'a Value, key: &str) -> Option<&'a str> {
    let pairs = map.as_array()?.get(1)?.as_array()?;
    pairs.iter().find_map(|pair| {
        let pair = pair.as_array()?;
        (pair.first()?.as_str()? == key).then(|| pair.get(1)?.as_str())?
    })
}

/// One bridge without its ports. Open vSwitch snoops on queries and sends none itself (ovs-vswitchd.conf.db(5)).
fn settings(row: &Value, ovn_bridge: Option<&str>) -> Option<Bridge> {
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
    } else if members(row.get("controller")).any(|controller| !controller.is_null())
        || row.get("fail_mode").is_some_and(|mode| mode == "secure")
    {
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
        forward_delay_seconds: Fact::Known(setting(key).unwrap_or(FORWARD_DELAY_SECONDS)),
        controlled_by: Fact::Known(controlled_by),
        default_vlan: None,
        uplinks: Fact::default(),
    })
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8]) {
    let answer = serde_json::from_slice(bytes).unwrap_or_default();
    let _ = in_answer(&answer, &Surroundings::default());
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, thread};

    use super::*;

    /// Answers of a mock server, in the form of RFC 7047 and not.
    #[test]
    fn open_vswitch_is_asked_and_not_trusted() {
        let answers = |answer: &'static str| {
            let folder = tempfile::tempdir().unwrap();
            let socket = folder.path().join("db.sock");
            let listener = UnixListener::bind(&socket).unwrap();
            thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut question = vec![0; QUESTION.len()];
                stream.read_exact(&mut question).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
                thread::sleep(Duration::from_millis(200));
            });
            bridges_of(&socket, &Surroundings::default())
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

    #[test]
    fn a_port_of_open_vswitch_carries_its_tag_and_its_trunks() {
        let answer = |kind: &str, vlans: Value| {
            let mut port = serde_json::json!({"_uuid": ["uuid", "p1"], "interfaces": ["uuid", "i1"], "tag": ["set", []],
                "trunks": ["set", []]});
            port.as_object_mut().unwrap().extend(vlans.as_object().unwrap().clone());
            let answer = serde_json::json!({"result": [
                {"rows": [{"name": "ovs0", "ports": ["set", [["uuid", "p0"], ["uuid", "p1"]]]}]}, {"rows": []},
                {"rows": [port, {"_uuid": ["uuid", "p0"], "interfaces": ["uuid", "i0"]}]},
                {"rows": [{"_uuid": ["uuid", "i0"], "name": "ovs0", "type": "internal"},
                          {"_uuid": ["uuid", "i1"], "name": "lo", "type": kind, "link_state": "up"}]}]});
            in_answer(&answer, &Surroundings::default()).unwrap().remove(0).uplinks
        };
        let vlans = |vlans: Value| answer("", vlans).known().unwrap()[0].vlans.clone();
        assert_eq!(vlans(serde_json::json!({})), None, "a trunk of all");
        assert_eq!(vlans(serde_json::json!({"tag": 42})), Some(vec![42]));
        assert_eq!(vlans(serde_json::json!({"trunks": ["set", [7, 42]]})), Some(vec![7, 42]));
        assert_eq!(answer("dpdkvhostuserclient", serde_json::json!({})), Fact::Known(Vec::new()));
        for leads_on in ["patch", "vxlan"] {
            assert_eq!(answer(leads_on, serde_json::json!({})).known(), None);
        }
    }
}
