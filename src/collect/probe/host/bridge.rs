//! Bridges of the host: the kernel's, and those of Open vSwitch, whose database is asked read-only.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use serde_json::Value;

use super::not_read;
use crate::{
    collect::text::plain,
    fact::{BridgeKind, Cause, HostBridge, Unknown},
};

const INTERFACES: &str = "/sys/class/net";

/// Where the server of Open vSwitch's database listens.
const OVS_SOCKETS: [&str; 2] = ["/run/openvswitch/db.sock", "/var/run/openvswitch/db.sock"];

/// The question for all bridges (RFC 7047, section 4.1.3).
const OVS_QUESTION: &str = r#"{"method":"transact","id":0,"params":["Open_vSwitch",{"op":"select","table":"Bridge","where":[],"columns":["name"]}]}"#;

/// Longest wait for the database, and most bytes of its answer.
const OVS_LIMIT: Duration = Duration::from_secs(2);
const OVS_ANSWER: u64 = 1 << 20;

/// All bridges, by name.
pub(super) fn bridges() -> Result<Vec<HostBridge>, Unknown> {
    let mut bridges = linux()?;
    let socket = OVS_SOCKETS.iter().map(Path::new).find(|socket| socket.exists());
    if let Some(socket) = socket {
        bridges.extend(open_vswitch(socket)?);
    }
    bridges.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(bridges)
}

fn linux() -> Result<Vec<HostBridge>, Unknown> {
    let entries = fs::read_dir(INTERFACES).map_err(|error| not_read(INTERFACES, &error))?;
    let bridges = entries.flatten().filter(|entry| entry.path().join("bridge").is_dir());
    Ok(bridges
        .map(|entry| HostBridge {
            name: plain(&entry.file_name().to_string_lossy()),
            kind: BridgeKind::Linux,
            vlan_aware: fs::read_to_string(entry.path().join("bridge/vlan_filtering"))
                .is_ok_and(|text| text.trim() == "1"),
        })
        .collect())
}

/// The bridges of Open vSwitch.
fn open_vswitch(socket: &Path) -> Result<Vec<HostBridge>, Unknown> {
    let names = ask(socket).map_err(|error| not_read(&socket.display().to_string(), &error))?;
    let names = names.ok_or_else(|| {
        Unknown::new(Cause::Malformed, "Open vSwitch's database does not answer as RFC 7047 says")
    })?;
    let bridge = |name: String| HostBridge { name, kind: BridgeKind::OpenVswitch, vlan_aware: true };
    Ok(names.into_iter().map(bridge).collect())
}

fn ask(socket: &Path) -> io::Result<Option<Vec<String>>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(OVS_LIMIT))?;
    stream.set_write_timeout(Some(OVS_LIMIT))?;
    stream.write_all(OVS_QUESTION.as_bytes())?;
    // The server keeps the line open: the answer ends where its JSON ends.
    let mut answers = serde_json::Deserializer::from_reader(stream.take(OVS_ANSWER)).into_iter::<Value>();
    let answer = answers.next().transpose().map_err(io::Error::from)?;
    let rows = answer.as_ref().and_then(|answer| answer.pointer("/result/0/rows")?.as_array());
    Ok(rows.map(|rows| rows.iter().filter_map(|row| row.get("name")?.as_str()).map(plain).collect()))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, thread};

    use super::*;

    #[test]
    fn bridges_of_this_machine_are_the_kernels() {
        assert!(bridges().unwrap().iter().all(|bridge| !bridge.name.is_empty()));
    }

    /// What a real ovsdb-server 3.1 answered, and a server that is something else.
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
