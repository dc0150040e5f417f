#![allow(clippy::cast_precision_loss)] // amounts of memory

use std::fmt::Write;

use vmgate_facts::{
    ControlBasis, DirtyWindow, FlowDirection, ForecastMethod, History, LossTolerance, MemorySync,
    MigrationTransport, ObservedHour, PastMigration, Quantiles, TcpConnection, Trial, TrialAnswer, Udp,
};

use super::{
    replay::synthetic_trace::{self, PageGroup},
    *,
};

/// The fixtures of the rules are facts files like any other.
pub(crate) fn fixture(name: &str) -> Facts {
    let path = format!("{}/../../rules/fixtures/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn derived(facts: Facts) -> (Facts, Forecast) {
    derive(facts, &Catalogues::shipped().unwrap())
}

fn forget_what_is_derived(facts: &mut Facts) {
    let Fact::Known(guest) = &mut facts.guest else { panic!("no guest") };
    guest.memory_sync = Fact::default();
    guest.control_sessions = Fact::default();
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
    assert!(facts.provenance.remove("forecast").is_some());
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
fn sessions_on_the_wire_are_completed_by_what_their_standards_say() {
    let mut facts = fixture("idle-vm");
    let Fact::Known(guest) = &mut facts.guest else { panic!("no guest") };
    guest.control_sessions = Fact::default();
    let session = |protocol: &str, timeout: Option<f64>, gap| ControlSession {
        protocol: protocol.into(),
        direction: FlowDirection::Both,
        active: true,
        interval_seconds: Fact::Known(0.25),
        keepalive_gap_seconds: gap,
        timeout_seconds: timeout.map_or_else(Fact::default, Fact::Known),
        basis: if timeout.is_some() { ControlBasis::Packet } else { ControlBasis::None },
        ..ControlSession::default()
    };
    let Fact::Known(wire) = &mut guest.wire else { panic!("no wire") };
    wire.control = vec![
        session("bfd", Some(0.75), 0.25),
        session("bgp", None, 3.0),
        session("corosync", None, 0.1),
        session("gtp-c", None, 5.0),
        ControlSession { direction: FlowDirection::ToGuest, ..session("vrrp", None, 0.0) },
    ];
    let sessions_of = |facts: &Facts| {
        let (facts, _) = derived(facts.clone());
        let sessions = facts.guest.as_ref().and_then(|guest| guest.control_sessions.as_ref());
        sessions.map(|all| {
            all.iter()
                .map(|one| (one.title.clone(), one.basis, one.tolerated_seconds.known().copied()))
                .collect()
        })
    };
    let found: Fact<Vec<(String, ControlBasis, Option<f64>)>> = sessions_of(&facts);
    let expected = [
        ("BFD", ControlBasis::Packet, Some(0.5)),
        ("BGP", ControlBasis::Spacing, Some(6.0)),
        ("Corosync", ControlBasis::Default, Some(1.0)),
        ("GTP-C", ControlBasis::None, None),
        ("VRRP", ControlBasis::None, None),
    ];
    assert_eq!(
        found,
        Fact::Known(expected.map(|(title, basis, time)| (title.to_owned(), basis, time)).into())
    );

    // Without the wire the guest's own account counts, and without both nothing is known.
    let Fact::Known(guest) = &mut facts.guest else { panic!("no guest") };
    guest.wire = Fact::unknown(Cause::PermissionDenied, "no CAP_NET_RAW");
    assert_eq!(sessions_of(&facts), Fact::Known(Vec::new()));
    let Fact::Known(guest) = &mut facts.guest else { panic!("no guest") };
    guest.processes = Fact::default();
    assert_eq!(sessions_of(&facts), Fact::unknown(Cause::PermissionDenied, "no CAP_NET_RAW"));
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
    let mut after = derived(facts).0;
    assert!(after.provenance.remove("forecast").is_some());
    assert_eq!(after, before);
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
    let tls = crate::replay::Conditions::default().tls_bytes_per_second.middle();
    assert!((ratio - 629_145_600.0 / tls.min(1_180_000_000.0)).abs() < 1e-12, "{ratio}: it goes by TLS");
}

const GIB: u64 = 1 << 30;

/// A guest of 4 GiB, half of it zero, that writes to so many pages at random, each `rate` times a second.
fn with_trace(pages: f64, rate: f64) -> Facts {
    let mut facts = fixture("idle-vm");
    let Fact::Known(vm) = &mut facts.vm else { panic!("no VM") };
    vm.dirty_trace =
        Fact::Known(synthetic_trace::from_page_groups(&[PageGroup { pages, rate }], 4 * GIB, 0.5, 1));
    vm.dirty_rate = Fact::default();
    let Fact::Known(path) = &mut facts.path else { panic!("no path") };
    path.transport = Fact::Known(MigrationTransport::Tcp);
    facts
}

#[test]
fn tls_goes_at_the_speed_of_a_core_and_more_connections_use_more() {
    let with = |transport, channels| {
        let mut facts = with_trace(20_000.0, 2.0);
        let Fact::Known(path) = &mut facts.path else { panic!("no path") };
        path.transport = Fact::Known(transport);
        facts.change.settings.multifd_channels = channels;
        derived(facts).1.total_seconds.known().unwrap().p50
    };
    let (plain, tls) = (with(MigrationTransport::Tcp, None), with(MigrationTransport::Tls, None));
    assert!(tls > 1.3 * plain, "1.18 GB/s are more than a core encrypts: {plain} {tls}");
    assert!(with(MigrationTransport::Tls, Some(4)) < 0.8 * tls);
    let mut ordered = with_trace(20_000.0, 2.0);
    ordered.change.settings.tls = true;
    assert!((derived(ordered).1.total_seconds.known().unwrap().p50 / tls - 1.0).abs() < 0.1);
}

#[test]
fn a_trace_is_replayed_and_tells_the_rates_too() {
    let (facts, forecast) = derived(with_trace(20_000.0, 2.0));
    assert_eq!(forecast.method, Fact::Known(ForecastMethod::Replay));
    assert!((forecast.evidence_seconds.known().unwrap() - 30.0).abs() < 1e-6);
    assert_eq!(forecast.converges_ratio, Fact::Known(1.0));
    // 2 GiB at 1.18 GB/s, what is sent again, and the setup, which nobody measured.
    let total = forecast.total_seconds.known().unwrap();
    assert!((1.9..3.9).contains(&total.p50), "{total:?}");
    let sent = forecast.sent_bytes.known().unwrap();
    assert!(sent.p50 > 1.9 * GIB as f64 && sent.p50 < 2.5 * GIB as f64, "{sent:?}");

    let vm = facts.vm.known().unwrap();
    let rate = vm.dirty_rate.known().unwrap();
    // 20,000 pages of which 86 % are written in a second.
    let wanted = 20_000.0 * 0.8647 * 4096.0;
    assert!((rate.rate_bytes_per_second as f64 / wanted - 1.0).abs() < 0.2, "{rate:?}");
    assert!(vm.dirty_windows.known().unwrap().is_sorted_by_key(|window| window.dirtied_bytes));
    let from = facts.provenance_of("forecast.blackout_seconds.p95").unwrap();
    assert!(from.method.contains("vm.dirty_trace"), "{from:?}");

    let timeline = forecast.timeline.known().unwrap();
    assert!(timeline.len() > 30 && timeline.last().unwrap().remaining_bytes.p50 < 1.0, "{timeline:?}");
    assert!(timeline.first().unwrap().remaining_bytes.p5 > 3.9 * GIB as f64);
    assert!(!forecast.round_ends_seconds.known().unwrap().is_empty());
}

#[test]
fn the_same_facts_give_the_same_forecast_also_from_a_file() {
    let facts = with_trace(50_000.0, 1.0);
    let text = serde_yaml::to_string(&facts).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("facts.yaml");
    std::fs::write(&file, &text).unwrap();
    let again = vmgate_documents::facts_file::read(&file).unwrap();
    assert_eq!(again, facts);
    assert!(text.len() < 1 << 20, "{} bytes", text.len());
    assert_eq!(derived(facts), derived(again));
}

#[test]
fn the_downtime_limit_is_chosen_so_that_the_blackout_keeps_to_what_is_accepted() {
    for longest in [0.2, 0.5] {
        let mut facts = with_trace(200_000.0, 0.5);
        facts.change.longest_blackout_seconds = longest;
        let (_, forecast) = derived(facts);
        let (limit, blackout) =
            (forecast.downtime_limit_seconds.known().unwrap(), forecast.blackout_seconds.known().unwrap());
        assert!(*limit < longest, "{limit}");
        assert!(blackout.p95 <= longest, "{longest}: {blackout:?}");
        assert!(blackout.p95 > longest * 0.5, "{longest}: {blackout:?} is shorter than need be");
    }
}

#[test]
fn a_guest_that_outruns_the_path_has_no_duration_and_is_told_what_helps() {
    let mut facts = with_trace(400_000.0, 1.0);
    facts.change.longest_blackout_seconds = 2.0;
    let Fact::Known(path) = &mut facts.path else { panic!("no path") };
    path.goodput_bytes_per_second = Fact::Known(117_000_000);
    let (_, forecast) = derived(facts);
    assert!(*forecast.converges_ratio.known().unwrap() < 0.05);
    assert!(forecast.total_seconds.known().is_none() && forecast.blackout_seconds.known().is_none());
    let advice = forecast.advice.known().unwrap();
    assert!(
        advice.starts_with("with the present settings: does not complete")
            && advice.contains("with post-copy"),
        "{advice}"
    );
    assert_eq!(forecast.limited_by, Fact::Known("the guest's dirty rate".into()));
}

#[test]
fn a_dirty_rate_near_the_speed_of_the_path_depends_on_the_load() {
    let load_of = |pages: f64, rate: f64| {
        let (_, forecast) = derived(with_trace(pages, rate));
        (forecast.load_dependence.known().cloned().flatten(), forecast.advice.known().cloned().unwrap())
    };
    // 1.18 GB/s carry 288,000 pages a second.
    let (near, advice) = load_of(900_000.0, 0.32);
    let near = near.unwrap();
    assert!((0.4..1.6).contains(&near.converges_up_to_ratio), "{near:?}");
    assert!(near.low_for_seconds > 0.0 && near.hours.is_empty(), "{near:?}");
    assert!(advice.contains("depends on the load"), "{advice}");
    assert_eq!(load_of(20_000.0, 2.0).0, None, "far below");
    assert_eq!(load_of(900_000.0, 5.0).0, None, "far above");
}

#[test]
fn untouched_memory_is_not_sent_where_the_host_tells_of_it() {
    let window = |window_seconds, dirtied_bytes| DirtyWindow { window_seconds, dirtied_bytes };
    let sent = |resident: Fact<Option<u64>>| {
        let mut facts = fixture("idle-vm");
        let Fact::Known(vm) = &mut facts.vm else { panic!("no VM") };
        vm.dirty_windows = Fact::Known(vec![window(1.0, 40 << 20), window(2.0, 60 << 20)]);
        vm.resident_bytes = resident;
        *derived(facts).1.sent_bytes.known().unwrap()
    };
    let quarter = sent(Fact::Known(Some(GIB)));
    assert!(quarter.p95 < 1.2 * GIB as f64 && quarter.p5 > 0.6 * GIB as f64, "{quarter:?}");
    // Huge pages do not tell: nearly empty or full.
    let untold = sent(Fact::Known(None));
    assert!(untold.p95 > 3.5 * GIB as f64 && untold.p5 < 1.2 * GIB as f64, "{untold:?}");
}

#[test]
fn a_bandwidth_limit_is_lifted_for_the_switchover() {
    let with = |limit: Option<u64>| {
        let mut facts = with_trace(2000.0, 2.0);
        facts.change.bandwidth_limit_bytes_per_second = limit;
        let Fact::Known(path) = &mut facts.path else { panic!("no path") };
        path.limit_bytes_per_second = Fact::Known(limit);
        if let Some(limit) = limit {
            path.bandwidth_bytes_per_second = Fact::Known(limit);
        }
        path.goodput_bytes_per_second = Fact::default();
        *derived(facts).1.blackout_seconds.known().unwrap()
    };
    let limited = with(Some(62_500_000));
    assert!(limited.p95 < 0.2, "18.75 MB at 1.1 GB/s, not at the limit: {limited:?}");
}

#[test]
fn advice_names_only_what_helps() {
    let (_, forecast) = derived(with_trace(20_000.0, 2.0));
    let tried: Vec<&str> =
        forecast.alternatives.known().unwrap().iter().map(|other| other.setting.as_str()).collect();
    assert!(tried.contains(&"a path of twice the goodput") && tried.contains(&"auto-converge"), "{tried:?}");
    let advice = forecast.advice.known().unwrap();
    assert!(advice.contains("twice the goodput") && !advice.contains("auto-converge"), "{advice}");
}

#[test]
fn without_a_trace_several_windows_are_replayed_and_one_is_not() {
    let window = |window_seconds, dirtied_bytes| DirtyWindow { window_seconds, dirtied_bytes };
    let with = |windows: &[DirtyWindow]| {
        let mut facts = fixture("idle-vm");
        let Fact::Known(vm) = &mut facts.vm else { panic!("no VM") };
        vm.dirty_windows = Fact::Known(windows.to_vec());
        derived(facts).1
    };
    let several = with(&[window(1.0, 40 << 20), window(2.0, 60 << 20), window(4.0, 70 << 20)]);
    assert_eq!(several.method, Fact::Known(ForecastMethod::ReplayOfWindows));
    assert!(several.blackout_seconds.known().is_some());
    assert_eq!(with(&[window(1.0, 40 << 20)]).method, Fact::Known(ForecastMethod::Assumed));
}

#[test]
fn a_trace_that_contradicts_itself_is_not_replayed() {
    let mut facts = with_trace(1000.0, 1.0);
    let Fact::Known(vm) = &mut facts.vm else { panic!("no VM") };
    let Fact::Known(trace) = &mut vm.dirty_trace else { panic!("no trace") };
    trace.ram_bytes *= 2;
    let (facts, forecast) = derived(facts);
    assert_eq!(forecast.method, Fact::Known(ForecastMethod::Assumed));
    assert!(facts.vm.known().unwrap().dirty_rate.known().is_none());
}

#[test]
fn a_rate_alone_says_whether_the_copy_catches_up_where_that_is_beyond_doubt() {
    let with = |rate: u64| {
        let mut facts = fixture("idle-vm");
        let Fact::Known(vm) = &mut facts.vm else { panic!("no VM") };
        let Fact::Known(known) = &mut vm.dirty_rate else { panic!("no rate") };
        known.rate_bytes_per_second = rate;
        derived(facts).1.converges_ratio.known().copied()
    };
    // Of 1.18 GB/s, give or take 40 %.
    assert_eq!(with(500_000_000), Some(1.0));
    assert_eq!(with(1_000_000_000), None);
    assert_eq!(with(1_800_000_000), Some(0.0));
}

#[test]
fn a_duration_is_corrected_by_earlier_migrations_and_what_was_replayed_is_kept() {
    let with_past = |migrations: usize| {
        let mut facts = with_trace(20_000.0, 2.0);
        let at = jiff::Timestamp::UNIX_EPOCH;
        let forecast_total_seconds = Quantiles { p5: 9.0, p50: 10.0, p95: 11.0 };
        let past = PastMigration {
            at,
            forecast_total_seconds,
            total_seconds: 15.0,
            forecast_blackout_seconds: None,
            downtime_seconds: None,
            forecast_sent_bytes: None,
            sent_bytes: None,
            source_version: None,
            destination_version: None,
        };
        let past_migrations = Fact::Known(vec![past; migrations]);
        facts.history = Fact::Known(History { past_migrations, ..History::default() });
        derived(facts).1
    };
    let none = with_past(0);
    assert_eq!((none.corrected_by_migrations, &none.total_seconds), (0, &none.replayed_total_seconds));
    let many = with_past(12);
    assert_eq!(many.corrected_by_migrations, 12);
    let middle = |figure: &Fact<Quantiles>| figure.known().unwrap().p50;
    assert!((middle(&many.total_seconds) - middle(&none.total_seconds) - 5.0).abs() < 1e-9);
    assert!((middle(&many.replayed_total_seconds) - middle(&none.total_seconds)).abs() < 1e-9);
}

#[test]
fn a_few_earlier_migrations_and_a_trial_tell_the_fixed_costs_of_the_pair() {
    let past = |seconds: f64| PastMigration {
        at: jiff::Timestamp::UNIX_EPOCH,
        forecast_total_seconds: Quantiles { p5: 9.0, p50: 10.0, p95: 11.0 },
        total_seconds: 10.0 + seconds,
        forecast_blackout_seconds: Some(Quantiles { p5: 0.1, p50: 0.2, p95: 0.3 }),
        downtime_seconds: Some(0.2 - seconds / 10.0),
        forecast_sent_bytes: Some(Quantiles { p5: 1.9e9, p50: 2e9, p95: 2.1e9 }),
        sent_bytes: Some(2_002_000_000),
        source_version: None,
        destination_version: None,
    };
    let mut facts = with_trace(20_000.0, 2.0);
    let alone = derived(facts.clone()).1;
    let past_migrations = Fact::Known(vec![past(-0.4), past(-0.3), past(-0.3), past(-0.2), past(-0.3)]);
    facts.history = Fact::Known(History { past_migrations, ..History::default() });
    let corrected = derived(facts).1;
    let off = |figure: fn(&Forecast) -> &Fact<Quantiles>| {
        figure(&corrected).known().unwrap().p50 - figure(&alone).known().unwrap().p50
    };
    // Of the 10 s that were foretold, a thousandth more bytes explain 0.01 s; more are foretold this time, too.
    let seconds_per_byte = alone.total_seconds.known().unwrap().p50 / alone.sent_bytes.known().unwrap().p50;
    let of_bytes = 2e6 * seconds_per_byte;
    assert!((off(|forecast| &forecast.total_seconds) + 0.31 - of_bytes).abs() < 1e-9);
    assert!(off(|forecast| &forecast.blackout_seconds) > 0.0);
    assert!((off(|forecast| &forecast.sent_bytes) - 2e6).abs() < 1.0, "as many too few each time");
    assert_eq!(corrected.replayed_sent_bytes, alone.sent_bytes);
    assert!(corrected.fixed_costs.known().unwrap().starts_with("corrected by 5 earlier migrations"));

    let trial = |until_sent_seconds| {
        let mut facts = with_trace(20_000.0, 2.0);
        let trial = Trial {
            at: jiff::Timestamp::UNIX_EPOCH,
            answer: TrialAnswer::Accepted,
            refused_by: None,
            refusal: None,
            until_sent_seconds,
            total_seconds: 4.0,
            guest_stopped_seconds: Fact::Known(0.0),
            left_behind: None,
        };
        facts.trial = Fact::Known(Some(trial));
        derived(facts).1
    };
    let (quick, slow) = (trial(Some(0.1)), trial(Some(3.0)));
    let middle = |forecast: &Forecast| forecast.total_seconds.known().unwrap().p50;
    assert!((2.4..3.6).contains(&(middle(&slow) - middle(&quick))), "{} {}", middle(&quick), middle(&slow));
    assert!(slow.fixed_costs.known().unwrap().starts_with("setup measured by the trial"));
    assert!(trial(None).fixed_costs.known().unwrap().starts_with("assumed"));
}

#[test]
fn a_move_beside_others_lacks_their_part_of_the_path_and_waits_for_them_at_the_switch() {
    let of = |moves_at_once, bandwidth_limit_bytes_per_second| {
        let mut facts = with_trace(20_000.0, 2.0);
        facts.change.moves_at_once = moves_at_once;
        facts.change.bandwidth_limit_bytes_per_second = bandwidth_limit_bytes_per_second;
        let forecast = derived(facts).1;
        let [total, blackout] =
            [forecast.total_seconds, forecast.blackout_seconds].map(|figure| *figure.known().unwrap());
        (total, blackout)
    };
    let (alone, beside) = (of(1, None), of(2, None));
    assert!((1.15..2.0).contains(&(beside.0.p50 / alone.0.p50)), "{alone:?} {beside:?}");
    // With its share as a limit nobody is in its way but for the rest, which goes without it.
    let share = Some(500_000_000);
    let (alone, beside) = (of(1, share), of(2, share));
    assert!((0.95..1.15).contains(&(beside.0.p50 / alone.0.p50)), "{alone:?} {beside:?}");
    assert!(beside.1.p95 > alone.1.p95, "{alone:?} {beside:?}");
}

#[test]
fn quiet_hours_are_named_and_the_quietest_is_forecast() {
    let hour = |hour, rate_bytes_per_second: u64| ObservedHour {
        hour,
        rate_bytes_per_second,
        dirty_windows: [1.0, 5.0]
            .map(|window_seconds| DirtyWindow { window_seconds, dirtied_bytes: rate_bytes_per_second * 2 })
            .to_vec(),
        observations: 4,
        last: jiff::Timestamp::UNIX_EPOCH,
    };
    // Now 71 MB/s.
    let mut facts = with_trace(20_000.0, 2.0);
    let observed_hours = Fact::Known(vec![hour(2, 30_000_000), hour(3, 1_000_000), hour(14, 90_000_000)]);
    facts.history = Fact::Known(History { observed_hours, ..History::default() });
    let (_, forecast) = derived(facts);
    assert_eq!(forecast.quiet_hours, Fact::Known(vec![3, 2]));
    let alternatives = forecast.alternatives.known().unwrap();
    let quietest = alternatives.iter().find(|other| other.setting == "a start at 03:00 UTC, as observed");
    assert!(quietest.unwrap().converges_ratio >= 0.95, "{alternatives:?}");
    assert!(derived(with_trace(20_000.0, 2.0)).1.quiet_hours.known().is_none());
}
