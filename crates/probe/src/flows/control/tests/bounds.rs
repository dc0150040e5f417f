//! Bounds: no octets make it panic, and no number of sessions makes it grow.

use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::{GUEST, PEER, observe, sessions};
use crate::flows::control::{ControlTable, MOST_SESSIONS};

/// A datagram to a port, from one of many addresses.
fn datagram(from: u32, port: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let packet =
        PacketBuilder::ethernet2(GUEST, PEER).ipv4(from.to_be_bytes(), [10, 0, 0, 9], 64).udp(40_009, port);
    packet.write(&mut frame, payload).unwrap();
    frame
}

#[test]
fn a_hundred_thousand_sessions_take_the_room_of_a_thousand() {
    let mut table = ControlTable::new();
    let media: Vec<u8> = [&[0x80, 8, 0, 1], &[0; 20][..]].concat();
    for from in 0..100_000 {
        observe(&mut table, &datagram(from, 694, &[1; 20]), true, 0.0);
        observe(&mut table, &datagram(from, 40_000, &media), true, 0.0);
    }
    assert_eq!(table.no_room(), 100_000 - MOST_SESSIONS as u64);
    assert_eq!(table.finish().len(), MOST_SESSIONS);
}

#[test]
fn one_session_of_many_packets_keeps_few_times() {
    let mut table = ControlTable::new();
    let frame = datagram(1, 694, &[1; 20]);
    for at in 0..100_000_u32 {
        observe(&mut table, &frame, true, f64::from(at) * 0.25);
    }
    let found = table.finish();
    assert_eq!((found[0].packets_from_guest, found[0].interval_seconds.known()), (100_000, Some(&0.25)));
}

#[test]
fn datagrams_that_only_look_like_rtp_are_no_stream() {
    // Constant sequence numbers, or a new source each time.
    let same: Vec<u8> = [&[0x80, 8, 0, 1], &[0; 20][..]].concat();
    let other = |source: u8| [&[0x80, 8, 0, source, 0, 0, 0, 0, source], &[0; 20][..]].concat();
    let frames: Vec<_> =
        (0..100).flat_map(|at| [datagram(1, 9000, &same), datagram(2, 9000, &other(at))]).collect();
    assert_eq!(sessions(frames.iter().map(|frame| (0.0, frame.as_slice()))), []);
}

/// Frames of which the layers below are in order and the rest is not.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let ports =
        prop::sample::select(vec![179, 319, 520, 646, 1985, 2123, 2152, 3222, 3784, 3868, 5060, 5405, 8805]);
    let protocols = prop::sample::select(vec![88, 89, 112, 132]);
    let kinds = prop::sample::select(vec![38_u16, 0x8809, 0x88cc, 0x88f7, 0x8902, 0x0800, 0x86dd, 0x8100]);
    let payload = prop::collection::vec(any::<u8>(), 0..120);
    let ip = |frame: &mut Vec<u8>, protocol: u8, payload: &[u8]| {
        let packet = PacketBuilder::ethernet2(GUEST, PEER).ipv4([10, 0, 0, 5], [10, 0, 0, 9], 64);
        packet.write(frame, protocol.into(), payload).unwrap();
    };
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        (ports.clone(), payload.clone()).prop_map(|(port, payload)| datagram(7, port, &payload)),
        (ports, payload.clone()).prop_map(|(port, payload)| {
            let mut frame = Vec::new();
            let packet = PacketBuilder::ethernet2(GUEST, PEER).ipv4([10, 0, 0, 5], [10, 0, 0, 9], 64);
            packet.tcp(port, 9, 1, 1).write(&mut frame, &[&[0xff; 16], &payload[..]].concat()).unwrap();
            frame
        }),
        (protocols, prop::sample::select(vec![0x21, 0x31, 0x02, 0x03]), payload.clone()).prop_map(
            move |(protocol, first, payload)| {
                let mut frame = Vec::new();
                ip(&mut frame, protocol, &[&[first], &payload[..]].concat());
                frame
            }
        ),
        (kinds, payload).prop_map(|(kind, payload)| {
            [&PEER[..], &GUEST, &kind.to_be_bytes(), &[0x42, 0x42, 3], &payload].concat()
        }),
    ]
}

proptest! {
    #[test]
    fn no_frame_panics_and_every_time_is_finite(
        frames in prop::collection::vec((frames(), any::<bool>(), 0.0..100.0_f64, 0..200_usize), 1..20)
    ) {
        let mut table = ControlTable::new();
        for (frame, from_guest, now, snap) in &frames {
            observe(&mut table, &frame[..frame.len().min(*snap)], *from_guest, *now);
            observe(&mut table, frame, !*from_guest, *now);
        }
        for session in table.finish() {
            for time in [session.interval_seconds.known(), session.timeout_seconds.known(), Some(&session.keepalive_gap_seconds)] {
                prop_assert!(time.is_none_or(|seconds| seconds.is_finite() && *seconds >= 0.0), "{session:?}");
            }
        }
    }
}
