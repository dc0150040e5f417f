//! Collection and the calls of the executor on the lab's two hosts, below the command line: what the facts say is
//! compared with what was put into the guests.
//!
//! Skipped with a word where the lab is not up. Each test runs itself again in the operator's network namespace.
#![cfg(feature = "libvirt")]
#![allow(clippy::unwrap_used, clippy::panic)] // a test that cannot go on says where

use std::{
    env,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use vmgate::{
    collect::{
        CollectError, Request, Uri, collect,
        libvirt::{Hypervisor, JobEnd, MigrateParams, Trouble},
        transport::Transport,
    },
    fact::{Cause, Change, DirtyRateMethod, Fact, Facts, Guest as GuestFacts, NicKind, TcpState, VmState},
};

const TIMEOUT: Duration = Duration::from_secs(20);

/// Runs `test` in the operator's namespace; says why where that cannot be.
fn in_the_lab(name: &str, test: impl FnOnce()) {
    const INSIDE: &str = "VMGATE_LAB_COLLECT_INSIDE";
    if env::var_os(INSIDE).is_some() {
        return test();
    }
    let Ok(namespace) = env::var("VMGATE_LAB_NETNS") else {
        println!("{name}: skipped, VMGATE_LAB_URI_A is not set: bring the lab up and eval its `lab env`");
        return;
    };
    let status = Command::new("ip")
        .args(["netns", "exec", &namespace])
        .arg(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{name} failed in the lab");
}

fn lab(arguments: &[&str]) -> String {
    let script = env::var_os("VMGATE_LAB")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/lab/lab"), PathBuf::from);
    let output = Command::new(script).args(arguments).output().unwrap();
    assert!(output.status.success(), "lab {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A guest that is stopped with the test.
struct Guest(&'static str);

impl Guest {
    fn start(name: &'static str, options: &[&str]) -> Self {
        let guest = Self(name);
        lab(&[&["guest", "start", name, "--on", "a"], options].concat());
        guest
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        lab(&["guest", "stop", self.0]);
    }
}

fn uri(host: char) -> Uri {
    env::var(format!("VMGATE_LAB_URI_{host}")).unwrap().parse().unwrap()
}

fn host(name: char) -> Hypervisor {
    Hypervisor::open(&uri(name), TIMEOUT).unwrap()
}

fn request(vm: &str) -> Request {
    Request {
        vm: vm.to_owned(),
        from: uri('A'),
        to: uri('B'),
        migrate_address: None,
        timeout: TIMEOUT,
        trace_seconds: 2,
        dirty_window_seconds: 1,
        change: Change::default(),
        source_probe: None,
        destination_probe: None,
        attribute: false,
        guest_way: vmgate::collect::transport::GuestWay::Agent,
    }
}

fn facts_of(vm: &str) -> Facts {
    collect(&request(vm), Timestamp::now()).unwrap()
}

fn guest(facts: &Facts) -> &GuestFacts {
    facts.guest.known().unwrap_or_else(|| panic!("{:?}", facts.guest))
}

fn cause<T: std::fmt::Debug>(fact: &Fact<T>) -> Cause {
    match fact {
        Fact::Unknown(why) => why.cause,
        Fact::Known(value) => panic!("known: {value:?}"),
    }
}

#[test]
fn what_runs_in_the_guest_is_what_the_facts_say() {
    in_the_lab("what_runs_in_the_guest_is_what_the_facts_say", || {
        let vm = Guest::start("lc-udp", &["--workload", "udp to=10.77.2.254:514 rate=10 listen=5060"]);
        let facts = facts_of(vm.0);
        let found = guest(&facts);
        assert_eq!(found.hostname, Fact::Known(vm.0.to_owned()));
        let sockets = found.udp.known().unwrap().sockets.known().unwrap();
        let listener = sockets.iter().find(|socket| socket.port == 5060).unwrap();
        assert_eq!(listener.owner, Fact::Known(Some("workload".into())));
        let processes = found.processes.known().unwrap();
        assert!(processes.iter().any(|process| process.name == "workload" && process.resident_bytes > 0));
        assert_eq!(found.sysctl.known().unwrap().tcp_retries2, Fact::Known(15));

        let capture = found.udp.known().unwrap().flows.known().unwrap();
        assert!(capture.complete, "{capture:?}");
        let flow = capture.flows.iter().find(|flow| flow.remote == "10.77.2.254:514").unwrap();
        assert!((5.0..=20.0).contains(&flow.packets_per_second), "{flow:?}");

        let vm = facts.vm.known().unwrap();
        assert_eq!(vm.state, Fact::Known(VmState::Running));
        assert_eq!(vm.qemu_version, facts.source.known().unwrap().qemu_version);
        assert!(vm.dirty_rate.known().is_some());
        assert_eq!(vm.job, Fact::Known(None));
        let destination = facts.destination.known().unwrap();
        assert!(destination.qemu_version.known() > facts.source.known().unwrap().qemu_version.known());
        assert_eq!(destination.offers_guest_cpu, Fact::Known(true));
        assert!(destination.clock_offset_seconds.known().unwrap().abs() < 1.0);
        assert!(
            destination.machine_types.known().unwrap().iter().any(|machine| machine.name == "pc-q35-10.0")
        );
        let trace = vm.dirty_trace.known().unwrap();
        assert_eq!(trace.check(), Ok(()));
        assert_eq!(trace.ram_bytes, 256 << 20, "guest RAM, and no ROM or video memory");
        assert!(trace.seconds() >= 1.9 && trace.cost.core_ratio < 0.08, "{:?}", trace.cost);
        assert_eq!(vm.dirty_rate.known().unwrap().method, DirtyRateMethod::Trace);
        let watched = facts.provenance_of("vm.dirty_rate.rate_bytes_per_second").unwrap();
        assert_eq!(
            (watched.collector.as_str(), watched.window_seconds),
            ("host probe", Some(trace.seconds()))
        );

        let path = facts.path.known().unwrap();
        assert_eq!(path.destination_address, Fact::Known(env::var("VMGATE_LAB_MIGRATE_B").unwrap()));
        for end in [&path.source_nic, &path.destination_nic] {
            let nic = end.known().unwrap();
            assert_eq!((nic.name.as_str(), nic.kind, nic.up), ("mig0", NicKind::Veth, true));
            assert_eq!((nic.guest_bridge.as_deref(), nic.carries_default_route), (None, false));
        }
        let shared = Request { migrate_address: Some("tcp:10.77.2.2".into()), ..request("lc-udp") };
        let shared = collect(&shared, Timestamp::now()).unwrap();
        let nic = shared.path.known().unwrap().source_nic.known().unwrap().clone();
        assert_eq!((nic.guest_bridge.as_deref(), nic.carries_default_route), (Some("br0"), true));
    });
}

#[test]
fn a_connection_is_seen_with_its_owner() {
    in_the_lab("a_connection_is_seen_with_its_owner", || {
        let _peer = Guest::start("lc-peer", &["--workload", "tcp-listen port=7000"]);
        let list = lab(&["guest", "list"]);
        let peer = list.lines().find(|line| line.starts_with("lc-peer\t")).unwrap();
        let to = format!("{}:7000", peer.rsplit('\t').next().unwrap());
        let vm = Guest::start("lc-tcp", &["--workload", &format!("tcp to={to} retries2=3")]);
        let deadline = Instant::now() + Duration::from_mins(1);
        let connection = loop {
            let facts = facts_of(vm.0);
            assert_eq!(guest(&facts).sysctl.known().unwrap().tcp_retries2, Fact::Known(3));
            let tcp = guest(&facts).tcp.known().unwrap().connections.known().unwrap();
            if let Some(found) = tcp.iter().find(|found| found.remote == to) {
                break found.clone();
            }
            assert!(Instant::now() < deadline, "no connection to {to}: {tcp:?}");
        };
        assert_eq!((connection.state, connection.retransmits), (TcpState::Established, 0));
        assert_eq!(connection.owner, Fact::Known(Some("workload".into())));
    });
}

#[test]
fn what_is_missing_is_unknown_for_its_reason_and_the_rest_is_there() {
    in_the_lab("what_is_missing_is_unknown_for_its_reason_and_the_rest_is_there", || {
        let silent = Guest::start("lc-hang", &["--agent", "hang", "--wait", "0"]);
        let start = Instant::now();
        let facts = facts_of(silent.0);
        let found = guest(&facts);
        assert_eq!(cause(&found.hostname), Cause::NoGuestAgent);
        assert!(found.udp.known().unwrap().flows.known().is_some(), "the host sees its flows all the same");
        assert!(facts.destination.known().unwrap().nics.known().is_some());
        assert!(start.elapsed() < TIMEOUT, "a hanging agent cost {:?}", start.elapsed());

        let nowhere =
            Request { to: "qemu+ssh://root@10.77.3.99/system".parse().unwrap(), ..request(silent.0) };
        let facts = collect(&nowhere, Timestamp::now()).unwrap();
        assert_eq!(cause(&facts.destination.known().unwrap().uuid), Cause::HostUnreachable);
        assert_eq!(cause(&facts.destination.known().unwrap().nics), Cause::NoHostProbe);
        assert!(facts.source.known().unwrap().nics.known().is_some());

        let blind =
            Request { source_probe: Some(Transport::None("switched off".into())), ..request(silent.0) };
        let facts = collect(&blind, Timestamp::now()).unwrap();
        assert_eq!(cause(&facts.path.known().unwrap().source_nic), Cause::NoHostProbe);
        assert!(facts.source.known().unwrap().memory.known().is_some(), "libvirt stands in");

        lab(&["host", "a", "virsh", "-q", "suspend", silent.0]);
        let facts = facts_of(silent.0);
        assert_eq!(facts.vm.known().unwrap().state, Fact::Known(VmState::Paused));
        assert_eq!(cause(&facts.guest), Cause::GuestNotRunning);
        assert_eq!(cause(&facts.vm.known().unwrap().dirty_rate), Cause::GuestNotRunning);
    });
}

#[test]
fn one_host_under_two_names_is_found_out() {
    in_the_lab("one_host_under_two_names_is_found_out", || {
        let vm = Guest::start("lc-twice", &["--wait", "0"]);
        let to = uri('A').to_string().replace("lab-a", "10.77.3.1").parse().unwrap();
        let error = collect(&Request { to, ..request(vm.0) }, Timestamp::now()).unwrap_err();
        assert!(matches!(error, CollectError::SameHost { .. }), "{error}");
    });
}

#[test]
fn a_migration_is_watched_aborted_and_done() {
    in_the_lab("a_migration_is_watched_aborted_and_done", || {
        let vm = Guest::start("lc-move", &["--workload", "dirty size=64 rate=30 pattern=random"]);
        let params = MigrateParams {
            migrate_uri: Some(format!("tcp:{}", env::var("VMGATE_LAB_MIGRATE_B").unwrap())),
            bandwidth_mib_per_second: Some(4),
            max_downtime: Some(Duration::from_millis(300)),
            auto_converge: false,
            persistent: true,
        };
        let slow = params.clone();
        let mover = thread::spawn(move || host('A').domain("lc-move").unwrap().migrate(&host('B'), &slow));
        let watcher = host('A').domain(vm.0).unwrap();
        let start = Instant::now();
        let job = loop {
            if let Some(job) = watcher.job_info().unwrap().filter(|job| job.data_processed_bytes > Some(0)) {
                break job;
            }
            assert!(start.elapsed() < TIMEOUT, "no migration is seen");
            thread::sleep(Duration::from_millis(50));
        };
        assert_eq!((job.operation.name(), job.end), ("migration-out", None));
        assert!(job.data_total_bytes > Some(64 << 20), "{job:?}");
        let busy = watcher.dirty_rate(1).unwrap_err();
        assert!(matches!(busy.trouble, Trouble::Busy(_)), "no measurement beside a migration: {busy}");
        watcher.abort_job().unwrap();
        let aborted = mover.join().unwrap().unwrap_err();
        assert!(aborted.to_string().contains("migrate the VM"), "{aborted}");
        assert_eq!(watcher.state().unwrap().state, VmState::Running);
        assert!(matches!(host('B').domain(vm.0).unwrap_err().trouble, Trouble::NoSuchVm(_)));

        let fast = MigrateParams { bandwidth_mib_per_second: None, ..params };
        let arrived = watcher.migrate(&host('B'), &fast).unwrap();
        assert_eq!(arrived.state().unwrap().state, VmState::Running);
        assert!(arrived.is_persistent().unwrap());
        let done = arrived.completed_job().unwrap().unwrap();
        assert_eq!(done.end, Some(JobEnd::Completed));
        assert!(done.downtime > Some(Duration::ZERO), "{done:?}");
        assert!(matches!(host('A').domain(vm.0).unwrap_err().trouble, Trouble::NoSuchVm(_)));
    });
}
