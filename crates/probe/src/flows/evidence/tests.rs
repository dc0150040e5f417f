//! Tests of the evidence on constructed frames, and on hostile ones.

use proptest::prelude::*;
use vmgate_facts::{Opener, SystemFamily};

use super::*;
use crate::flows::{
    table::Table,
    tests::{ethernet, hostile, ipv4},
};

const GUEST: [u8; 4] = [10, 0, 0, 5];
const PEER: [u8; 4] = [10, 0, 0, 9];
const SECOND: u64 = 1_000_000_000;

/// Evidence of these frames, with the counts of the same.
fn shown(frames: &[(bool, u64, Vec<u8>)]) -> Wire {
    let (mut evidence, mut table) = (Evidence::new(), Table::new(100));
    for (from_guest, at, bytes) in frames {
        let frame =
            Frame { bytes, length: bytes.len(), from_guest: *from_guest, tag: None, segment_bytes: 0 };
        table.count(crate::flows::parse::parse(frame), *at);
        evidence.observe(frame, *at);
    }
    let (_, streams, _) = table.finish();
    evidence.finish(Counts {
        interface: "tap0",
        streams: &streams,
        begin: 0,
        end: 10 * SECOND,
        holes: Vec::new(),
    })
}

fn hops(mut packet: Vec<u8>, hops: u8) -> Vec<u8> {
    packet[8] = hops;
    packet
}

/// A TCP segment: ports, sequence and acknowledgement, flags, options in whole words, bytes of data.
fn segment(ports: (u16, u16), numbers: (u32, u32), flags: u8, options: &[u8], data: usize) -> Vec<u8> {
    let mut header = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    header.extend(numbers.0.to_be_bytes());
    header.extend(numbers.1.to_be_bytes());
    header.extend([u8::try_from((20 + options.len()) / 4).unwrap() << 4, flags, 250, 0, 0, 0, 0, 0]);
    header.extend(options);
    header.extend(vec![0; data]);
    header
}

fn from_guest(at: u64, protocol: u8, payload: &[u8]) -> (bool, u64, Vec<u8>) {
    (true, at, ethernet(true, &[], 0x0800, &ipv4((GUEST, PEER), protocol, &[], None, payload)))
}

fn to_guest(at: u64, protocol: u8, payload: &[u8]) -> (bool, u64, Vec<u8>) {
    (false, at, ethernet(false, &[], 0x0800, &ipv4((PEER, GUEST), protocol, &[], None, payload)))
}

const LINUX: [u8; 20] = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
const WINDOWS: [u8; 12] = [2, 4, 5, 180, 1, 3, 3, 8, 1, 1, 4, 2];
const FREEBSD: [u8; 20] = [2, 4, 5, 180, 1, 3, 3, 6, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0];

#[test]
fn a_connection_has_its_ends_its_opener_and_its_round_trip() {
    let (syn, ack) = (0x02, 0x10);
    let wire = shown(&[
        from_guest(100, 6, &segment((41_000, 5432), (1000, 0), syn, &LINUX, 0)),
        to_guest(400_100, 6, &segment((5432, 41_000), (7000, 1001), syn | ack, &[], 0)),
        from_guest(400_200, 6, &segment((41_000, 5432), (1001, 7001), ack, &[], 100)),
        // Lost, and sent again.
        from_guest(200_400_200, 6, &segment((41_000, 5432), (1001, 7001), ack, &[], 100)),
        to_guest(200_900_200, 6, &segment((5432, 41_000), (7001, 1101), ack, &[], 0)),
    ]);
    let [one] = &wire.tcp[..] else { panic!("{:?}", wire.tcp) };
    assert_eq!((&*one.local, &*one.remote), ("10.0.0.5:41000", "10.0.0.9:5432"));
    assert_eq!((one.opened_by, one.opening_seen, one.closing_seen), (Opener::Guest, true, false));
    assert_eq!((one.packets_from_guest, one.packets_to_guest), (3, 2));
    assert_eq!((one.sent_again_by_guest, one.sent_again_by_peer), (1, 0));
    assert_eq!(one.rtt_seconds, Fact::Known(0.000_4));
    assert_eq!(one.service.as_deref(), Some("PostgreSQL"));
    assert!(one.age_seconds.known().is_some());
    assert_eq!(wire.system.family, Fact::Known(SystemFamily::Linux));
    assert_eq!(wire.addresses, ["10.0.0.5"]);
}

#[test]
fn without_its_opening_the_ports_tell_who_opened_a_connection_and_its_age_is_unknown() {
    let wire = shown(&[
        from_guest(0, 6, &segment((179, 50_000), (1, 1), 0x10, &[], 19)),
        to_guest(1, 6, &segment((50_000, 179), (1, 20), 0x11, &[], 0)),
    ]);
    let one = &wire.tcp[0];
    assert_eq!((one.opened_by, one.opening_seen, one.closing_seen), (Opener::Peer, false, true));
    assert_eq!(one.service.as_deref(), Some("BGP"));
    assert!(one.age_seconds.known().is_none());
}

#[test]
fn keepalives_are_told_from_data_and_are_no_repetitions() {
    let ack = |numbers| segment((41_000, 22), numbers, 0x10, &[], 0);
    let answer = |numbers| segment((22, 41_000), numbers, 0x10, &[], 0);
    let wire = shown(&[
        from_guest(0, 6, &ack((999, 500))),
        to_guest(1, 6, &answer((500, 1000))),
        from_guest(SECOND, 6, &ack((999, 500))),
        to_guest(SECOND + 1, 6, &answer((500, 1000))),
        from_guest(2 * SECOND, 6, &ack((999, 500))),
    ]);
    let one = &wire.tcp[0];
    assert_eq!((one.keepalives_from_guest, one.keepalives_to_guest, one.sent_again_by_guest), (2, 0, 0));
}

#[test]
fn a_connection_that_the_guest_forwards_is_told_by_its_ttl() {
    let forwarded = |ttl| {
        let packet = ipv4((GUEST, PEER), 6, &[], None, &segment((41_000, 80), (1, 0), 0x10, &[], 9));
        shown(&[(true, 0, ethernet(true, &[], 0x0800, &hops(packet, ttl)))]).tcp[0].forwarded
    };
    assert!(forwarded(63) && !forwarded(64) && !forwarded(128));
}

#[test]
fn a_scan_that_nobody_answers_is_no_connection() {
    assert_eq!(shown(&[to_guest(0, 6, &segment((4000, 80), (1, 0), 0x02, &[], 0))]).tcp, Vec::new());
}

#[test]
fn the_system_is_told_by_ttl_and_options_and_by_nothing_else() {
    let family = |options: &[u8], ttl| {
        let packet = ipv4((GUEST, PEER), 6, &[], None, &segment((41_000, 80), (1, 0), 0x02, options, 0));
        let wire = shown(&[(true, 0, ethernet(true, &[], 0x0800, &hops(packet, ttl)))]);
        wire.system.family.known().copied()
    };
    assert_eq!(family(&LINUX, 64), Some(SystemFamily::Linux));
    assert_eq!(family(&FREEBSD, 64), Some(SystemFamily::Freebsd));
    assert_eq!(family(&WINDOWS, 128), Some(SystemFamily::Windows));
    assert_eq!(family(&WINDOWS, 64), None);
    assert_eq!(family(&LINUX, 63), None, "a forwarded packet is another's");
    assert_eq!(family(&[2, 0, 0, 0], 64), None, "an option of length 0 ends nothing in a loop");
}

#[test]
fn groups_are_what_was_reported_and_not_left_and_all_only_after_a_query() {
    let group = [239, 1, 2, 3];
    let report = |kind: u8, group: [u8; 4]| [&[kind, 0, 0, 0][..], &group].concat();
    let v3 = [&[0x22, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0][..], &[239, 9, 9, 9]].concat();
    let wire = shown(&[from_guest(0, 2, &report(0x16, group)), from_guest(1, 2, &v3)]);
    let names: Vec<_> = wire.groups.iter().map(|group| (&*group.address, &*group.reported_by)).collect();
    assert_eq!(names, [("239.1.2.3", "IGMPv2"), ("239.9.9.9", "IGMPv3")]);
    assert!(!wire.groups_complete);

    let left = shown(&[from_guest(0, 2, &report(0x16, group)), from_guest(1, 2, &report(0x17, group))]);
    assert_eq!(left.groups, Vec::new());
    let foreign = shown(&[to_guest(0, 2, &report(0x16, group))]);
    assert_eq!(foreign.groups, Vec::new(), "another's report");
}

#[test]
fn a_lease_is_that_of_the_guest() {
    let lease = |client: [u8; 6]| {
        let mut message = vec![2, 1, 6, 0];
        message.resize(240, 0);
        message[16..20].copy_from_slice(&GUEST);
        message[28..34].copy_from_slice(&client);
        message[236..240].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
        message.extend([53, 1, 5, 51, 4, 0, 0, 14, 16, 54, 4, 10, 0, 0, 1, 255]);
        let length = u16::try_from(message.len() + 8).unwrap().to_be_bytes();
        let udp = [&[0, 67, 0, 68][..], &length, &[0, 0], &message].concat();
        let hello = from_guest(0, 6, &segment((41_000, 80), (1, 0), 0x02, &LINUX, 0));
        shown(&[hello, to_guest(1, 17, &udp)]).leases
    };
    let own = lease([0x52, 0x54, 0, 0, 0, 1]);
    assert_eq!((&*own[0].address, &*own[0].server), ("10.0.0.5", "10.0.0.1"));
    assert_eq!(own[0].renews_after_seconds, Fact::Known(1800.0));
    assert_eq!(lease([0x52, 0x54, 0, 0, 0, 9]), Vec::new(), "a broadcast answer to another client");
}

#[test]
fn leases_of_ipv6_are_addresses_and_prefixes_with_their_times() {
    let own = [0x52, 0x54, 0, 0, 0, 1];
    let option = |code: u16, body: &[u8]| {
        [&code.to_be_bytes()[..], &u16::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
    };
    let times = |numbers: [u32; 2]| numbers.map(u32::to_be_bytes).concat();
    let address = |last: u8| [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[last]].concat();
    let leased = |last, valid| option(5, &[address(last), times([3000, valid])].concat());
    let named = |t1, inside: Vec<u8>| [vec![0, 0, 0, 9], times([t1, 0]), inside].concat();
    let prefix = option(26, &[times([400, 800]), vec![56], address(0)].concat());
    let reply = [
        vec![7, 1, 2, 3],
        option(1, &[0; 14]),
        option(3, &named(1000, [leased(5, 4000), leased(6, 0)].concat())),
        option(25, &named(0, prefix)),
        vec![0, 3, 0xff],
    ]
    .concat();
    let leases = |to: [u8; 6]| {
        let packet = etherparse::PacketBuilder::ethernet2([2; 6], to).ipv6([0xfe; 16], [0xfd; 16], 64);
        let mut frame = Vec::new();
        packet.udp(547, 546).write(&mut frame, &reply).unwrap();
        shown(&[from_guest(0, 6, &segment((41_000, 80), (1, 0), 0x02, &LINUX, 0)), (false, 1, frame)]).leases
    };
    let seen = leases(own).into_iter().map(|lease| {
        (lease.address, lease.lease_seconds.known().copied(), lease.renews_after_seconds.known().copied())
    });
    // An address with a lifetime of 0 was taken back; the times of the prefix are the client's to choose.
    assert_eq!(
        seen.collect::<Vec<_>>(),
        [
            ("2001:db8::/56".to_owned(), Some(800.0), Some(200.0)),
            ("2001:db8::5".to_owned(), Some(4000.0), Some(1000.0))
        ]
    );
    assert_eq!(leases([0x52, 0x54, 0, 0, 0, 9]), Vec::new(), "another client's");
}

#[test]
fn questions_answers_and_announcements_of_neighbours_are_counted() {
    let arp = |operation: u8, sender: [u8; 4], target: [u8; 4]| {
        let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation, 0, 0, 0, 0, 0, 0];
        packet.extend(sender);
        packet.extend([0; 6]);
        packet.extend(target);
        packet
    };
    let wire = shown(&[
        (true, 0, ethernet(true, &[], 0x0806, &arp(1, GUEST, GUEST))),
        (false, 1, ethernet(false, &[], 0x0806, &arp(1, PEER, GUEST))),
        (true, 2, ethernet(true, &[], 0x0806, &arp(2, GUEST, PEER))),
        (false, 3, ethernet(false, &[], 0x0806, &arp(1, PEER, [10, 0, 0, 77]))),
    ]);
    let seen = wire.neighbours;
    assert_eq!((seen.questions, seen.answers, seen.announcements), (1, 1, 1));
}

proptest! {
    #[test]
    fn nothing_on_the_wire_makes_the_evidence_panic_or_grow(
        frames in prop::collection::vec((hostile(), any::<bool>(), any::<Option<u16>>(), 0..20 * SECOND), 0..80)
    ) {
        let mut evidence = Evidence::new();
        for (bytes, from_guest, tag, at) in &frames {
            let cut = Frame { bytes, length: bytes.len() + 9, from_guest: *from_guest, tag: *tag, segment_bytes: 0 };
            evidence.observe(cut, *at);
        }
        let counts = Counts { interface: "tap0", streams: &[], begin: 0, end: SECOND, holes: Vec::new() };
        let wire = evidence.finish(counts);
        prop_assert_eq!(wire.packets_read, frames.len() as u64);
        prop_assert!(wire.addresses.len() <= 2 * MOST_ADDRESSES && wire.groups.len() <= 1024);
    }
}
