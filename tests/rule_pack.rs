//! Verdicts of the built-in rules on whole moves: the cases that operators meet first.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use vmgate_facts::{
    CaptureMethod, Cause, ControlBasis, ControlSession, Fact, Facts, FlowDirection, Guest, MachineType,
    MigrationTransport, SystemFamily, Udp, UdpCapture, Unknown, Wire,
};
use vmgate_forecast::derive;
use vmgate_rules::{Pack, ParamOverrides, RuleSource, catalogue::Catalogues};
use vmgate_verdict::{Effect, Outcome, Status};

fn fixture(name: &str) -> Facts {
    let path = format!("{}/rules/fixtures/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn judge(facts: Facts, profile: &str) -> Vec<Outcome> {
    let pack = Pack::load(&[RuleSource::Builtin]).unwrap();
    let pack = pack.with_parameters(Some(profile), &ParamOverrides::new()).unwrap();
    let now = facts.collected_at;
    let (facts, forecast) = derive(facts, &Catalogues::shipped().unwrap());
    pack.evaluate(&facts, &forecast, now)
}

/// Ids of the rules with an outcome of this effect, each once.
fn rules_that(effect: Effect, outcomes: &[Outcome]) -> Vec<&str> {
    let mut rules: Vec<&str> = outcomes
        .iter()
        .filter(|outcome| outcome.effect_now() == Some(effect))
        .map(|outcome| &*outcome.rule)
        .collect();
    rules.sort_unstable();
    rules.dedup();
    rules
}

fn blocking(outcomes: &[Outcome]) -> Vec<&str> {
    rules_that(Effect::Block, outcomes)
}

fn known<T>(fact: &mut Fact<T>) -> &mut T {
    match fact {
        Fact::Known(value) => value,
        Fact::Unknown(why) => panic!("{why:?}"),
    }
}

/// A healthy move the other way: from the newer host to the older one.
fn back() -> Facts {
    let mut facts = fixture("idle-vm");
    // Facts that only a destination has.
    let there = known(&mut facts.destination).clone();
    let here = known(&mut facts.source);
    (here.cpu_models, here.most_vcpus) = (there.cpu_models, there.most_vcpus);
    here.device_models = there.device_models;
    here.configuration_refused = there.configuration_refused;
    let here = known(&mut here.files).iter_mut();
    here.zip(there.files.known().unwrap()).for_each(|(file, opened)| file.opening = opened.opening.clone());
    std::mem::swap(&mut facts.source, &mut facts.destination);
    let path = known(&mut facts.path);
    path.destination_address = Fact::Known("10.77.1.1".into());
    std::mem::swap(&mut path.destination_name_addresses, &mut path.source_name_addresses);
    let (vm, destination) = (known(&mut facts.vm), known(&mut facts.destination));
    vm.qemu_version = Fact::Known("10.0.13".parse().unwrap());
    destination.active_vms = Fact::Known(Vec::new());
    destination.offers_guest_cpu = Fact::Known(true);
    destination.forbidden_cpu_features = Fact::Known(Vec::new());
    facts
}

#[test]
fn an_idle_guest_between_healthy_hosts_is_held_up_by_nothing() {
    for profile in ["standard", "realtime"] {
        let outcomes = judge(fixture("idle-vm"), profile);
        assert_eq!(blocking(&outcomes), Vec::<&str>::new(), "{profile}");
        assert!(outcomes.iter().all(|outcome| outcome.status != Status::Unknown), "{profile}");
    }
}

#[test]
fn the_strict_profile_wants_a_change_to_belong_to_and_a_rehearsal() {
    assert_eq!(blocking(&judge(fixture("idle-vm"), "strict")), ["change-recorded", "version-pair-rehearsed"]);
}

#[test]
fn a_cluster_member_moves_if_its_token_is_long_enough() {
    let with_token = |seconds: f64| {
        let mut facts = fixture("busy-cluster-member");
        // TLS on one connection is too slow for its memory.
        known(&mut facts.path).transport = Fact::Known(MigrationTransport::Tcp);
        let guest = known(&mut facts.guest);
        known(&mut guest.memory_sync)[0].detector_seconds = Fact::Known(seconds);
        // Its routers and callers are patient.
        for session in known(&mut guest.control_sessions) {
            session.tolerated_seconds = Fact::Known(60.0);
        }
        judge(facts, "standard")
    };
    assert_eq!(blocking(&with_token(1.0)), ["memory-sync-survives-blackout"]);
    assert_eq!(blocking(&with_token(3.0)), Vec::<&str>::new());
}

#[test]
fn a_connection_that_gives_up_soon_holds_the_move_up() {
    let mut facts = fixture("idle-vm");
    let guest = known(&mut facts.guest);
    known(&mut guest.sysctl).tcp_retries2 = Fact::Known(1);
    known(&mut known(&mut guest.tcp).connections)[0].budget_seconds = Fact::default();
    let outcomes = judge(facts, "standard");
    assert_eq!(blocking(&outcomes), ["tcp-retransmission-budget"]);
    assert_eq!(rules_that(Effect::Warn, &outcomes), ["tcp-retries-sysctl-sane"]);
}

#[test]
fn without_an_agent_evidence_is_missing_for_one_reason() {
    let mut facts = fixture("idle-vm");
    facts.guest = Fact::unknown(Cause::NoGuestAgent, "nothing answers on the channel");
    let outcomes = judge(facts, "standard");
    let blocked: Vec<&Outcome> =
        outcomes.iter().filter(|outcome| outcome.effect_now() == Some(Effect::Block)).collect();
    assert!(!blocked.is_empty());
    for outcome in blocked {
        assert_eq!(outcome.status, Status::Unknown, "{}", outcome.rule);
        let causes: Vec<Cause> = outcome.missing.iter().map(|missing| missing.cause).collect();
        assert_eq!(causes, [Cause::NoGuestAgent], "{}", outcome.rule);
    }
}

#[test]
fn a_migration_over_the_guests_bridge_needs_a_limit() {
    let mut facts = fixture("idle-vm");
    known(&mut known(&mut facts.path).source_nic).guest_bridge = Some("br0".into());
    let outcomes = judge(facts.clone(), "standard");
    assert_eq!(blocking(&outcomes), ["migration-traffic-shaped-when-shared"]);
    facts.change.bandwidth_limit_bytes_per_second = Some(250_000_000);
    let outcomes = judge(facts, "standard");
    assert_eq!(blocking(&outcomes), Vec::<&str>::new());
    assert_eq!(rules_that(Effect::Warn, &outcomes), ["migration-nic-dedicated"]);
}

#[test]
fn the_way_back_to_an_older_host_is_open_to_an_older_machine_type_only() {
    let outcomes = judge(back(), "standard");
    assert_eq!(blocking(&outcomes), Vec::<&str>::new());
    assert_eq!(rules_that(Effect::Warn, &outcomes), ["destination-hypervisor-not-older"]);
    let mut newer = back();
    known(&mut newer.vm).machine_type = Fact::Known("pc-q35-10.0".into());
    assert_eq!(blocking(&judge(newer, "standard")), ["machine-type-supported"]);
}

#[test]
fn a_deprecated_machine_type_is_only_a_warning() {
    let mut facts = fixture("idle-vm");
    let old = MachineType { name: "pc-q35-2.12".into(), deprecated: true };
    known(&mut known(&mut facts.destination).machine_types).push(old);
    known(&mut facts.vm).machine_type = Fact::Known("pc-q35-2.12".into());
    let outcomes = judge(facts, "standard");
    assert_eq!(blocking(&outcomes), Vec::<&str>::new());
    assert_eq!(rules_that(Effect::Warn, &outcomes), ["machine-type-not-deprecated"]);
}

#[test]
fn a_guest_that_outruns_the_path_is_held_up() {
    let mut facts = fixture("idle-vm");
    known(&mut known(&mut facts.vm).dirty_rate).rate_bytes_per_second = 2_000_000_000;
    let outcomes = judge(facts, "standard");
    assert_eq!(blocking(&outcomes), ["dirty-rate-below-goodput", "forecast-converges"]);
}

#[test]
fn what_nobody_measured_of_the_path_is_taken_from_its_nominal_speed() {
    let mut facts = fixture("idle-vm");
    known(&mut facts.path).goodput_bytes_per_second = Fact::default();
    assert_eq!(blocking(&judge(facts.clone(), "standard")), Vec::<&str>::new());
    known(&mut facts.path).bandwidth_bytes_per_second = Fact::default();
    let outcomes = judge(facts, "standard");
    assert_eq!(blocking(&outcomes), ["dirty-rate-below-goodput", "forecast-converges"]);
    assert!(outcomes.iter().any(|outcome| outcome.status == Status::Unknown));
}

#[test]
fn software_that_the_probe_recognises_is_in_the_catalogue() {
    let catalogues = Catalogues::shipped().unwrap();
    for id in vmgate_probe::guest::recognised_software() {
        assert!(catalogues.memory_sync().iter().any(|entry| entry.id == id), "{id} is not in the catalogue");
    }
}

/// The ordinary VM as `--guest wire` sees it: nothing but its packets.
fn by_its_packets(change: impl FnOnce(&mut Wire)) -> Facts {
    let mut facts = fixture("idle-vm");
    let guest = known(&mut facts.guest);
    let why =
        Unknown::new(Cause::NotOnTheWire, "nobody looked into the guest, and its packets do not show it");
    let mut wire = known(&mut guest.wire).clone();
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

#[test]
fn a_guest_that_lets_nobody_in_gets_a_verdict_from_its_packets() {
    for family in [Fact::Known(SystemFamily::Windows), Fact::Known(SystemFamily::Linux), Fact::default()] {
        let outcomes = judge(by_its_packets(|wire| wire.system.family = family), "standard");
        assert_eq!(blocking(&outcomes), Vec::<&str>::new());
        let undecided = outcomes.iter().filter(|outcome| outcome.status == Status::Unknown);
        let causes: Vec<_> =
            undecided.flat_map(|outcome| &outcome.missing).map(|missing| missing.cause).collect();
        assert!(!causes.is_empty() && causes.iter().all(|cause| *cause == Cause::NotOnTheWire), "{causes:?}");
    }
}

#[test]
fn a_session_on_the_wire_that_is_less_patient_than_the_silence_blocks() {
    let session = |timeout| ControlSession {
        protocol: "vrrp".into(),
        role: Some("master".into()),
        local: "10.0.0.5".into(),
        remote: "224.0.0.18".into(),
        identity: "VRID 51".into(),
        direction: FlowDirection::FromGuest,
        packets_from_guest: 40,
        active: true,
        interval_seconds: Fact::Known(timeout / 3.0),
        multiplier: Some(3),
        timeout_seconds: Fact::Known(timeout),
        basis: ControlBasis::Packet,
        source: "as the packets say".into(),
        ..ControlSession::default()
    };
    let blocks = |timeout| {
        let outcomes = judge(by_its_packets(|wire| wire.control = vec![session(timeout)]), "standard");
        blocking(&outcomes).contains(&"control-sessions-survive-silence")
    };
    assert!(blocks(0.09), "sub-second VRRP");
    assert!(!blocks(30.0));
}

#[test]
fn no_text_of_an_outcome_says_unknown_in_parentheses() {
    let pack = Pack::load(&[RuleSource::Builtin]).unwrap();
    let catalogues = Catalogues::shipped().unwrap();
    let whole = serde_json::to_value(fixture("busy-cluster-member")).unwrap();
    for part in ["vm", "guest", "source", "destination", "path"] {
        for field in whole[part].as_object().unwrap().keys() {
            let mut lacking = whole.clone();
            lacking[part][field] = serde_json::json!({"unknown": "nobody told", "cause": "not-supported"});
            // Only facts can be unknown, not what names them.
            let Ok(facts) = serde_json::from_value::<Facts>(lacking) else { continue };
            let now = facts.collected_at;
            let (facts, forecast) = derive(facts, &catalogues);
            for outcome in pack.evaluate(&facts, &forecast, now) {
                let text = serde_json::to_string(&outcome).unwrap();
                assert!(!text.contains("(unknown)"), "{part}.{field}: {text}");
            }
        }
    }
}
