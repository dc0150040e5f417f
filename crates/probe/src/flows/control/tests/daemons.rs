//! Packets of real daemons: the time-out that is read agrees with their configuration in tests/wire/capture.
//!
//! `make wire-truth` makes the captures anew.

use std::{env, fs, path::PathBuf};

use vmgate_facts::{ControlBasis, ControlSession, FlowDirection};

use super::sessions;

fn captured(name: &str) -> Vec<ControlSession> {
    let folder = env::var_os("WIRE_CAPTURES").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/wire/captures")),
        PathBuf::from,
    );
    let file = fs::read(folder.join(name).with_extension("pcap")).unwrap();
    let records = records(&file);
    let begin = records.first().unwrap().0;
    sessions(records.into_iter().map(|(at, frame)| (at - begin, frame)))
}

/// Frames of a capture file, in the host's byte order, with their times in seconds.
fn records(file: &[u8]) -> Vec<(f64, &[u8])> {
    let number = |at: usize| u32::from_le_bytes(*file[at..].first_chunk().unwrap());
    assert_eq!(number(0), 0xa1b2_c3d4, "not a capture with microseconds");
    let (mut at, mut found) = (24, Vec::new());
    while at < file.len() {
        let length = number(at + 8) as usize;
        found.push((
            f64::from(number(at)) + f64::from(number(at + 4)) / 1e6,
            &file[at + 16..at + 16 + length],
        ));
        at += 16 + length;
    }
    found
}

/// The session that the guest sends, by protocol and its group or a part of its identity.
#[track_caller]
fn of<'a>(sessions: &'a [ControlSession], protocol: &str, name: &str) -> &'a ControlSession {
    let mut found = sessions.iter().filter(|session| {
        session.protocol == protocol
            && (session.remote == name || session.identity.contains(name))
            && session.direction != FlowDirection::ToGuest
            && session.active
    });
    let session = found.next().unwrap_or_else(|| panic!("no {protocol} {name} in {sessions:#?}"));
    assert!(found.next().is_none(), "several: {sessions:#?}");
    session
}

#[track_caller]
fn states(session: &ControlSession, interval: f64, timeout: f64) {
    let near = |is: f64, should: f64| (is - should).abs() <= should * 0.3;
    let (is, out) = (session.interval_seconds.known().unwrap(), session.timeout_seconds.known().unwrap());
    assert!(near(*is, interval), "{session:#?}");
    assert!((out - timeout).abs() < 1e-6, "{session:#?}");
    assert_eq!(session.basis, ControlBasis::Packet);
}

#[test]
fn keepalived_and_ucarp() {
    let vrrp = captured("vrrp");
    states(of(&vrrp, "vrrp", "VRID 51"), 1.0, 3.0);
    states(of(&vrrp, "vrrp", "VRID 52"), 0.5, 1.5);
    let master = of(&vrrp, "vrrp", "VRID 51");
    assert_eq!((master.role.as_deref(), master.remote.as_str()), (Some("master"), "224.0.0.18"));
    assert_eq!((master.local.as_str(), master.multiplier), ("10.9.0.1", Some(3)));
    states(of(&captured("carp"), "carp", "VHID 7"), 2.5, 7.5);
}

#[test]
fn routing_by_frr() {
    let found = captured("routing");
    // The guest sends every 200 ms, but the peer accepts no more than one in 250 ms.
    states(of(&found, "bfd", ""), 0.25, 0.75);
    assert_eq!(of(&found, "bfd", "").direction, FlowDirection::Both);
    states(of(&found, "ospf", "area 0.0.0.3"), 2.0, 7.0);
    states(of(&found, "ospfv3", "area 0.0.0.0"), 1.0, 5.0);
    states(of(&found, "isis", "level 2"), 2.0, 8.0);
    states(of(&found, "eigrp", "224.0.0.10"), 5.0, 15.0);
    // 12 s here, 9 s at the neighbour: the shorter one counts, though each is stated to a group.
    states(of(&found, "ldp-hello", ""), 3.0, 9.0);
    let ldp = of(&found, "ldp", "");
    assert_eq!(ldp.timeout_seconds.known(), Some(&24.0), "30 s here, 24 s at the neighbour: {ldp:#?}");
    let bgp = of(&found, "bgp", "");
    assert_eq!(bgp.timeout_seconds.known(), Some(&9.0), "9 s here, 12 s at the neighbour: {bgp:#?}");
    assert!([&bgp.local, &bgp.remote].iter().any(|end| end.ends_with(":179")), "{bgp:#?}");
    for rip in ["rip", "ripng"] {
        let rip = found
            .iter()
            .find(|session| session.protocol == rip && session.packets_from_guest > 2)
            .unwrap_or_else(|| panic!("{found:#?}"));
        // Of 5 s FRR's ripngd makes 3 to 8 s.
        assert!((2.9..=8.5).contains(&rip.keepalive_gap_seconds), "{rip:#?}");
    }
}

#[test]
fn links_and_clocks() {
    let stp = captured("stp");
    states(of(&stp, "stp", "port 0x8001"), 1.0, 8.0);
    let ptp = captured("ptp");
    states(of(&ptp, "ptp", "domain 24"), 0.5, 1.5);
    let lldp = captured("lldp");
    assert_eq!(of(&lldp, "lldp", "").timeout_seconds.known(), Some(&120.0));
}

#[test]
fn corosync_tells_its_port_and_its_rhythm_only() {
    let found = captured("corosync");
    let corosync = of(&found, "corosync", "");
    assert_eq!((corosync.timeout_seconds.known(), corosync.basis), (None, ControlBasis::None));
    assert!(*corosync.interval_seconds.known().unwrap() < 1.0, "{corosync:#?}");
    assert_eq!((corosync.direction, corosync.local.as_str()), (FlowDirection::Both, "10.9.0.1:5405"));
}

#[test]
fn calls_by_sipp() {
    let found = captured("sip");
    let options = of(&found, "sip-options", "");
    assert_eq!(options.local, "10.9.0.1:5060");
    assert!((0.5..1.5).contains(options.interval_seconds.known().unwrap()), "{options:#?}");
    let rtp = of(&found, "rtp", "payload type 8");
    assert!((0.015..0.03).contains(rtp.interval_seconds.known().unwrap()), "{rtp:#?}");
}
