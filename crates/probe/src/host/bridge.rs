//! Bridges of the host: those of the kernel, and those of Open vSwitch, by a read-only query to its database.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use serde_json::Value;
use vmgate_facts::{Bridge, BridgeKind, Cause, Unknown, text::plain};

use crate::host::not_read;

const INTERFACES: &str = "/sys/class/net";

/// Ticks per second of intervals in sysfs (USER_HZ), independent of the kernel's own tick.
const TICKS_PER_SECOND: f64 = 100.0;

/// Default time between two general queries (RFC 3376, section 8.2).
const DEFAULT_QUERY_INTERVAL_SECONDS: f64 = 125.0;

/// Sockets of Open vSwitch's database server.
const OVS_SOCKETS: [&str; 2] = ["/run/openvswitch/db.sock", "/var/run/openvswitch/db.sock"];

/// The question for all bridges (RFC 7047, section 4.1.3).
const OVS_QUESTION: &str = r#"{"method":"transact","id":0,"params":["Open_vSwitch",{"op":"select","table":"Bridge","where":[],"columns":["name","mcast_snooping_enable"]}]}"#;

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
    let bridge =
        |entry: fs::DirEntry| kernel_bridge(&entry.path().join("bridge"), entry.file_name().to_str()?);
    Ok(entries.flatten().filter_map(bridge).collect())
}

fn kernel_bridge(folder: &Path, name: &str) -> Option<Bridge> {
    let number = |file: &str| -> Option<u32> {
        fs::read_to_string(folder.join(file)).ok().and_then(|text| text.trim().parse().ok())
    };
    folder.is_dir().then(|| Bridge {
        name: plain(name),
        kind: BridgeKind::Linux,
        vlan_aware: number("vlan_filtering") == Some(1),
        // A kernel without snooping floods multicast to all ports and sends no queries.
        multicast_snooping: number("multicast_snooping") == Some(1),
        multicast_querier: number("multicast_querier") == Some(1),
        multicast_query_interval_seconds: number("multicast_query_interval")
            .map_or(DEFAULT_QUERY_INTERVAL_SECONDS, |ticks| f64::from(ticks) / TICKS_PER_SECOND),
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
    let rows = answer.as_ref().and_then(|answer| answer.pointer("/result/0/rows")?.as_array());
    Ok(rows.map(|rows| rows.iter().filter_map(open_vswitch_bridge).collect()))
}

/// One bridge. Open vSwitch snoops on queries and sends none itself (ovs-vswitchd.conf.db(5)).
fn open_vswitch_bridge(row: &Value) -> Option<Bridge> {
    Some(Bridge {
        name: plain(row.get("name")?.as_str()?),
        kind: BridgeKind::OpenVswitch,
        vlan_aware: true,
        multicast_snooping: row.get("mcast_snooping_enable").and_then(Value::as_bool).unwrap_or(false),
        multicast_querier: false,
        multicast_query_interval_seconds: DEFAULT_QUERY_INTERVAL_SECONDS,
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
        ] {
            fs::write(folder.path().join(name), value).unwrap();
        }
        let found = kernel_bridge(folder.path(), "br0").unwrap();
        assert_eq!((found.multicast_snooping, found.multicast_querier), (true, true));
        assert!((found.multicast_query_interval_seconds - 10.0).abs() < 1e-9);
        assert_eq!(kernel_bridge(&folder.path().join("none"), "eth0"), None);
        let silent = tempfile::tempdir().unwrap();
        assert!(!kernel_bridge(silent.path(), "br1").unwrap().multicast_snooping);
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
        assert!(answers(r#"{"id":0,"error":"no such database"}"#).is_err());
        assert!(answers("hello").is_err());
    }
}
