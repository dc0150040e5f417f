use vmgate_facts::Fact;

use super::*;

const WHOLE: &str = "# a comment
schema: vmgate/change/v1
id: CHG-2041
title: Empty hv1
window: {start: 2026-11-24T01:00:00Z, end: 2026-11-24T05:00:00Z}
goals: {longest_blackout_seconds: 0.5, deadline_seconds: 600}
settings: {bandwidth_limit_bytes_per_second: 125000000, auto_converge: true, isolate: true}
notify: {longest_delay_seconds: 20}
prepare:
  - run: [drain, '1']
    undo: [undrain]
limits: {per_destination: 2}
after_no_go: continue
waivers:
  - rule: guest-agent-answers
    match: {vm: web2}
    owner: ops@example.org
    reason: looked at by hand
    ticket: OPS-1
    created: 2026-11-20
    expires: 2026-11-30
moves:
  - vm: web1
    from: qemu+ssh://root@hv1/system
    to: qemu+ssh://root@hv2/system
    migrate_address: 10.0.1.2
    goals: {longest_blackout_seconds: 2}
    prepare:
      - stop_service: corosync
        time_limit_seconds: 15
  - vm: web2
    from: qemu+ssh://root@hv1/system
    to: qemu+ssh://root@hv3/system
    guest: none
    notify: {enabled: false}
    settings: {auto_converge: false, post_copy: true, isolate: false}
";

fn parse(text: &str) -> Result<ChangeFile, Problems> {
    ChangeFile::parse("change.yaml", text.as_bytes())
}

#[test]
fn a_whole_change_loads_and_moves_take_what_they_do_not_say_from_it() {
    let change = parse(WHOLE).unwrap();
    let [web1, web2] = change.moves.as_slice() else { panic!("{:?}", change.moves) };
    assert_eq!((change.id.as_str(), change.after_no_go), ("CHG-2041", AfterNoGo::Continue));
    assert_eq!(change.limits, Limits { per_source: 1, per_destination: 2, per_link: 1 });
    assert_eq!(change.waivers.iter().count(), 1);
    assert_eq!(web1.place, FileLine { file: "change.yaml".to_owned(), line: 23 });
    assert_eq!(web2.place.line, 31);
    assert!((web1.plan.longest_blackout_seconds - 2.0).abs() < f64::EPSILON);
    assert!((web2.plan.longest_blackout_seconds - 0.5).abs() < f64::EPSILON);
    assert_eq!((web1.plan.settings.isolate, web2.plan.settings.isolate), (Some(true), Some(false)));
    assert!(!web1.plan.rehearsal && !change.to_fact(web1).rehearsal);
    let rehearsal = parse(&WHOLE.replacen("title:", "rehearsal: true\ntitle:", 1)).unwrap();
    assert!(rehearsal.to_fact(&rehearsal.moves[1]).rehearsal, "the rules see it");
    assert_eq!(web1.plan.actions.len(), 2);
    assert_eq!(
        web1.plan.actions[1].deed,
        ActionKind::StopService { service: "corosync".to_owned(), processes: vec!["corosync".to_owned()] }
    );
    assert!((web1.plan.notify.as_ref().unwrap().longest_delay_seconds - 20.0).abs() < f64::EPSILON);
    assert_eq!(web2.plan.notify, None);
    assert_eq!(web1.plan.settings.auto_converge, Some(true));
    assert_eq!((web2.plan.settings.auto_converge, web2.plan.settings.post_copy), (Some(false), Some(true)));
    let asked = change.to_fact(web2);
    assert_eq!(asked.id.as_deref(), Some("CHG-2041"));
    assert_eq!(asked.bandwidth_limit_bytes_per_second, Some(125_000_000));
    assert_eq!(asked.window_end.unwrap().to_string(), "2026-11-24T05:00:00Z");
}

#[test]
fn a_move_knows_how_many_of_its_change_may_share_its_links() {
    let at_once = |limits: &str, moved: usize| {
        let change = parse(&WHOLE.replace("limits: {per_destination: 2}", limits)).unwrap();
        change.to_fact(&change.moves[moved]).moves_at_once
    };
    assert_eq!(at_once("limits: {per_destination: 2}", 0), 1, "they have one source and two destinations");
    assert_eq!(at_once("limits: {per_source: 4}", 0), 2, "of four, the change has two");
    assert_eq!(at_once("limits: {per_source: 4}\nat_once: 1", 0), 1);
    let same = WHOLE.replace("hv3", "hv2");
    let over_one_link = |limits: &str| {
        let change = parse(&same.replace("limits: {per_destination: 2}", limits)).unwrap();
        change.to_fact(&change.moves[1]).moves_at_once
    };
    assert_eq!(over_one_link("limits: {per_source: 2, per_destination: 2}"), 1, "one over each link");
    assert_eq!(over_one_link("limits: {per_source: 2, per_destination: 2, per_link: 2}"), 2);
}

#[test]
fn the_digest_is_of_what_it_says_and_not_of_how_it_looks() {
    let digest = |text: &str| parse(text).unwrap().digest;
    let laid_out =
        WHOLE.replace("# a comment\n", "").replace("{per_destination: 2}", "\n  per_destination: 2");
    assert_eq!(digest(WHOLE), digest(&laid_out));
    assert_ne!(digest(WHOLE), digest(&WHOLE.replace("web2", "web3")));
}

#[test]
fn all_problems_come_together_each_with_its_place() {
    let text = "schema: vmgate/change/v1
id: ''
window: {start: 2026-11-24T05:00:00Z, end: 2026-11-24T01:00:00Z}
goals: {longest_blackout_second: 0.5, deadline_seconds: -1}
settings: {bandwidth_limit_bytes_per_second: 100, post_copy: true, multifd_channels: 300}
notify: {folder: etc}
prepare:
  - run: [drain]
  - {}
  - stop_service: '-x; rm'
  - {stop_service: a, on: guest}
limits: {per_link: 0}
waivers:
  - {rule: a, match: {}, owner: me, reason: so, ticket: T, created: 2026-01-01, expires: 2026-12-01}
  - {rule: a, match: {vm: a}, owner: me, reason: so, ticket: T, created: 1.1.2026, expires: 2026-12-01}
moves:
  - {vm: web1, from: hv1, to: 'qemu+ssh://hv2/system', migrate_address: hv2, guest: telepathy}
  - {vm: web2, from: 'qemu:///system', to: 'qemu:///system'}
  - {vm: web2, from: 'qemu:///system', to: 'qemu+ssh://hv2/system'}
";
    let problems = parse(text).unwrap_err().problems;
    let found: Vec<String> = problems
        .iter()
        .map(|problem| format!("{}: {}", problem.position().map_or(0, |(line, _)| line), problem.message()))
        .collect();
    for (line, part) in [
        (2, "`id` must be a text"),
        (3, "ends before it starts"),
        (4, "`goals.longest_blackout_second`: there is no such field"),
        (4, "`deadline_seconds` must be more than 0"),
        (5, "less than libvirt can set"),
        (5, "1 to 255"),
        (5, "cannot combine post-copy with multifd"),
        (6, "absolute path"),
        (8, "needs its `undo`"),
        (10, "is not a valid service name"),
        (11, "only `run` has `undo` and `on`"),
        (12, "`limits.per_link` must be 1 or more"),
        (14, "`match` is empty"),
        (14, "at most 90 are allowed"),
        (15, "is not a day"),
        (17, "is not a libvirt URI"),
        (17, "is not an IP address"),
        (17, "is not a way to reach a guest"),
        (18, "the same host"),
        (19, "web2 is moved twice"),
    ] {
        let place = format!("{line}: ");
        assert!(
            found.iter().any(|problem| problem.starts_with(&place) && problem.contains(part)),
            "{line}: {part} is missing in {found:#?}"
        );
    }
}

#[test]
fn what_is_no_change_is_refused_and_nothing_panics() {
    for text in [
        "",
        "[]",
        "schema: vmgate/change/v2\nid: a\nmoves: []",
        "schema: vmgate/change/v1\nid: a\nmoves: []",
        "schema: vmgate/change/v1\nid: a\nmoves: 3",
        "schema: vmgate/change/v1\nid: [a]\nmoves: [[], 3, {prepare: [3, []]}]",
        "moves: [{vm: &a x}]",
        "\u{feff}a: b",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
    assert!(ChangeFile::parse("c", b"\xff").is_err());
}

/// A change with one move that prepares in this way.
fn preparing(actions: &str) -> Result<ChangeFile, Problems> {
    parse(&format!(
        "schema: vmgate/change/v1\nid: C\nmoves:\n  - vm: db1\n    from: qemu:///system\n    to: qemu+ssh://hv2/system\n    prepare: {actions}\n"
    ))
}

#[test]
fn a_member_that_is_taken_out_is_no_member_in_the_facts_whatever_told_of_it() {
    let change = preparing("[{take_out: pacemaker}]").unwrap();
    let [action] = change.moves[0].plan.actions.as_slice() else { panic!() };
    assert_eq!(action.to_string(), "take corosync in the guest out of its cluster");
    assert!((action.time_limit_seconds - 300.0).abs() < f64::EPSILON, "a member may have to catch up");
    assert!(!change.has_commands(), "the scripts are vmgate's own");

    let text = include_str!("../../../../rules/fixtures/busy-cluster-member.yaml");
    let mut facts: vmgate_facts::Facts = serde_yaml::from_str(text).unwrap();
    let Fact::Known(guest) = &mut facts.guest else { panic!() };
    guest.detectors = Fact::Known(vec![vmgate_facts::Detector {
        software: "corosync".to_owned(),
        pid: Some(812),
        detector_seconds: Fact::Known(3.0),
        basis: vmgate_facts::DetectorBasis::Tool,
        source: "corosync-cmapctl".to_owned(),
    }]);
    let session =
        |protocol: &str| vmgate_facts::ControlSession { protocol: protocol.into(), ..Default::default() };
    guest.control_sessions = Fact::Known(vec![session("corosync"), session("vrrp")]);
    change.moves[0].plan.apply_preparation(&mut facts);
    let guest = facts.guest.known().unwrap();
    assert_eq!(guest.control_sessions, Fact::Known(vec![session("vrrp")]), "its heartbeats end with it");
    let members = guest.memory_sync.known().unwrap();
    assert_eq!(members.iter().map(|member| member.id.as_str()).collect::<Vec<_>>(), ["redis-sentinel"]);
    assert_eq!(guest.detectors, Fact::Known(Vec::new()), "a detector ends with its process");
    assert!(guest.processes.known().unwrap().iter().all(|process| process.name != "corosync"));
    assert!(guest.udp.known().unwrap().sockets.known().unwrap().iter().all(|socket| socket.port != 5405));
}

#[test]
fn only_known_software_is_taken_out() {
    for (actions, message) in [
        ("[{take_out: etdc}]", "did you mean `etcd`?"),
        ("[{take_out: kafka}]", "write the commands yourself"),
        ("[{take_out: mine}]", "vmgate takes out: corosync, keepalived, etcd"),
        ("[{take_out: etcd, undo: []}]", "only `run` has `undo` and `on`"),
        ("[{take_out: etcd, stop_service: etcd}]", "this has several"),
    ] {
        let problems = preparing(actions).unwrap_err().to_string();
        assert!(problems.contains(message), "{actions}: {problems}");
    }
}
