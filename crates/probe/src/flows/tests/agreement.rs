//! Equality of the counter in the kernel and the one in the process: both run on the same frames.

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::flows::{
    bpf::{COUNT_BYTES, Clock, KEY_BYTES, Map, MapKind, Maps, PART_BYTES, TOTAL_BYTES, assemble, trial},
    directed_flow::Totals,
    filter::SNAP_BYTES,
    interface::GuestEnd,
    kernel_counter::Counter,
    table::Counts,
    tests::{
        frames::{ethernet, ipv4, ipv6, options, udp, v6},
        parsing::{counted, hostile},
    },
};

type Outcome = (Counts, Counts, Totals);

/// The counts without times, and without the frames that only the kernel counts.
fn comparable((mut directed_flows, mut streams, totals): Outcome) -> Outcome {
    for counts in [&mut directed_flows, &mut streams] {
        for (_, count) in counts.iter_mut() {
            (count.first_nanoseconds, count.last_nanoseconds) = (0, 0);
        }
        counts.sort_by_key(|(directed, _)| *directed);
    }
    (directed_flows, streams, Totals { frames: None, unseen: 0, ..totals })
}

#[test]
#[ignore = "needs root: make test runs it"]
fn the_kernel_and_the_parser_count_hostile_frames_alike() {
    let mut runner = TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    runner
        .run(&prop::collection::vec(hostile(), 1..60), |frames| {
            let counter = Counter::load(GuestEnd::Peer, 1000).unwrap();
            for frame in &frames {
                let passed = trial::run(counter.program(), frame, 0).unwrap();
                prop_assert!(passed == 0 || passed == SNAP_BYTES, "{}", passed);
            }
            let kernel = counter.read().unwrap();
            prop_assert_eq!(kernel.2.frames, Some(frames.len() as u64));
            prop_assert_eq!(comparable(kernel), comparable(counted(&frames)));
            Ok(())
        })
        .unwrap();
}

#[test]
#[ignore = "needs root: make test runs it"]
fn the_kernel_counts_an_offloaded_packet_as_what_it_becomes() {
    let ends = ([10, 0, 0, 5], [10, 0, 0, 9]);
    let frame = ethernet(true, &[], 0x0800, &ipv4(ends, 17, &[], None, &udp(1, 2, 1400)));
    let counter = Counter::load(GuestEnd::Peer, 10).unwrap();
    trial::run(counter.program(), &frame, 600).unwrap();
    let (directed_flows, _, _) = counter.read().unwrap();
    assert_eq!((directed_flows[0].1.packets, directed_flows[0].1.bytes), (3, 1400 + 3 * 28));
}

#[test]
#[ignore = "needs root: make test runs it"]
fn the_kernel_says_when_its_table_is_full() {
    let counter = Counter::load(GuestEnd::Peer, 2).unwrap();
    for port in 1..=5 {
        let ends = ([10, 0, 0, 5], [10, 0, 0, 9]);
        let frame = ethernet(true, &[], 0x0800, &ipv4(ends, 17, &[], None, &udp(port, 53, 0)));
        trial::run(counter.program(), &frame, 0).unwrap();
    }
    let (directed_flows, _, totals) = counter.read().unwrap();
    assert_eq!((directed_flows.len(), totals.no_room), (2, 3));
}

#[test]
#[ignore = "needs root: make test runs it"]
fn the_kernel_accepts_the_program_for_both_ends() {
    let ends = [GuestEnd::Peer, GuestEnd::Interface];
    for (guest, clock) in ends.into_iter().zip([Clock::Coarse, Clock::Exact]) {
        let map = |kind, value| Map::create(kind, KEY_BYTES, value, 10).unwrap();
        let (flows, parts) = (map(MapKind::Hash, COUNT_BYTES), map(MapKind::LruHash, PART_BYTES));
        let totals = Map::create(MapKind::Array, 4, TOTAL_BYTES, 1).unwrap();
        let maps =
            Maps { flows: flows.raw(), streams: flows.raw(), parts: parts.raw(), totals: totals.raw() };
        assert_eq!(trial::refusal(&assemble(maps, guest, clock).unwrap()), None);
    }
}

#[test]
fn the_program_fits_old_kernels_limit() {
    let code =
        assemble(Maps { flows: 0, streams: 0, parts: 0, totals: 0 }, GuestEnd::Peer, Clock::Exact).unwrap();
    assert!(code.len() <= 4096, "{} instructions", code.len());
}

#[test]
#[ignore = "needs root: make test runs it"]
fn a_packet_costs_the_kernel_little() {
    let ends = ([10, 0, 0, 5], [10, 0, 0, 9]);
    let counter = Counter::load(GuestEnd::Peer, 1000).unwrap();
    let cost = |kind, packet: &[u8]| {
        let frame = ethernet(true, &[], kind, packet);
        let once = || trial::repeat(counter.program(), &frame, 0, 20_000).unwrap().1;
        (0..50).map(|_| once()).min().unwrap()
    };
    let tcp = cost(0x0800, &ipv4(ends, 6, &[], None, &udp(1, 2, 64)));
    let plain = cost(0x0800, &ipv4(ends, 17, &[], None, &udp(1, 2, 64)));
    let long = cost(0x86dd, &ipv6((v6(1), v6(2)), &[(0, options(8)), (60, options(8))], 17, &udp(1, 2, 64)));
    println!("nanoseconds a packet: TCP {tcp}, UDP {plain}, UDP behind two IPv6 extension headers {long}");
    // Far above what was ever seen, far below what would hurt a guest.
    assert!(tcp.max(plain).max(long) < 2000, "{tcp} {plain} {long} ns");
}
