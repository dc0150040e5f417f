//! Facts of real guests and hosts, compared with their known configuration; and the libvirt calls of the executor.

use std::{
    fmt::Debug,
    fs, thread,
    time::{Duration, Instant},
};

use vmgate_facts::{Cause, Fact, Guest as GuestFacts, NicKind, TcpState, VmState};
use vmgate_libvirt::{JobEnd, LibvirtErrorKind};

use crate::harness::{
    Guest, Said, a_to_b, address_of, collected, domain_on, lab, on_host, setting, start_vmgate, the_move,
    uri_a, uri_b, vmgate, vmgate_command, words,
};

fn cause<T: Debug>(fact: &Fact<T>) -> Cause {
    match fact {
        Fact::Unknown(why) => why.cause,
        Fact::Known(value) => panic!("known: {value:?}"),
    }
}

fn guest(facts: &vmgate_facts::Facts) -> &GuestFacts {
    facts.guest.known().unwrap_or_else(|| panic!("{:?}", facts.guest))
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn what_runs_in_the_guest_is_what_the_facts_say() {
    let vm = Guest::start(
        "lc-udp",
        &["--on", "a", "--workload", "udp to=10.77.2.254:514 rate=20 listen=5060 group=239.192.0.1"],
    );
    let facts = collected(vm.name, &a_to_b());
    let found = guest(&facts);
    assert_eq!(found.hostname, Fact::Known(vm.name.to_owned()));
    let udp = found.udp.known().unwrap();
    let listener = udp.sockets.known().unwrap().iter().find(|socket| socket.port == 5060).unwrap();
    assert_eq!(listener.owner, Fact::Known(Some("workload".into())));
    let groups = found.multicast_groups.known().unwrap();
    assert!(groups.iter().any(|group| group.address == "239.192.0.1" && !group.link_local), "{groups:?}");
    let processes = found.processes.known().unwrap();
    assert!(processes.iter().any(|process| process.name == "workload" && process.resident_bytes > 0));
    assert_eq!(found.sysctl.known().unwrap().tcp_retries2, Fact::Known(15));

    let capture = udp.flows.known().unwrap_or_else(|| panic!("{:?}", udp.flows));
    assert!(capture.complete, "{capture:?}");
    let flow = capture.flows.iter().find(|flow| flow.remote == "10.77.2.254:514");
    let flow = flow.unwrap_or_else(|| panic!("{capture:#?}"));
    // No process listens on that port: each ICMP answer that says so costs the sender one of its datagrams.
    assert!((2.0..=40.0).contains(&flow.packets_per_second), "{flow:?}");

    let seen = facts.vm.known().unwrap();
    assert_eq!(seen.state, Fact::Known(VmState::Running));
    assert_eq!(seen.qemu_version, facts.source.known().unwrap().qemu_version);
    assert_eq!(seen.job, Fact::Known(None));
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn what_the_hosts_are_is_what_the_facts_say() {
    let vm = Guest::start("lc-hosts", &["--on", "a"]);
    let facts = collected(vm.name, &a_to_b());
    let (source, destination) = (facts.source.known().unwrap(), facts.destination.known().unwrap());
    assert!(destination.qemu_version.known() > source.qemu_version.known());
    assert_eq!(destination.offers_guest_cpu, Fact::Known(true));
    assert!(destination.clock_offset_seconds.known().unwrap().abs() < 1.0);
    assert!(destination.machine_types.known().unwrap().iter().any(|machine| machine.name == "pc-q35-10.0"));
    for host in [source, destination] {
        assert_eq!(host.bridge_filters, Fact::Known(Vec::new()));
        let bridges = host.bridges.known().unwrap();
        assert!(
            bridges.iter().any(|bridge| bridge.name == "br0" && bridge.multicast_snooping),
            "{bridges:?}"
        );
    }
    let path = facts.path.known().unwrap();
    assert_eq!(path.destination_address, Fact::Known(setting("VMGATE_LAB_MIGRATE_B")));
    for end in [&path.source_nic, &path.destination_nic] {
        let nic = end.known().unwrap();
        assert_eq!((nic.name.as_str(), nic.kind, nic.up), ("mig0", NicKind::Veth, true));
        assert_eq!((nic.guest_bridge.as_deref(), nic.carries_default_route), (None, false));
    }
    let shared = collected(vm.name, &the_move(&uri_a(), &uri_b(), "10.77.2.2"));
    let nic = shared.path.known().unwrap().source_nic.known().unwrap().clone();
    assert_eq!((nic.guest_bridge.as_deref(), nic.carries_default_route), (Some("br0"), true));
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_connection_is_seen_with_its_owner() {
    let peer = Guest::start("lc-peer", &["--on", "a", "--workload", "tcp-listen port=7000"]);
    let to = format!("{}:7000", address_of(peer.name));
    let vm = Guest::start("lc-tcp", &["--on", "a", "--workload", &format!("tcp to={to} retries2=3")]);
    let deadline = Instant::now() + Duration::from_mins(1);
    let connection = loop {
        let facts = collected(vm.name, &a_to_b());
        assert_eq!(guest(&facts).sysctl.known().unwrap().tcp_retries2, Fact::Known(3));
        let tcp = guest(&facts).tcp.known().unwrap().connections.known().unwrap();
        if let Some(found) = tcp.iter().find(|found| found.remote == to) {
            break found.clone();
        }
        assert!(Instant::now() < deadline, "no connection to {to}: {tcp:?}");
    };
    assert_eq!((connection.state, connection.retransmits), (TcpState::Established, 0));
    assert_eq!(connection.owner, Fact::Known(Some("workload".into())));
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn what_is_missing_is_unknown_for_its_reason_and_the_rest_is_there() {
    let silent = Guest::start("lc-hang", &["--on", "a", "--agent", "hang", "--wait", "0"]);
    let facts = collected(silent.name, &a_to_b());
    let found = guest(&facts);
    assert_eq!(cause(&found.hostname), Cause::NoGuestAgent);
    assert!(found.udp.known().unwrap().flows.known().is_some(), "the host sees its flows all the same");
    assert!(facts.destination.known().unwrap().nics.known().is_some());

    let nowhere = the_move(&uri_a(), "qemu+ssh://root@10.77.3.99/system", &setting("VMGATE_LAB_MIGRATE_B"));
    let facts = collected(silent.name, &nowhere);
    let destination = facts.destination.known().unwrap();
    assert_eq!(cause(&destination.uuid), Cause::HostUnreachable);
    assert_eq!(cause(&destination.nics), Cause::NoLogin);
    assert!(facts.source.known().unwrap().nics.known().is_some());

    lab(&["host", "a", "virsh", "-q", "suspend", silent.name]).exits(0);
    let facts = collected(silent.name, &a_to_b());
    assert_eq!(facts.vm.known().unwrap().state, Fact::Known(VmState::Paused));
    assert_eq!(cause(&facts.guest), Cause::GuestNotRunning);
    assert_eq!(cause(&facts.vm.known().unwrap().dirty_rate), Cause::GuestNotRunning);
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn one_host_under_two_names_is_found_out() {
    let vm = Guest::start("lc-twice", &["--on", "a", "--wait", "0"]);
    let to = uri_a().replace("lab-a", "10.77.3.1");
    vmgate(&words(&["collect", vm.name, "--from", &uri_a(), "--to", &to], &[]))
        .exits(2)
        .says("the same host");
}

/// virsh migrates from a to b over the migration link, since only the executor can by vmgate's own code.
fn virsh_migrate(vm: &str, more: &[&str]) -> Said {
    let address = format!("tcp:{}", setting("VMGATE_LAB_MIGRATE_B"));
    let order = ["host", "a", "virsh", "migrate", "--live", "--persistent", "--undefinesource", vm];
    let way = ["qemu+tcp://lab-b/system", "--migrateuri", &address];
    lab(&[&order[..], &way, more].concat())
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_migration_is_watched_aborted_and_done() {
    let vm = Guest::start("lc-move", &["--on", "a", "--workload", "dirty size=64 rate=30 pattern=random"]);
    let mover = thread::spawn(|| virsh_migrate("lc-move", &["--bandwidth", "4"]));
    let watcher = domain_on('A', vm.name).unwrap();
    let start = Instant::now();
    let job = loop {
        if let Some(job) = watcher.job_info().unwrap().filter(|job| job.data_processed_bytes > Some(0)) {
            break job;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "no migration is seen");
        thread::sleep(Duration::from_millis(50));
    };
    assert_eq!((job.operation.name(), job.end), ("migration-out", None));
    assert!(job.data_total_bytes > Some(64 << 20), "{job:?}");
    let busy = watcher.dirty_rate(1).unwrap_err();
    assert!(matches!(busy.kind, LibvirtErrorKind::Busy(_)), "no measurement beside a migration: {busy}");
    lab(&["host", "a", "virsh", "domjobabort", vm.name]).exits(0);
    mover.join().unwrap().exits(1).says("abort");
    assert_eq!(watcher.state().unwrap().state, VmState::Running);
    assert!(matches!(domain_on('B', vm.name).unwrap_err().kind, LibvirtErrorKind::NoSuchVm(_)));

    virsh_migrate("lc-move", &[]).exits(0);
    let arrived = domain_on('B', vm.name).unwrap();
    assert_eq!(arrived.state().unwrap().state, VmState::Running);
    assert!(arrived.is_persistent().unwrap());
    let done = arrived.completed_job().unwrap().unwrap();
    assert_eq!(done.end, Some(JobEnd::Completed));
    assert!(done.downtime > Some(Duration::ZERO), "{done:?}");
    assert!(matches!(domain_on('A', vm.name).unwrap_err().kind, LibvirtErrorKind::NoSuchVm(_)));
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn the_probe_goes_when_vmgate_goes_in_whatever_way() {
    let vm = Guest::start("lc-gone", &["--on", "a"]);
    let here = tempfile::tempdir().unwrap();
    let mut command = vmgate_command(&words(&["collect", vm.name], &a_to_b()));
    assert!(command.env("TMPDIR", here.path()).output().unwrap().status.success());
    assert_eq!(fs::read_dir(here.path()).unwrap().count(), 0);
    assert_eq!(["a", "b"].map(probe_folders), ["", ""]);

    let vmgate = start_vmgate(&words(&["collect", vm.name, "--trace-seconds", "30"], &a_to_b()));
    let mut vmgate = vmgate.wait_until("the probe is there", || !probe_folders("a").is_empty());
    vmgate.child.kill().unwrap();
    vmgate.said();
    wait_until("the probe is gone", || ["a", "b"].map(probe_folders) == ["", ""]);
}

fn probe_folders(host: &str) -> String {
    on_host(host, "ls -d /tmp/tmp.* 2>/dev/null || true", &[]).exits(0).stdout
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..200 {
        if is_so() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("not so within ten seconds: {what}");
}
