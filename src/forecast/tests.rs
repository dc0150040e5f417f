use std::fmt::Write;

use super::*;
use crate::fact::{LossTolerance, MemorySync, TcpConnection, Udp};

/// The fixtures of the rules are facts files like any other.
fn fixture(name: &str) -> Facts {
    let path = format!("{}/rules/fixtures/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn derived(facts: Facts) -> (Facts, Forecast) {
    derive(facts, &Catalogues::shipped().unwrap())
}

fn forget_what_is_derived(facts: &mut Facts) {
    let Fact::Known(guest) = &mut facts.guest else { panic!("no guest") };
    guest.memory_sync = Fact::default();
    let Fact::Known(tcp) = &mut guest.tcp else { panic!("no tcp") };
    let Fact::Known(connections) = &mut tcp.connections else { panic!("no connections") };
    for connection in connections {
        connection.budget_seconds = Fact::default();
    }
    let Fact::Known(udp) = &mut guest.udp else { panic!("no udp") };
    let Fact::Known(sockets) = &mut udp.sockets else { panic!("no sockets") };
    for socket in sockets {
        socket.service = Fact::default();
    }
}

fn only_connection(facts: &mut Facts) -> &mut TcpConnection {
    let Fact::Known(guest) = &mut facts.guest else { panic!("no guest") };
    let Fact::Known(tcp) = &mut guest.tcp else { panic!("no tcp") };
    let Fact::Known(connections) = &mut tcp.connections else { panic!("no connections") };
    &mut connections[0]
}

#[test]
fn what_the_idle_fixture_says_is_what_is_derived_from_it() {
    let known = fixture("idle-vm");
    let mut bare = known.clone();
    forget_what_is_derived(&mut bare);
    assert_ne!(bare, known);
    let mut facts = derived(bare).0;
    let connection = only_connection(&mut facts);
    // The fixture knows the RTO; without it the worst of all is taken.
    assert!(connection.budget_seconds.known().is_some_and(|budget| (410.0..924.6).contains(budget)));
    assert!(connection.gives_up_after_seconds.known().is_some_and(|seconds| (seconds - 924.6).abs() < 1e-9));
    *connection = only_connection(&mut known.clone()).clone();
    assert_eq!(facts, known);
}

#[test]
fn cluster_software_and_services_are_recognised() {
    let mut facts = fixture("busy-cluster-member");
    forget_what_is_derived(&mut facts);
    let (facts, _) = derived(facts);
    let guest = facts.guest.known().unwrap();
    let found: Vec<_> =
        guest.memory_sync.known().unwrap().iter().map(|MemorySync { id, .. }| id.as_str()).collect();
    assert_eq!(found, ["corosync", "redis-sentinel"]);
    let sockets = guest.udp.known().unwrap().sockets.known().unwrap();
    let services: Vec<_> = sockets
        .iter()
        .map(|socket| socket.service.known().unwrap().as_ref().map(|service| service.loss))
        .collect();
    let (repeats, lost, detector) =
        (Some(LossTolerance::Repeats), Some(LossTolerance::Lost), Some(LossTolerance::Detector));
    assert_eq!(services, [repeats, detector, lost, lost, detector, None]);
}

#[test]
fn a_flow_is_recognised_by_either_port_and_by_who_owns_the_guests_end() {
    let udp = r"
sockets: [{local: '0.0.0.0:12000', port: 12000, remote: null, drops: 0, owner: asterisk, service: null}]
flows:
  interface: vnet0
  window_seconds: 1.0
  method: kernel-counted
  frames: 9
  drops: 0
  complete: true
  holes: []
  flows:";
    let ends = [
        ("10.0.0.5:41000", "10.0.0.9:514"),
        ("[fd00::5]:53", "[fd00::9]:40000"),
        ("10.0.0.5:12000", "10.0.0.9:50000"),
        ("10.0.0.5:12001", "10.0.0.9:50001"),
    ];
    let mut text = udp.to_owned();
    for (local, remote) in ends {
        let _ = write!(
            text,
            "\n  - {{local: '{local}', remote: '{remote}', direction: both, packets_per_second: 1.0, packets: 1,
                  bytes_per_second: 9.0, bytes: 9, multicast_group: null, vlan: null, inner_vlan: null,
                  service: {{unknown: nobody asked}}}}"
        );
    }
    let services = |udp: Udp| {
        let mut facts = fixture("idle-vm");
        let Fact::Known(guest) = &mut facts.guest else { panic!("no guest") };
        guest.udp = Fact::Known(udp);
        let facts = derived(facts).0;
        let udp = facts.guest.known().unwrap().udp.known().unwrap();
        let name =
            |service: &Option<UdpService>| service.as_ref().map_or("none".to_owned(), |s| s.id.clone());
        let flows = &udp.flows.known().unwrap().flows;
        flows.iter().map(|flow| flow.service.as_ref().map(name).known().unwrap().clone()).collect::<Vec<_>>()
    };
    let udp: Udp = serde_yaml::from_str(&text).unwrap();
    assert_eq!(services(udp.clone()), ["syslog", "dns", "rtp", "none"]);
    let blind = Udp { sockets: Fact::unknown(Cause::NoGuestAgent, "no answer"), ..udp };
    assert_eq!(services(blind), ["syslog", "dns", "none", "none"]);
}

#[test]
fn what_a_facts_file_says_is_never_replaced() {
    let mut facts = fixture("busy-cluster-member");
    let Fact::Known(guest) = &mut facts.guest else { panic!("no guest") };
    let Fact::Known(found) = &mut guest.memory_sync else { panic!("not known") };
    found.clear();
    let before = facts.clone();
    assert_eq!(derived(facts).0, before);
}

#[test]
fn without_a_guest_there_is_still_a_forecast() {
    let mut facts = fixture("idle-vm");
    facts.guest = Fact::unknown(Cause::NoGuestAgent, "no answer");
    let (facts, forecast) = derived(facts);
    assert!(facts.guest.known().is_none());
    assert!(forecast.total_seconds.known().is_some());
}

#[test]
fn the_blackout_is_assumed_to_be_up_to_twice_the_limit() {
    let (_, forecast) = derived(fixture("idle-vm"));
    assert_eq!(forecast.method, Fact::Known(ForecastMethod::Assumed));
    assert_eq!(forecast.blackout_seconds, Fact::Known(Quantiles { p5: 0.15, p50: 0.3, p95: 0.6 }));
    let mut absurd = fixture("idle-vm");
    absurd.change.longest_blackout_seconds = -1.0;
    assert!(derived(absurd).1.blackout_seconds.known().is_none());
}

#[test]
fn nothing_known_gives_nothing_but_the_assumption() {
    let (_, forecast) = derived(Facts::empty(jiff::Timestamp::UNIX_EPOCH));
    assert!(forecast.dirty_to_bandwidth_ratio.known().is_none());
    assert!(forecast.total_seconds.known().is_none());
    assert!(forecast.blackout_seconds.known().is_some());
}

#[test]
fn the_dirty_rate_is_held_against_the_goodput() {
    let (_, forecast) = derived(fixture("busy-cluster-member"));
    let ratio = *forecast.dirty_to_bandwidth_ratio.known().unwrap();
    assert!((ratio - 629_145_600.0 / 1_180_000_000.0).abs() < 1e-12);
}
