use super::*;
use crate::fact::{
    Cause, Fact, Guest, Listener, LossTolerance, MemorySync, Process, Tcp, UdpService, UdpSocket,
};

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
        drops: 0,
        owner,
        service: Fact::default(),
    }
}

fn service(port: u16, owner: &str) -> Option<String> {
    shipped().classify(&socket(port, None, Fact::Known(Some(owner.into())))).map(|service| service.id)
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
fn each_kind_of_software_is_recognised_by_what_its_processes_are_called() {
    let java = "/usr/bin/java -Xmx1g -cp /opt/lib/*";
    for (name, command, id) in [
        ("corosync", "/usr/sbin/corosync -f", "corosync"),
        ("pacemakerd", "/usr/sbin/pacemakerd", "pacemaker"),
        ("keepalived", "/usr/sbin/keepalived --dont-fork", "keepalived"),
        ("etcd", "/usr/bin/etcd", "etcd"),
        ("mariadbd", "/usr/sbin/mariadbd --wsrep_start_position=0:1", "galera"),
        ("redis-server", "/usr/bin/redis-server 0.0.0.0:7000 [cluster]", "redis-cluster"),
        ("redis-sentinel", "/usr/bin/redis-sentinel *:26379 [sentinel]", "redis-sentinel"),
        (
            "java",
            &format!("{java} org.apache.zookeeper.server.quorum.QuorumPeerMain /etc/zoo.cfg"),
            "zookeeper",
        ),
        ("patroni", "/usr/bin/python3 /usr/bin/patroni /etc/patroni/15-main.yml", "patroni"),
        ("consul", "/usr/bin/consul agent -config-dir=/etc/consul.d/", "consul"),
        ("java", &format!("{java} kafka.Kafka config/server.properties"), "kafka"),
        ("beam.smp", "/usr/lib/erlang/erts/bin/beam.smp -- -s rabbit boot", "rabbitmq"),
        ("java", &format!("{java} com.hazelcast.core.server.HazelcastMemberStarter"), "hazelcast"),
        ("java", &format!("{java} org.apache.ignite.startup.cmdline.CommandLineStartup"), "ignite"),
        ("java", &format!("{java} org.jboss.as.standalone -c standalone-ha.xml"), "infinispan"),
        ("ocssd.bin", "/u01/app/19.0.0/grid/bin/ocssd.bin", "oracle-rac"),
        ("clussvc.exe", "C:\\Windows\\Cluster\\clussvc.exe -s", "wsfc"),
        ("drbd_r_r0", "", "drbd"),
        ("ceph-osd", "/usr/bin/ceph-osd -f --id 3", "ceph-osd"),
        ("mongod", "/usr/bin/mongod --config /etc/mongod.conf", "mongodb"),
        ("java", &format!("{java} org.elasticsearch.bootstrap.Elasticsearch"), "elasticsearch"),
        ("java", &format!("{java} org.apache.cassandra.service.CassandraDaemon"), "cassandra"),
        (
            "postgres",
            "postgres: 15/main: walsender replica 10.0.0.8(4711) streaming",
            "postgresql-replication",
        ),
        ("kubelet", "/usr/bin/kubelet --config=/var/lib/kubelet/config.yaml", "kubernetes-node"),
    ] {
        assert_eq!(ids(&guest_with(vec![process(7, name, command)])), [id], "{name} {command}");
    }
}

#[test]
fn ordinary_processes_are_nothing_special() {
    let plain = [
        ("systemd", "/sbin/init"),
        ("sshd", "sshd: /usr/sbin/sshd -D"),
        ("qemu-ga", "/usr/sbin/qemu-ga"),
        ("mariadbd", "/usr/sbin/mariadbd"),
        ("postgres", "postgres: 15/main: checkpointer"),
        ("redis-server", "/usr/bin/redis-server 127.0.0.1:6379"),
        ("java", "/usr/bin/java -jar app.jar"),
        ("vim", "vim /etc/corosync/corosync.conf"),
        ("nginx", "nginx: worker process"),
    ];
    let processes = plain.iter().zip(1..).map(|((name, command), pid)| process(pid, name, command)).collect();
    assert_eq!(ids(&guest_with(processes)), Vec::<String>::new());
}

#[test]
fn one_entry_is_reported_once_with_the_default_and_its_source() {
    let workers = vec![process(812, "etcd", "/usr/bin/etcd"), process(813, "etcd", "/usr/bin/etcd")];
    let found = shipped().recognise(&guest_with(workers));
    let [etcd] = found.known().unwrap().as_slice() else { panic!("{found:?}") };
    assert_eq!(etcd.seen, "etcd (pid 812)");
    assert_eq!(etcd.detector_seconds, Fact::Known(1.0));
    assert_eq!(etcd.detector_source, "vendor default (election-timeout of 1000 ms)");
}

#[test]
fn a_timeout_on_the_command_line_overrides_the_default() {
    for command in ["/usr/bin/etcd --election-timeout=5000", "/usr/bin/etcd --election-timeout 5000"] {
        let found = shipped().recognise(&guest_with(vec![process(1, "etcd", command)]));
        let etcd = found.known().unwrap().first().unwrap().clone();
        assert_eq!(etcd.detector_seconds, Fact::Known(5.0));
        assert_eq!(etcd.detector_source, "command line --election-timeout");
    }
}

#[test]
fn a_timeout_is_read_from_the_configuration_file_and_comments_are_not() {
    let all = shipped();
    let entry = |id: &str| all.memory_sync().iter().find(|entry| entry.id == id).unwrap();
    let read = |id, file, text| entry(id).read_file(file, text).map(|(seconds, _)| seconds);
    let corosync = "totem {\n  version: 2\n  # token: 1\n  token: 10000\n  token_coefficient: 650\n}";
    let file = "/etc/corosync/corosync.conf";
    assert_eq!(
        entry("corosync").read_file(file, corosync),
        Some((10.0, "/etc/corosync/corosync.conf token".into()))
    );
    assert_eq!(read("corosync", file, "totem {\n version: 2\n}"), None);
    assert_eq!(read("corosync", "/etc/passwd", corosync), None);
    let vrrp = "vrrp_instance A {\n advert_int 2\n}\nvrrp_instance B {\n advert_int 0.5\n}";
    assert_eq!(read("keepalived", "/etc/keepalived/keepalived.conf", vrrp), Some(1.5), "the shortest counts");
    let sentinel = "sentinel monitor m 10.0.0.1 6379 2\nsentinel down-after-milliseconds m 5000";
    assert_eq!(read("redis-sentinel", "/etc/redis/sentinel.conf", sentinel), Some(5.0));
    assert_eq!(read("corosync", file, "token: 0"), None, "no time-out at all is not one");
    assert_eq!(entry("corosync").files().collect::<Vec<_>>(), [file]);
}

#[test]
fn configuration_files_settle_what_was_assumed() {
    let all = shipped();
    let processes = vec![
        process(1, "corosync", "corosync"),
        process(2, "etcd", "etcd --election-timeout=5000"),
        process(3, "keepalived", "keepalived"),
    ];
    let found = all.recognise(&guest_with(processes));
    let mut found = found.known().unwrap().clone();
    let mut asked = Vec::new();
    all.settle(&mut found, |file| {
        asked.push(file.to_owned());
        (file == "/etc/corosync/corosync.conf").then(|| "totem {\n token: 3000\n}".to_owned())
    });
    let settled: Vec<_> = found
        .iter()
        .map(|one| (*one.detector_seconds.known().unwrap(), one.detector_source.as_str()))
        .collect();
    let keepalived = "vendor default (3 × advert_int of 1 s, without the skew)";
    let corosync = "/etc/corosync/corosync.conf token";
    assert_eq!(settled, [(3.0, corosync), (3.0, keepalived), (5.0, "command line --election-timeout")]);
    assert_eq!(asked, ["/etc/corosync/corosync.conf", "/etc/keepalived/keepalived.conf"]);
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
fn a_udp_socket_is_judged_by_port_and_owner() {
    for (port, owner, expected) in [
        (68, "dhclient", Some("dhcp")),
        (123, "systemd-timesyn", Some("ntp")),
        (41234, "chronyd", Some("ntp")),
        (514, "rsyslogd", Some("syslog")),
        (514, "ours", Some("syslog")),
        (5405, "corosync", Some("corosync")),
        (5060, "kamailio", Some("sip")),
        (12000, "asterisk", Some("rtp")),
        (12000, "ours", None),
        (3784, "bfdd", Some("bfd")),
        (51820, "ours", Some("wireguard")),
        (8125, "ours", None),
        (9999, "ours", None),
    ] {
        assert_eq!(service(port, owner).as_deref(), expected, "{port} of {owner}");
    }
}

#[test]
fn a_connected_socket_is_also_judged_by_its_peers_port() {
    let all = shipped();
    let towards = |remote| {
        all.classify(&socket(40000, Some(remote), Fact::Known(Some("app".into())))).map(|service| service.id)
    };
    assert_eq!(towards("10.0.0.9:514").as_deref(), Some("syslog"));
    assert_eq!(towards("[2001:db8::1]:53").as_deref(), Some("dns"));
    assert_eq!(towards("10.0.0.9:40001"), None);
    assert_eq!(towards("garbage"), None);
}

#[test]
fn a_socket_of_the_kernel_is_judged_by_its_port() {
    let found = shipped().classify(&socket(4789, None, Fact::Known(None)));
    let Some(UdpService { id, loss, .. }) = found else { panic!("nothing") };
    assert_eq!((id.as_str(), loss), ("vxlan", LossTolerance::Lost));
}

#[test]
fn all_problems_of_a_file_are_shown_and_none_of_it_is_taken() {
    let text = "schema: vmgate/catalogue/memory-sync/v1
entries:
  - {id: Bad Id, title: x, names: [averyveryverylongname], detector_default_seconds: 0.0, detector: d, stop: s, start: s,
     references: [{title: t, url: ftp://x}], settings: [{key: k, pattern: 'none', seconds_each: 1.0}]}
  - {id: corosync, title: x, detector: d, stop: s, start: s, references: []}";
    let mut all = shipped();
    let before = all.memory_sync().len();
    let problems: Vec<String> =
        all.add("mine.yaml", text).unwrap_err().iter().map(ToString::to_string).collect();
    for part in [
        "lower case",
        "longer than the 15",
        "0 is not a time",
        "ftp://x",
        "exactly one capture group",
        "already",
        "no reference",
        "nothing to recognise",
    ] {
        assert!(problems.iter().any(|problem| problem.contains(part)), "{part} in {problems:#?}");
    }
    assert_eq!(problems.len(), 8);
    assert_eq!(all.memory_sync().len(), before);
}

#[test]
fn a_file_that_is_no_catalogue_says_why() {
    let refused = |text: &str| {
        let errors = Catalogues::default().add("mine.yaml", text).unwrap_err();
        let error = errors.first().unwrap();
        let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        format!("{error}: {source}")
    };
    assert!(refused("schema: vmgate/rule/v1").contains("vmgate/rule/v1"));
    assert!(refused("[]").contains("not a catalogue"));
    assert!(refused("").contains("not a catalogue"));
    let misspelt = "schema: vmgate/catalogue/udp-services/v1\nentries: [{id: x, title: x, port: ['1'], loss: lost, why: x}]";
    assert!(refused(misspelt).contains("port"), "{}", refused(misspelt));
    let bad_port = "schema: vmgate/catalogue/udp-services/v1\nentries: [{id: x, title: x, ports: ['9-1'], loss: lost, why: x}]";
    assert!(refused(bad_port).contains("`9-1`"), "{}", refused(bad_port));
    let bad_pattern = "schema: vmgate/catalogue/memory-sync/v1\nentries: [{id: x, title: x, commands: ['('], detector: d, stop: s, start: s, references: []}]";
    assert!(refused(bad_pattern).contains("not a regular expression"), "{}", refused(bad_pattern));
}

#[test]
fn a_user_adds_entries_of_their_own() {
    let mut all = shipped();
    let text = "schema: vmgate/catalogue/udp-services/v1\nentries: [{id: ours, title: Ours, ports: ['9999'], loss: repeats, why: it asks again}]";
    all.add("mine.yaml", text).unwrap();
    assert_eq!(
        all.classify(&socket(9999, None, Fact::default())).map(|service| service.id),
        Some("ours".into())
    );
}

#[test]
fn what_is_found_names_the_way_to_stop_it() {
    let all = shipped();
    assert!(all.memory_sync().iter().all(|entry| !entry.stop.is_empty() && !entry.start.is_empty()));
    let found = all.recognise(&guest_with(vec![process(1, "corosync", "corosync")]));
    let stop: Vec<&str> =
        found.known().unwrap().iter().map(|MemorySync { stop, .. }| stop.as_str()).collect();
    assert_eq!(stop, ["systemctl stop pacemaker corosync"]);
}
