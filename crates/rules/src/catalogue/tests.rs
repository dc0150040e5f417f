use std::fs;

use vmgate_documents::Problems;
use vmgate_facts::{Cause, Fact, Guest, Listener, LossTolerance, Process, Tcp, UdpService, UdpSocket};

use super::*;

fn shipped() -> Catalogues {
    Catalogues::shipped().unwrap()
}

fn process(pid: u32, name: &str, command: &str) -> Process {
    Process { pid, name: name.into(), command: command.into(), state: "S".into(), resident_bytes: 1 << 20 }
}

fn guest_with(processes: Vec<Process>) -> Guest {
    Guest { processes: Fact::Known(processes), ..Guest::default() }
}

fn listening_on(port: u16, owner: Fact<Option<String>>) -> Guest {
    let listeners = Fact::Known(vec![Listener { local: format!("0.0.0.0:{port}"), port, owner }]);
    Guest {
        tcp: Fact::Known(Tcp { listeners, ..Tcp::default() }),
        processes: Fact::Known(Vec::new()),
        ..Guest::default()
    }
}

fn ids(guest: &Guest) -> Vec<String> {
    shipped().recognise(guest).known().unwrap().iter().map(|found| found.id.clone()).collect()
}

fn socket(port: u16, remote: Option<&str>, owner: Fact<Option<String>>) -> UdpSocket {
    UdpSocket {
        local: format!("0.0.0.0:{port}"),
        port,
        remote: remote.map(Into::into),
        drops: Fact::default(),
        owner,
        service: Fact::default(),
    }
}

#[test]
fn the_shipped_catalogues_are_sound_and_hold_what_was_promised() {
    let all = shipped();
    let known: Vec<&str> = all.memory_sync().iter().map(|entry| entry.id.as_str()).collect();
    for id in "corosync pacemaker keepalived etcd galera redis-cluster redis-sentinel zookeeper patroni consul kafka \
               rabbitmq hazelcast infinispan ignite oracle-rac wsfc drbd ceph-osd mongodb elasticsearch cassandra"
        .split_whitespace()
    {
        assert!(known.contains(&id), "{id} is missing");
    }
    assert!(all.udp_services().len() > 40);
}

#[test]
fn each_script_that_takes_a_member_out_is_one_of_a_shell_and_each_reference_to_one_leads_there() {
    let all = shipped();
    for entry in all.memory_sync() {
        if let Some(take_out) = &entry.take_out {
            for script in [&take_out.proof, &take_out.stop, &take_out.start] {
                let status = std::process::Command::new("sh").args(["-n", "-c", script]).status().unwrap();
                assert!(status.success(), "{}: {script}", entry.id);
            }
        }
        if let Some(other) = &entry.taken_out_with {
            assert_eq!(all.take_out(&entry.id).map(|(entry, _)| &entry.id), Some(other));
        }
    }
    assert!(all.take_out("kafka").is_none() && all.take_out("nothing").is_none());
}

#[test]
fn one_entry_is_reported_once_with_the_default_and_its_source() {
    let workers = vec![process(812, "etcd", "/usr/bin/etcd"), process(813, "etcd", "/usr/bin/etcd")];
    let found = shipped().recognise(&guest_with(workers));
    let [etcd] = found.known().unwrap().as_slice() else { panic!("{found:?}") };
    assert_eq!(etcd.seen, "etcd (pid 812)");
    assert_eq!(etcd.detector_seconds, Fact::Known(1.0));
    assert_eq!(
        etcd.detector_source,
        "vendor default (election-timeout of 1000 ms); ETCD_ELECTION_TIMEOUT in /etc/default/etcd sets it"
    );
}

#[test]
fn a_port_proves_software_that_no_process_shows() {
    assert_eq!(ids(&listening_on(7788, Fact::Known(None))), ["drbd"], "the kernel listens");
    assert_eq!(ids(&listening_on(4567, Fact::Known(Some("mariadbd".into())))), ["galera"]);
    assert_eq!(ids(&listening_on(2380, Fact::default())), ["etcd"], "the owner is not known");
    assert_eq!(ids(&listening_on(2380, Fact::Known(Some("nginx".into())))), Vec::<String>::new());
    let found = shipped().recognise(&listening_on(7788, Fact::Known(None)));
    assert_eq!(found.known().unwrap().first().unwrap().seen, "listener on port 7788/tcp");
}

#[test]
fn without_processes_nothing_is_known_and_the_open_ports_are_still_told() {
    let mut guest = listening_on(2380, Fact::default());
    guest.processes = Fact::unknown(Cause::AgentForbids, "guest-exec is disabled");
    let Fact::Unknown(why) = shipped().recognise(&guest) else { panic!("known") };
    assert_eq!(why.cause, Cause::AgentForbids);
    assert_eq!(why.reason, "guest-exec is disabled; open ports show etcd");
    guest.tcp = Fact::default();
    let Fact::Unknown(why) = shipped().recognise(&guest) else { panic!("known") };
    assert_eq!(why.reason, "guest-exec is disabled");
}

#[test]
fn a_socket_of_the_kernel_is_judged_by_its_port() {
    let found = shipped().classify(&socket(4789, None, Fact::Known(None)));
    let Some(UdpService { id, loss, .. }) = found else { panic!("nothing") };
    assert_eq!((id.as_str(), loss), ("vxlan", LossTolerance::Lost));
}

/// The shipped catalogues and one more.
fn with(text: &str) -> Result<Catalogues, Problems> {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("catalogues")).unwrap();
    fs::write(folder.path().join("catalogues/mine.yaml"), text).unwrap();
    Catalogues::load(&[RuleSource::Builtin, RuleSource::Dir(folder.path().to_owned())])
}

#[test]
fn all_problems_of_a_file_are_shown_with_their_places() {
    let text = "schema: vmgate/catalogue/memory-sync/v1
entries:
  - {id: Bad Id, title: x, names: [averyveryverylongname, '*'], detector_default_seconds: 0.0, detector: d, stop: s, start: s,
     references: [], command_line: [{key: k, pattern: none, seconds_each: -1.0}], commands: ['(', '.*', '(a)']}
  - {id: corosync, title: x, detector: d, stop: s, start: s, references: [{title: t, url: u}], restart: s}
";
    let problems = with(text).unwrap_err().problems;
    let told: Vec<_> =
        problems.iter().map(|problem| (problem.message(), problem.position().unwrap())).collect();
    assert_eq!(
        told,
        [
            ("`Bad Id` is not a valid id", (3, 10)),
            ("the process name `averyveryverylongname` is too long: the kernel keeps 15 characters", (3, 36)),
            ("this name matches every process", (3, 59)),
            ("a time must be more than 0 seconds", (3, 91)),
            ("the entry has no reference for its values", (4, 18)),
            ("this pattern must have exactly one capture group", (4, 55)),
            ("a time must be more than 0 seconds", (4, 75)),
            ("`(` is not a regular expression: unclosed group", (4, 94)),
            ("this pattern matches every text", (4, 99)),
            ("this pattern must have no capture group", (4, 105)),
            ("nothing can match this entry", (5, 5)),
            ("an entry with the id `corosync` already exists", (5, 10)),
            ("`entries[1].restart`: there is no such field", (5, 96)),
        ]
    );
    let udp = "schema: vmgate/catalogue/udp-services/v1
entries: [{id: x, title: x, ports: ['9-1'], with_process: true, loss: lots, why: x}]
";
    let problems = with(udp).unwrap_err().problems;
    let told: Vec<&str> = problems.iter().map(Problem::message).collect();
    assert_eq!(
        told,
        [
            "`9-1` is neither a port from 1 to 65535 nor a range such as `67-68`",
            "`with_process` is true, but the entry names no process",
            "`entries[0].loss`: `lots` is not an allowed value",
        ]
    );
}

#[test]
fn a_file_that_is_no_catalogue_says_why() {
    for (text, words) in [
        ("schema: vmgate/rule/v1", "this is not a catalogue"),
        ("schema: vmgate/catalogue/memory-sinc/v1", "did you mean `vmgate/catalogue/memory-sync/v1`?"),
        ("[]", "this is not a catalogue"),
        ("", "is empty"),
        ("schema: [", "this is not YAML"),
        ("a: &a [x]", "anchors and aliases are not supported"),
    ] {
        let error = with(text).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("catalogues/mine.yaml"), "{text}: {error}");
    }
}

#[test]
fn a_user_adds_entries_of_their_own() {
    let text = "schema: vmgate/catalogue/udp-services/v1
entries: [{id: ours, title: Ours, ports: ['9999'], loss: repeats, why: it asks again}]";
    let found = with(text).unwrap().classify(&socket(9999, None, Fact::default()));
    assert_eq!(found.map(|service| service.id), Some("ours".into()));
}

#[test]
fn style_is_linted() {
    let text = "schema: vmgate/catalogue/memory-sync/v1
entries:
  - {id: ours, title: O, names: [ours, corosync], detector: it waits., stop: '', start: systemctl start ours,
     files: [{file: etc/ours, key: timeout}], references: [{title: x, url: 'ours.example'}]}
  - {id: theirs, title: Theirs, names: [ours, theirs, theirs], detector: ping timeout, stop: systemctl stop t,
     start: systemctl start t, references: [{title: Theirs, url: 'https://example.org/'}]}
";
    let found = with(text).unwrap().lint();
    assert_eq!(
        found.iter().map(Problem::message).collect::<Vec<_>>(),
        [
            "`title` of ours has fewer than 2 characters",
            "`detector` of ours ends with a full stop",
            "`stop` of ours has fewer than 6 characters",
            "a file of ours has no absolute path",
            "`ours.example` is not a web address",
            "the reference has no title",
            "theirs and ours both claim the process `ours`",
            "theirs names `theirs` twice",
        ]
    );
    assert_eq!(found[0].position(), Some((3, 23)));
    assert!(shipped().lint().is_empty(), "{:?}", shipped().lint());
}
