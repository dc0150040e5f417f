//! Tests of what the wire decides for a guest that tells nothing.

use vmgate_facts::{CaptureMethod, ControlSession, Quantiles, WireProtocol, WireSystem};

use super::*;
use crate::tests::fixture;

/// The ordinary VM, of which nobody but the wire tells.
fn silent_guest(change: impl FnOnce(&mut Wire)) -> Facts {
    let mut facts = fixture("idle-vm");
    let Fact::Known(guest) = &mut facts.guest else { panic!("no guest") };
    let why = Unknown::new(Cause::NotOnTheWire, "nobody looked");
    let Fact::Known(mut wire) = guest.wire.clone() else { panic!("no wire") };
    wire.window_seconds = 10.0;
    change(&mut wire);
    let flows = UdpCapture {
        interface: "vnet0".into(),
        window_seconds: 10.0,
        method: CaptureMethod::KernelCounted,
        frames: Fact::Known(100),
        drops: 0,
        complete: true,
        holes: Vec::new(),
        flows: Vec::new(),
    };
    *guest = Guest {
        udp: Fact::Known(Udp { sockets: Fact::Unknown(why.clone()), flows: Fact::Known(flows) }),
        wire: Fact::Known(wire),
        ..Guest::unknown(&why)
    };
    facts
}

fn derived(facts: Facts) -> Guest {
    let (facts, _) = crate::derive(facts, &Catalogues::shipped().unwrap());
    facts.guest.known().unwrap().clone()
}

fn budget(guest: &Guest) -> f64 {
    let connections = guest.tcp.known().unwrap().connections.known().unwrap();
    *connections[0].budget_seconds.known().unwrap()
}

fn family(family: SystemFamily) -> WireSystem {
    WireSystem { family: Fact::Known(family), evidence: "TTL".into() }
}

#[test]
fn the_wire_decides_for_a_guest_that_tells_nothing() {
    let guest = derived(silent_guest(|_| {}));
    assert_eq!(guest.addresses, Fact::Known(vec!["10.0.0.5".to_owned()]));
    assert!(budget(&guest) > 400.0, "{}", budget(&guest));
    assert_eq!(guest.memory_sync, Fact::Known(Vec::new()));
    assert_eq!(guest.udp.known().unwrap().sockets, Fact::Known(Vec::new()));
    assert_eq!(guest.sctp.known().unwrap().associations, Fact::Known(Vec::new()));
    // What packets do not show stays unknown: nothing is taken for a default that nobody read.
    assert!(guest.sysctl.known().is_none() && guest.multicast_groups.known().is_none());
    assert!(guest.processes.known().is_none());
}

#[test]
fn a_budget_is_that_of_the_system_and_of_an_unknown_one_the_least() {
    let of = |system: WireSystem| {
        let guest = derived(silent_guest(|wire| wire.system = system));
        let assumed = guest.tcp.known().unwrap().connections.known().unwrap()[0].assumed.clone().unwrap();
        (budget(&guest), assumed)
    };
    let (windows, because) = of(family(SystemFamily::Windows));
    assert!((windows - 9.3).abs() < 1e-9 && because.contains("Windows"), "{windows} {because}");
    let (freebsd, _) = of(family(SystemFamily::Freebsd));
    assert!((freebsd - (0.23 * 511.0 + 3.0 * 64.0)).abs() < 1e-9, "{freebsd}");
    let (unknown, because) = of(WireSystem::default());
    assert!((unknown - windows).abs() < 1e-9 && because.contains("do not tell"), "{because}");
}

#[test]
fn a_capture_with_a_hole_decides_nothing() {
    let hole = |wire: &mut Wire| {
        wire.complete = false;
        wire.holes = vec!["vnet0: 3 packets were not read".into()];
    };
    let guest = derived(silent_guest(hole));
    let Fact::Unknown(why) = &guest.tcp else { panic!("{:?}", guest.tcp) };
    assert!(why.reason.contains("vnet0: 3 packets were not read"), "{}", why.reason);
    assert!(guest.memory_sync.known().is_none() && guest.sctp.known().is_none());
}

#[test]
fn a_glimpse_decides_nothing_and_says_how_to_look() {
    let guest = derived(silent_guest(|wire| wire.window_seconds = 1.0));
    let Fact::Unknown(why) = &guest.tcp else { panic!("{:?}", guest.tcp) };
    assert!(why.reason.contains("--guest wire") && why.cause == Cause::NotOnTheWire, "{}", why.reason);
    assert!(guest.memory_sync.known().is_none() && guest.sctp.known().is_none());
}

#[test]
fn a_window_shorter_than_the_silence_to_come_says_how_long_to_look() {
    let mut facts = silent_guest(|wire| wire.window_seconds = 6.0);
    let Fact::Known(path) = &mut facts.path else { panic!("no path") };
    let Fact::Known(network) = &mut path.guest_network else { panic!("no network") };
    network.dark_seconds = Fact::Known(Quantiles { p5: 8.0, p50: 8.0, p95: 8.0 });
    let Fact::Unknown(why) = derived(facts).memory_sync else { panic!("known") };
    assert_eq!(why.cause, Cause::NotAllowed);
    assert!(
        why.reason.contains("--dirty-window 9") || why.reason.contains("--dirty-window 10"),
        "{}",
        why.reason
    );
}

#[test]
fn associations_and_members_on_the_wire_are_listed() {
    let guest = derived(silent_guest(|wire| {
        wire.protocols = vec![WireProtocol {
            protocol: SCTP,
            local: "10.0.0.5:36412".into(),
            remote: "10.0.0.7:36412".into(),
            packets_from_guest: 4,
            packets_to_guest: 4,
        }];
        wire.control = vec![ControlSession {
            protocol: "corosync".into(),
            local: "10.0.0.5:5405".into(),
            remote: "10.0.0.7:5405".into(),
            packets_from_guest: 40,
            active: true,
            ..ControlSession::default()
        }];
    }));
    let associations = guest.sctp.known().unwrap().associations.known().unwrap();
    assert!(associations[0].budget_seconds.known().is_none(), "no packet tells it");
    let members = guest.memory_sync.known().unwrap();
    assert_eq!((members.len(), &*members[0].id), (1, "corosync"));
    assert!(members[0].seen.contains("10.0.0.7:5405"));
}
