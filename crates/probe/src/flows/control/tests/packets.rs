//! Packets that no daemon of Debian sends, made by hand; and what becomes of a session over its packets.

use etherparse::{IpNumber, PacketBuilder};
use vmgate_facts::{ControlBasis, FlowDirection};

use super::{GUEST, PEER, session, sessions};

const HERE: [u8; 4] = [10, 0, 0, 5];
const THERE: [u8; 4] = [10, 0, 0, 9];

fn udp(from_guest: bool, group: [u8; 4], port: u16, payload: &[u8]) -> Vec<u8> {
    let (mac, source) = if from_guest { (GUEST, HERE) } else { (PEER, THERE) };
    let destination = match (from_guest, group) {
        (false, THERE) => HERE,
        (_, group) => group,
    };
    let (from, to) = if from_guest { (40000, port) } else { (port, 40000) };
    let mut frame = Vec::new();
    let packet =
        PacketBuilder::ethernet2(mac, [1, 0, 0x5e, 0, 0, 2]).ipv4(source, destination, 1).udp(from, to);
    packet.write(&mut frame, payload).unwrap();
    frame
}

fn tcp(from_guest: bool, port: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    if from_guest {
        let packet = PacketBuilder::ethernet2(GUEST, PEER).ipv4(HERE, THERE, 64).tcp(40000, port, 1, 1000);
        packet.ack(1).write(&mut frame, payload).unwrap();
    } else {
        let packet = PacketBuilder::ethernet2(PEER, GUEST).ipv4(THERE, HERE, 64).tcp(port, 40000, 1, 1000);
        packet.ack(1).write(&mut frame, payload).unwrap();
    }
    frame
}

fn link(from_guest: bool, kind: u16, payload: &[u8]) -> Vec<u8> {
    let source = if from_guest { GUEST } else { PEER };
    [&[1, 0x80, 0xc2, 0, 0, 2], &source[..], &kind.to_be_bytes(), payload].concat()
}

#[test]
fn hsrp_and_glbp_state_hello_and_hold_time() {
    let v1 = [0, 0, 16, 1, 4, 100, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1];
    let found = session(&[udp(true, [224, 0, 0, 2], 1985, &v1)]);
    assert_eq!((found.timeout_seconds.known(), found.interval_seconds.known()), (Some(&4.0), Some(&1.0)));
    assert_eq!((found.role.as_deref(), found.identity.as_str()), (Some("active"), "group 7"));

    let mut v2 = vec![1, 40, 2, 0, 5, 4, 1, 0x2c];
    v2.extend([0; 10]);
    v2.extend(250_u32.to_be_bytes());
    v2.extend(750_u32.to_be_bytes());
    v2.extend([0; 16]);
    let found = session(&[udp(true, [224, 0, 0, 102], 1985, &v2)]);
    assert_eq!((found.timeout_seconds.known(), found.interval_seconds.known()), (Some(&0.75), Some(&0.25)));
    assert_eq!((found.role.as_deref(), found.identity.as_str()), (Some("standby"), "group 300"));
    v2[4] = 3;
    assert!(!session(&[udp(true, [224, 0, 0, 102], 1985, &v2)]).active, "nobody waits for a listener");

    let mut glbp = vec![1, 0, 0, 9, 0, 0, 1, 2, 3, 4, 5, 6];
    glbp.extend([3, 4, 0, 0]);
    glbp.extend([1, 28, 0, 32, 0, 100, 0, 0]);
    glbp.extend(3000_u32.to_be_bytes());
    glbp.extend(10_000_u32.to_be_bytes());
    glbp.extend([0; 12]);
    let found = session(&[udp(true, [224, 0, 0, 102], 3222, &glbp)]);
    assert_eq!((found.timeout_seconds.known(), found.interval_seconds.known()), (Some(&10.0), Some(&3.0)));
    assert_eq!((found.role.as_deref(), found.identity.as_str()), (Some("active"), "group 9"));
}

#[test]
fn the_partner_of_lacp_states_its_own_time_out() {
    let pdu = |actor: u8, partner: u8| {
        let mut pdu = [0; 110];
        pdu[..4].copy_from_slice(&[1, 1, 1, 20]);
        (pdu[17], pdu[18], pdu[22], pdu[23], pdu[38]) = (3, actor, 2, 20, partner);
        pdu
    };
    // The guest is patient; its partner is not, and the guest sends at its rate.
    let found = session(&[link(true, 0x8809, &pdu(0x3d, 0x3f))]);
    assert_eq!((found.timeout_seconds.known(), found.interval_seconds.known()), (Some(&3.0), Some(&1.0)));
    assert!(found.active);
    let found = session(&[link(true, 0x8809, &pdu(0x3f, 0x3d))]);
    assert_eq!(found.timeout_seconds.known(), Some(&90.0));
    assert!(!session(&[link(true, 0x8809, &pdu(0x07, 0x3d))]).active, "no traffic is distributed yet");
}

#[test]
fn a_continuity_check_states_its_interval() {
    let mut check = vec![0x60, 1, 3, 70];
    check.extend([0; 4]);
    check.extend([0, 12]);
    check.extend([0; 60]);
    let found = session(&[link(true, 0x8902, &check)]);
    assert_eq!((found.interval_seconds.known(), found.identity.as_str()), (Some(&0.1), "MEP 12"));
    assert!((found.timeout_seconds.known().unwrap() - 0.35).abs() < 1e-9);
}

#[test]
fn a_rapid_bpdu_is_missed_after_three_hellos() {
    let mut bpdu = vec![0x42, 0x42, 3, 0, 0, 2, 2, 0];
    bpdu.extend([0; 20]);
    bpdu.extend([0x80, 2, 0, 0, 20, 0, 2, 0, 15, 0, 0]);
    let found = session(&[link(true, 39, &bpdu)]);
    assert_eq!((found.timeout_seconds.known(), found.identity.as_str()), (Some(&6.0), "port 0x8002"));
}

fn bgp(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(19 + body.len()).unwrap().to_be_bytes();
    [&[0xff; 16], &length[..], &[kind], body].concat()
}

#[test]
fn bgp_that_was_open_before_shows_its_rhythm() {
    let keepalive = bgp(4, &[]);
    let update = bgp(2, &[0; 4]);
    let frames: Vec<_> = [&keepalive, &update].map(|message| tcp(true, 179, message)).into();
    let observed = |at: &[(f64, usize)]| {
        let mut found = sessions(at.iter().map(|(now, frame)| (*now, frames[*frame].as_slice())));
        assert_eq!(found.len(), 1);
        found.remove(0)
    };
    // A keep-alive every 3 s: alone, between updates, and where only one was seen in 10 s.
    let found = observed(&[(0.5, 0), (3.5, 0), (6.5, 0)]);
    assert_eq!((found.timeout_seconds.known(), found.basis), (None, ControlBasis::None));
    assert!((found.keepalive_gap_seconds - 3.0).abs() < 1e-9, "{found:?}");
    assert_eq!((found.local.as_str(), found.remote.as_str()), ("10.0.0.5", "10.0.0.9:179"));
    let busy = observed(&[(0.5, 0), (1.0, 1), (3.4, 1), (3.5, 0), (3.6, 1)]);
    assert!((busy.keepalive_gap_seconds - 3.0).abs() < 1e-9, "{busy:?}");
    let once = observed(&[(4.0, 0)]);
    assert!((once.keepalive_gap_seconds - 4.0).abs() < 1e-9, "{once:?}");
    let hidden = observed(&[(0.1, 1), (0.2, 1), (0.3, 0), (0.4, 1)]);
    assert!(hidden.keepalive_gap_seconds < 1e-9, "updates tell nothing: {hidden:?}");

    let open = |hold: u16| bgp(1, &[&[4, 0, 1], &hold.to_be_bytes()[..], &[0; 5]].concat());
    let both = |mine, theirs| session(&[tcp(true, 179, &open(mine)), tcp(false, 179, &open(theirs))]);
    assert_eq!(both(180, 9).timeout_seconds.known(), Some(&9.0));
    assert_eq!(both(9, 180).timeout_seconds.known(), Some(&9.0));
    assert_eq!(both(0, 0).timeout_seconds.known(), Some(&1e9), "a hold time of 0 is none");
}

#[test]
fn a_session_that_only_others_send_has_no_time_out_for_the_guest() {
    let hello =
        [2, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 12, 1, 0, 1, 0, 0, 0, 0, 15];
    let mut frame = Vec::new();
    let packet = PacketBuilder::ethernet2(PEER, [1, 0, 0x5e, 0, 0, 10]).ipv4(THERE, [224, 0, 0, 10], 1);
    packet.write(&mut frame, IpNumber::EIGRP, &hello).unwrap();
    let found = session(&[frame]);
    assert_eq!((found.direction, found.timeout_seconds.known()), (FlowDirection::ToGuest, None));
    assert_eq!((found.local.as_str(), found.remote.as_str()), ("224.0.0.10", "10.0.0.9"));
}

#[test]
fn telecom_protocols_are_told_by_their_echoes() {
    let found = session(&[
        udp(true, THERE, 2152, &[0x32, 1, 0, 4, 0, 0, 0, 0]),
        udp(false, THERE, 2152, &[0x32, 2, 0, 4]),
    ]);
    assert_eq!((found.protocol.as_str(), found.direction), ("gtp-u", FlowDirection::Both));
    assert_eq!(sessions([(0.0, &udp(true, THERE, 2152, &[0x30, 255, 0, 4])[..])]), [], "user data");
    assert_eq!(session(&[udp(true, THERE, 8805, &[0x20, 1, 0, 12])]).protocol, "pfcp");
    assert_eq!(session(&[udp(true, THERE, 2123, &[0x40, 1, 0, 9])]).protocol, "gtp-c");

    let message = |code: u32| [&[1, 0, 0, 20], &(0x8000_0000 | code).to_be_bytes()[..], &[0; 12]].concat();
    let frames: Vec<_> = [280, 272, 280].map(|code| tcp(true, 3868, &message(code))).into();
    let at = [0.0, 1.0, 7.0];
    let found = sessions(at.into_iter().zip(frames.iter().map(Vec::as_slice)));
    assert!((found[0].keepalive_gap_seconds - 7.0).abs() < 1e-9, "{found:?}");
}

#[test]
fn the_same_service_of_two_vlans_is_two_sessions() {
    let mut tagged = udp(true, [224, 0, 0, 2], 1985, &[0, 0, 16, 1, 4, 100, 7, 0]);
    let untagged = tagged.clone();
    tagged.splice(12..12, [0x81, 0, 0x60, 7]);
    let found = sessions([(0.0, &tagged[..]), (1.0, &untagged[..])]);
    assert_eq!(found.iter().map(|session| session.vlan).collect::<Vec<_>>(), [None, Some(7)]);
}

#[test]
fn a_port_alone_proves_no_cluster() {
    let pair = |source: u16, destination: u16| {
        let mut frame = Vec::new();
        let packet = PacketBuilder::ethernet2(GUEST, PEER).ipv4(HERE, THERE, 64).udp(source, destination);
        packet.write(&mut frame, &[7; 40]).unwrap();
        let found = sessions([(0.0, &frame[..])]);
        found.into_iter().next().map(|session| session.protocol)
    };
    assert_eq!(pair(5405, 5405).as_deref(), Some("corosync"));
    assert_eq!(pair(5404, 5405).as_deref(), Some("corosync"));
    assert_eq!(pair(40_000, 694).as_deref(), Some("heartbeat"));
    // A resolver takes any port for a question.
    for (source, destination) in [(5405, 53), (53, 7946), (3343, 123), (42424, 443), (7500, 53)] {
        assert_eq!(pair(source, destination), None, "{source} -> {destination}");
    }
    assert_eq!(session(&[tcp(true, 7789, &[0x86, 0x20, 0xec, 0x20, 0, 0])]).protocol, "drbd");
    assert_eq!(sessions([(0.0, &tcp(true, 7789, b"GET / HTTP/1.1")[..])]), []);
    assert_eq!(session(&[tcp(true, 2380, &[0x17, 3, 3])]).protocol, "etcd");
}
