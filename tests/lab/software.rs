//! The failure detectors of real daemons, read through the agent of the guest that they run in.

use std::{
    thread,
    time::{Duration, Instant},
};

use vmgate_facts::{
    Detector,
    DetectorBasis::{self, Configuration, Tool},
    Fact, Guest as GuestFacts,
};
use vmgate_rules::catalogue::Catalogues;

use crate::harness::{Guest, facts_of, facts_without_exec};

/// Answer of the guest after all its daemons have started, which takes seconds under emulation.
fn settled(guest: &Guest, ready: impl Fn(&GuestFacts) -> bool) -> GuestFacts {
    let deadline = Instant::now() + Duration::from_secs(45);
    loop {
        let facts = facts_of(guest.name);
        if ready(&facts) || Instant::now() > deadline {
            return facts;
        }
        thread::sleep(Duration::from_secs(1));
    }
}

fn detectors(facts: &GuestFacts) -> &[Detector] {
    facts.detectors.known().unwrap_or_else(|| panic!("{:?}", facts.detectors))
}

#[track_caller]
fn assert_read(facts: &GuestFacts, software: &str, seconds: f64, basis: DetectorBasis, source: &str) {
    let found = detectors(facts).iter().find(|detector| detector.software == software);
    let found = found.unwrap_or_else(|| panic!("{software} is not among {:#?}", detectors(facts)));
    assert_eq!((&found.detector_seconds, found.basis), (&Fact::Known(seconds), basis), "{found:?}");
    assert_eq!(found.source, source);
}

fn told_by_tools(facts: &GuestFacts) -> usize {
    detectors(facts).iter().filter(|detector| detector.basis == Tool).count()
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn each_real_daemon_is_recognised_and_its_own_time_out_is_read() {
    let workload = "software corosync token=2500 peers=10.77.2.201/10.77.2.202 + software pacemaker \
        + software etcd election=1500 heartbeat=150 + software redis port=7000 node-timeout=7000 \
        + software sentinel down-after=5000 + software keepalived advert=2 priority=192 \
        + software mariadb suspect=PT7S + software chrony";
    let options = ["--on", "a", "--image", "software", "--vcpus", "2", "--workload", workload];
    let guest = Guest::start("sw-daemons", &options);
    let facts = settled(&guest, |facts| told_by_tools(facts) >= 5);

    // 2500 ms as configured, and 650 ms for the third node: corosync itself says what it makes of that.
    let totem = "corosync-cmapctl runtime.config.totem.token 3.15 s, totem.consensus 3.78 s";
    assert_read(&facts, "corosync", 3.15, Tool, totem);
    let fencing = format!("{totem}; fencing (stonith-enabled) is on by default");
    assert_read(&facts, "pacemaker", 3.15, Tool, &fencing);
    assert_read(
        &facts,
        "etcd",
        1.5,
        Configuration,
        "command line election-timeout 1.5 s, heartbeat-interval 0.15 s",
    );
    assert_read(&facts, "redis-cluster", 7.0, Tool, "config get cluster-node-timeout 7 s");
    assert_read(&facts, "redis-sentinel", 5.0, Tool, "sentinel masters, down-after-milliseconds 5 s");
    let vrrp = "/etc/keepalived/keepalived.conf VRRP 3 x advert_int 2 s + skew 0.25 s of priority 192";
    assert_read(&facts, "keepalived", 6.25, Configuration, vrrp);
    let evs = "wsrep_provider_options evs.suspect_timeout 7 s, evs.inactive_timeout 15 s";
    assert_read(&facts, "galera", 7.0, Tool, evs);

    // The secret in keepalived.conf was read, but is not in the facts.
    assert!(!serde_json::to_string(&facts).unwrap().contains("s3cret42"));

    // The rules see the same figures.
    let catalogues = Catalogues::shipped().unwrap();
    let Fact::Known(mut found) = catalogues.recognise(&facts) else { panic!("not recognised") };
    catalogues.apply_guest_detectors(&mut found, &facts);
    for detector in detectors(&facts) {
        let known = found.iter().find(|software| software.id == detector.software);
        assert_eq!(
            known.map(|software| &software.detector_seconds),
            Some(&detector.detector_seconds),
            "{detector:?}"
        );
    }

    // Other facts of the guest: corosync locks its memory, chronyd runs and has no server.
    let memory = facts.memory.known().unwrap();
    assert!(memory.locked_bytes.known().is_some_and(|bytes| *bytes > 10 << 20), "{memory:?}");
    assert!(
        memory.allocation.known().is_some_and(|allocation| allocation.window_seconds >= 1.0),
        "{memory:?}"
    );
    assert!(memory.pressure.known().is_some_and(Option::is_some), "{memory:?}");
    let clock = facts.clock.known().unwrap();
    assert_eq!(clock.synchroniser, Fact::Known(Some("chronyd".into())));
    assert_eq!(clock.synchronised, Fact::Known(false));
    assert_eq!(facts.kernel_bypass.known().unwrap().rdma_devices, Fact::Known(Vec::new()));
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn settings_are_found_wherever_they_stand() {
    let workload = "software corosync peers=10.77.2.201 + software etcd by=file election=2500 \
        + software keepalived advert=1 bfd=50";
    let guest = Guest::start("sw-places", &["--on", "b", "--image", "software", "--workload", workload]);
    let facts = settled(&guest, |facts| told_by_tools(facts) >= 1);
    // Without a token in the file corosync 3.1 takes its own default, and says so.
    let totem = "corosync-cmapctl runtime.config.totem.token 3 s, totem.consensus 3.6 s";
    assert_read(&facts, "corosync", 3.0, Tool, totem);
    let yaml = "/etc/etcd/lab.yml election-timeout 2.5 s, heartbeat-interval 0.1 s";
    assert_read(&facts, "etcd", 2.5, Configuration, yaml);
    let bfd = "/etc/keepalived/keepalived.conf BFD 5 x min_tx 0.05 s, the tightest of 2";
    assert_read(&facts, "keepalived", 0.25, Configuration, bfd);

    // An agent that runs nothing still reads what stands in the usual places; who runs is not known.
    let files = facts_without_exec(guest.name);
    assert!(files.processes.known().is_none());
    assert_read(&files, "keepalived", 0.25, Configuration, bfd);
    assert!(detectors(&files).iter().all(|detector| detector.pid.is_none()));
    let clock = files.clock.known().unwrap();
    assert!(clock.source.known().is_some() && clock.synchronised.known().is_none(), "{clock:?}");
    let memory = files.memory.known().unwrap();
    assert!(memory.allocation.known().is_some(), "{memory:?}");
}
