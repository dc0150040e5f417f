//! Tests of the parser and the flow table, on constructed and on hostile frames.

use proptest::prelude::*;

use crate::flows::{
    directed_flow::{Count, DirectedFlow, Totals},
    parse::{Frame, ParsedFrame, parse},
    table::{Counts, Table},
    tests::frames::{GUEST_MAC, ethernet, fragment, ipv4, ipv6, options, udp, v6},
};

const ENDS: ([u8; 4], [u8; 4]) = ([10, 0, 0, 5], [10, 0, 0, 9]);

pub(super) fn whole(bytes: &[u8]) -> Frame<'_> {
    Frame { bytes, length: bytes.len(), from_guest: true, tag: None, segment_bytes: 0 }
}

/// Counts of the table after these frames, in order.
pub(super) fn counted(frames: &[Vec<u8>]) -> (Counts, Counts, Totals) {
    let mut table = Table::new(1000);
    for (now, frame) in frames.iter().enumerate() {
        table.count(parse(whole(frame)), now as u64);
    }
    table.finish()
}

fn only(frames: &[Vec<u8>]) -> (DirectedFlow, Count) {
    let (directed_flows, _, totals) = counted(frames);
    assert_eq!(totals, Totals::default());
    assert_eq!(directed_flows.len(), 1, "{directed_flows:?}");
    directed_flows[0]
}

#[test]
fn a_datagram_is_counted_with_its_ends_and_its_ip_bytes() {
    let frame = ethernet(true, &[], 0x0800, &ipv4(ENDS, 17, &[], None, &udp(5000, 53, 100)));
    let (directed, count) = only(&[frame.clone(), frame]);
    assert_eq!(directed.source, "10.0.0.5:5000".parse().unwrap());
    assert_eq!(directed.destination, "10.0.0.9:53".parse().unwrap());
    assert!(directed.from_guest);
    assert_eq!((directed.vlan, directed.inner_vlan), (0, 0));
    assert_eq!(
        count,
        Count {
            first_nanoseconds: 0,
            last_nanoseconds: 1,
            packets: 2,
            bytes: 256,
            later_fragments: 0,
            guest_mac: GUEST_MAC,
            ..Count::default()
        }
    );
}

#[test]
fn ipv4_options_are_stepped_over() {
    let frame = ethernet(true, &[], 0x0800, &ipv4(ENDS, 17, &[1; 40], None, &udp(5000, 53, 1)));
    assert_eq!(only(&[frame]).0.destination.port(), 53);
}

#[test]
fn ipv6_extension_headers_are_stepped_over() {
    let authentication = [vec![0, 4], vec![0; 22]].concat();
    let chain = [(0, options(16)), (60, options(8)), (43, options(24)), (51, authentication)];
    let frame = ethernet(true, &[], 0x86dd, &ipv6((v6(1), v6(2)), &chain, 17, &udp(5000, 53, 1)));
    let (directed, count) = only(&[frame]);
    assert_eq!(directed.source, "[fd00::1]:5000".parse().unwrap());
    assert_eq!(count.bytes, 40 + 16 + 8 + 24 + 24 + 9);
}

#[test]
fn vlan_tags_are_read_from_the_frame_and_from_its_metadata() {
    let packet = ipv4(ENDS, 17, &[], None, &udp(1, 2, 0));
    let vlans = |tags: &[(u16, u16)], tag| {
        let bytes = ethernet(true, tags, 0x0800, &packet);
        match parse(Frame { tag, ..whole(&bytes) }) {
            ParsedFrame::Datagram(packet) => Some((packet.directed.vlan, packet.directed.inner_vlan)),
            _ => None,
        }
    };
    assert_eq!(vlans(&[(0x8100, 7)], None), Some((7, 0)));
    assert_eq!(vlans(&[], Some(0x2007)), Some((7, 0)));
    assert_eq!(vlans(&[(0x88a8, 7), (0x8100, 9)], None), Some((7, 9)));
    assert_eq!(vlans(&[(0x8100, 9)], Some(7)), Some((7, 9)));
    assert_eq!(vlans(&[(0x8100, 0x6000)], None), Some((0, 0)), "a priority tag is no VLAN");
    assert_eq!(vlans(&[(0x8100, 1), (0x8100, 2), (0x8100, 3)], None), None);
}

#[test]
fn fragments_join_the_flow_of_the_first() {
    let part = |id, offset, more, bytes: &[u8]| {
        ethernet(true, &[], 0x0800, &ipv4(ENDS, 17, &[], Some((id, offset, more)), bytes))
    };
    let first = part(7, 0, true, &udp(5000, 514, 792));
    let (second, third) = (part(7, 100, true, &[0; 800]), part(7, 200, false, &[0; 80]));
    let total = 3 * 20 + 800 + 800 + 80;
    for order in [[&first, &second, &third], [&third, &second, &first], [&second, &first, &third]] {
        let (directed, count) = only(&order.map(Clone::clone));
        assert_eq!(directed.destination.port(), 514);
        assert_eq!((count.packets, count.bytes, count.later_fragments), (3, total, 2));
    }
    let (directed_flows, _, totals) = counted(&[part(8, 100, true, &[0; 800]), first]);
    assert_eq!(directed_flows.len(), 1);
    assert_eq!((totals.stray_packets, totals.stray_bytes), (1, 820));
}

#[test]
fn ipv6_fragments_join_the_flow_of_the_first_even_behind_other_headers() {
    let part = |offset, more, next, bytes: &[u8]| {
        let chain = [(44, fragment(77, offset, more))];
        ethernet(true, &[], 0x86dd, &ipv6((v6(1), v6(2)), &chain, next, bytes))
    };
    let first = part(0, true, 60, &[&[17, 0, 0, 0, 0, 0, 0, 0][..], &udp(5000, 514, 800)].concat());
    let later = part(102, false, 60, &[0; 100]);
    let (directed, count) = only(&[first, later]);
    assert_eq!(directed.source.port(), 5000);
    assert_eq!((count.packets, count.later_fragments), (2, 1));
}

#[test]
fn an_offloaded_packet_counts_as_what_it_becomes() {
    let bytes = ethernet(true, &[], 0x0800, &ipv4(ENDS, 17, &[], None, &udp(1, 2, 2500)));
    let ParsedFrame::Datagram(packet) = parse(Frame { segment_bytes: 1000, ..whole(&bytes) }) else {
        panic!()
    };
    assert_eq!((packet.packets, packet.bytes), (3, 2500 + 3 * 28));
}

#[test]
fn what_was_cut_off_by_the_capture_is_not_called_malformed() {
    let bytes = ethernet(true, &[], 0x0800, &ipv4(ENDS, 17, &[], None, &udp(1, 2, 0)));
    let cut = &bytes[..36];
    assert_eq!(parse(Frame { length: bytes.len(), ..whole(cut) }), ParsedFrame::TooDeep);
    assert_eq!(parse(whole(cut)), ParsedFrame::Malformed);
}

#[test]
fn endless_fragments_do_not_fill_memory() {
    let part = |id, offset, bytes: &[u8]| {
        ethernet(true, &[], 0x0800, &ipv4(ENDS, 17, &[], Some((id, offset, offset == 0)), bytes))
    };
    let mut frames: Vec<_> = (0..5000).map(|id| part(id, 0, &udp(5000, 514, 8))).collect();
    frames.extend([part(0, 2, &[0; 8]), part(4999, 2, &[0; 8])]);
    let (directed_flows, _, totals) = counted(&frames);
    assert_eq!(
        (directed_flows[0].1.later_fragments, totals.stray_packets),
        (1, 1),
        "the oldest is forgotten"
    );
}

#[test]
fn a_full_table_says_so() {
    let mut table = Table::new(2);
    for port in 1..=5 {
        let frame = ethernet(true, &[], 0x0800, &ipv4(ENDS, 17, &[], None, &udp(port, 53, 0)));
        table.count(parse(whole(&frame)), 0);
    }
    let (directed_flows, _, totals) = table.finish();
    assert_eq!((directed_flows.len(), totals.no_room), (2, 3));
}

/// Bytes that look enough like a packet to get deep into the parser.
pub(crate) fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![
        5 => Just(0x0800_u16), 5 => Just(0x86dd), 1 => Just(0x8100), 1 => Just(0x88a8), 1 => any::<u16>()
    ];
    let number = prop_oneof![
        4 => Just(17_u8), 3 => Just(6), 1 => Just(44), 1 => Just(51), 1 => Just(0), 1 => Just(60), 1 => Just(43), 1 => any::<u8>()
    ];
    let tags =
        prop::collection::vec((prop_oneof![Just(0x8100_u16), Just(0x88a8), Just(0x9100)], 0..4096_u16), 0..4);
    let chain = prop::collection::vec((number.clone(), 0..3_u8, any::<[u8; 6]>()), 0..10);
    let rest = prop::collection::vec(any::<u8>(), 0..80);
    (kind, tags, number, chain, rest, any::<[u8; 20]>(), any::<bool>()).prop_map(
        |(kind, tags, last, chain, rest, noise, sane)| {
            let mut packet = if kind == 0x86dd {
                let chain: Vec<_> = chain
                    .into_iter()
                    .map(|(number, length, tail)| {
                        let mut bytes = vec![0, if number == 44 { 0 } else { length }];
                        bytes.extend(tail);
                        bytes.resize(if number == 44 { 8 } else { 8 + 8 * usize::from(length) }, 0);
                        if number == 44 {
                            bytes[2..].copy_from_slice(&[0, tail[1] & 0x1f, 0, 0, 0, tail[5] & 1]);
                        }
                        (number, bytes)
                    })
                    .collect();
                // Few addresses and identifications, so that fragments meet.
                ipv6((v6(noise[0] & 1), v6(9)), &chain, last, &rest)
            } else {
                let part = (u16::from(noise[2] & 1), u16::from(noise[3] & 3), noise[3] & 4 != 0);
                let fragment = (noise[1] & 1 == 1).then_some(part);
                let options = vec![1; usize::from(noise[4] & 7) * 4];
                ipv4(([10, 0, 0, noise[0] & 1], [10, 0, 0, 9]), last, &options, fragment, &rest)
            };
            if !sane {
                // A few bytes overwritten, the end cut off.
                for pair in noise[8..].chunks(2) {
                    let at = usize::from(pair[0]);
                    if let Some(byte) = packet.get_mut(at) {
                        *byte = pair[1];
                    }
                }
                packet.truncate(usize::from(noise[5]));
            }
            ethernet(true, &tags, kind, &packet)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_bytes_make_the_parser_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        length in 0..70_000_usize,
        tag in any::<Option<u16>>(),
        segment_bytes in any::<u16>(),
    ) {
        parse(Frame { bytes: &bytes, length: length.max(bytes.len()), from_guest: false, tag, segment_bytes });
    }

    #[test]
    fn no_packet_claims_more_bytes_than_its_frame_has(frame in hostile()) {
        if let ParsedFrame::Datagram(packet) | ParsedFrame::LaterFragment(packet) = parse(whole(&frame)) {
            prop_assert!(packet.bytes <= frame.len() as u64);
            prop_assert_eq!(packet.packets, 1);
        }
    }

    #[test]
    fn every_packet_is_counted_exactly_once(frames in prop::collection::vec(hostile(), 0..20)) {
        let (directed_flows, streams, totals) = counted(&frames);
        let parsed: Vec<_> = frames.iter().map(|frame| parse(whole(frame))).collect();
        let flows: u64 = directed_flows.iter().chain(&streams).map(|(_, count)| count.packets).sum();
        let other = parsed.iter().filter(|one| matches!(one, ParsedFrame::Other)).count() as u64;
        let vague = parsed
            .iter()
            .filter(|one| matches!(one, ParsedFrame::LaterFragment(packet) if !packet.surely_udp))
            .count() as u64;
        let counted = flows + totals.malformed + totals.too_deep + totals.stray_packets + other;
        prop_assert!(counted <= frames.len() as u64 && counted + vague >= frames.len() as u64);
    }
}
