//! Replays of made-up guests whose migration can be worked out by hand.

use proptest::prelude::*;
use vmgate_facts::{
    Accelerator, DirtyWindow, MigrationTransport, Version,
    trace::{Bits, Positions, Stratum, TraceCost, TraceEnd, TraceSchema},
};

use super::{synthetic_trace::PageGroup, *};

const MIB: u64 = 1 << 20;
const TICK: f64 = 0.1;

/// A guest of which page `page` is dirtied in tick `tick` where `dirty` says so; every `step`-th page is sampled.
pub(super) fn guest(ram_mib: u64, step: u64, ticks: usize, dirty: impl Fn(u64, usize) -> bool) -> DirtyTrace {
    let pages = ram_mib * MIB / PAGE_BYTES;
    let positions: Vec<u64> = (0..pages).step_by(usize::try_from(step).unwrap()).collect();
    let mut changes = Bits::clear(positions.len() * ticks);
    for (at, page) in positions.iter().enumerate() {
        (0..ticks).filter(|tick| dirty(*page, *tick)).for_each(|tick| changes.set(at * ticks + tick));
    }
    DirtyTrace {
        schema: TraceSchema::V1,
        ram_bytes: ram_mib * MIB,
        strata: vec![Stratum { pages, sampled: u32::try_from(positions.len()).unwrap() }],
        zero: Bits::clear(positions.len()),
        pages: Positions::new(positions),
        tick_microseconds: vec![100_000; ticks].into(),
        changes,
        absent_ratio: 0.0,
        swapped_ratio: 0.0,
        deltas: None,
        compressed_ratio: None,
        vcpu_busy_ratio: Some(0.5),
        cost: TraceCost::default(),
        ended: TraceEnd::Complete,
    }
}

/// Pages below `working_mib` are written at random, each `rate` times a second.
fn random_writer(ram_mib: u64, working_mib: u64, rate: f64) -> DirtyTrace {
    let chance = -(-rate * TICK).exp_m1();
    guest(ram_mib, 16, 300, |page, tick| {
        page < working_mib * MIB / PAGE_BYTES
            && random::to_unit(random::mix(page * 1_000_003 + tick as u64)) < chance
    })
}

/// Everything known exactly, nothing fixed, a short queue: what is left is the loop itself.
fn bare(goodput: f64) -> Conditions {
    let none = Interval { low: 0.0, high: 0.0 };
    Conditions {
        goodput_bytes_per_second: goodput,
        goodput_cv: 0.0,
        socket_queue_bytes: Interval { low: 6e4, high: 6e4 },
        page_seconds: 1e-7,
        zero_page_seconds: 1e-7,
        sync_seconds_per_gib: 0.0,
        silent_pages: none,
        setup_seconds: none,
        other_bytes: none,
        stop_seconds: none,
        start_seconds: none,
        finish_seconds: none,
        load_ratio: Interval { low: 1.0, high: 1.0 },
        ..Conditions::default()
    }
}

fn tcg() -> MigrationParameters {
    MigrationParameters { accelerator: Accelerator::Tcg, ..MigrationParameters::default() }
}

/// A replayer with few runs: what these tests look at does not hang on their number.
fn quick(trace: &DirtyTrace) -> Replayer<'_> {
    Replayer { effort: Effort { runs: 40, fewest: 8, work: 150_000 }, ..Replayer::new(trace).unwrap() }
}

const GOAL: Goal = Goal { longest_blackout_seconds: 0.5, deadline_seconds: None };

fn replay(trace: &DirtyTrace, settings: &MigrationParameters, conditions: &Conditions) -> PredictedMigration {
    quick(trace).replay(settings, conditions, &GOAL, 7)
}

fn near(is: f64, wanted: f64, tolerance: f64) {
    assert!((is / wanted - 1.0).abs() < tolerance, "{is} instead of {wanted}");
}

#[test]
fn an_idle_guest_takes_as_long_as_its_memory() {
    let replay = replay(&guest(512, 8, 100, |_, _| false), &tcg(), &bare(1e8));
    let bytes = (512 * MIB / PAGE_BYTES) as f64 * 4104.0;
    near(replay.bytes.unwrap().p50, bytes, 0.001);
    near(replay.total_seconds.unwrap().p50, bytes / 1e8, 0.005);
    assert!((replay.converges_ratio - 1.0).abs() < 1e-9);
    // The sync finds nothing more, but what was left when it came is sent in the blackout: at most the limit's worth.
    assert!(replay.blackout_seconds.unwrap().p95 < 0.3 + 0.05);
    assert_eq!(replay.limit, LimitingFactor::Path);
}

#[test]
fn zero_pages_cost_nine_bytes() {
    let mut trace = guest(512, 8, 100, |_, _| false);
    let pages = trace.pages.as_slice().len();
    (0..pages / 2).for_each(|page| trace.zero.set(page));
    let bytes = (512 * MIB / PAGE_BYTES) as f64 / 2.0 * (4104.0 + 9.0);
    near(replay(&trace, &tcg(), &bare(1e8)).bytes.unwrap().p50, bytes, 0.001);
}

/// The loop in closed form for a working set of `working` pages written at random. A round lasts for as many sections
/// as it takes to come below the threshold; the sync after it leaves dirty what was left and what was written since.
fn rounds_by_hand(ram: f64, working: f64, rate: f64, pages_per_second: f64, limit: f64) -> (f64, f64) {
    let threshold = pages_per_second * limit;
    let (mut now, mut dirty) = (0.0, ram);
    for _ in 0..1000 {
        let sections = ((dirty - threshold) / pages_per_second / 0.05).ceil().max(1.0);
        now += sections * 0.05;
        let left = dirty - sections * 0.05 * pages_per_second;
        let written = 1.0 - f64::exp(-rate * sections * 0.05);
        // What is left of the first pass lies at the end of RAM, beyond the working set.
        let left_of_working = if dirty > working { 0.0 } else { left };
        dirty = left + (working - left_of_working) * written;
        if dirty < threshold {
            return (now + dirty / pages_per_second, now * pages_per_second + dirty);
        }
    }
    panic!("does not converge");
}

#[test]
fn a_random_writer_goes_as_the_rounds_worked_out_by_hand() {
    // 64 MiB working set, 8 MiB/s of writes at random over it, 48 MB/s.
    let (working, rate) = (64 * MIB / PAGE_BYTES, 8.0 / 64.0);
    let (seconds, pages) = rounds_by_hand(131_072.0, working as f64, rate, 48e6 / 4104.0, 0.3);
    let replay = replay(&random_writer(512, 64, rate), &tcg(), &bare(48e6));
    near(replay.total_seconds.unwrap().p50, seconds, 0.02);
    near(replay.bytes.unwrap().p50, pages * 4104.0, 0.02);
}

#[test]
fn a_trace_shorter_than_the_migration_does_not_make_a_large_working_set_small() {
    // 200 MiB of writes at random, of which a second sees 20 MiB; the first pass takes eight.
    let long = random_writer(256, 200, 0.1);
    let chance = -(-0.1_f64 * TICK).exp_m1();
    let second = guest(256, 16, 10, |page, tick| {
        page < 200 * MIB / PAGE_BYTES && random::to_unit(random::mix(page * 77_003 + tick as u64)) < chance
    });
    let bytes = |trace: &DirtyTrace| replay(trace, &tcg(), &bare(33e6)).bytes.unwrap().p50;
    near(bytes(&second), bytes(&long), 0.12);
    // And one whose hot pages are always the same is none the larger for it.
    let hot = |ticks| guest(256, 16, ticks, |page, _| page < 4 * MIB / PAGE_BYTES);
    near(bytes(&hot(10)), bytes(&hot(300)), 0.02);
}

#[test]
fn a_bandwidth_limit_is_kept_on_a_path_that_carries_much_more_or_hardly_more() {
    let idle = guest(512, 16, 100, |_, _| false);
    for (mib, path) in [(11.0, 238e6), (16.0, 238e6), (32.0, 238e6), (60.0, 238e6), (20.0, 23.9e6)] {
        let limit = mib * MIB as f64;
        let settings = MigrationParameters {
            bandwidth_limit_bytes_per_second: Some(limit),
            ..MigrationParameters::default()
        };
        let replay = replay(&idle, &settings, &bare(path));
        // From 8.2 on a window is rounded up to a whole flush of 32 pages, and the rest goes without the limit.
        let (total, bytes) = (replay.total_seconds.unwrap().p50, replay.bytes.unwrap().p50);
        let window = limit / 10.0;
        let rounded = ((window / 131_328.0).floor() + 1.0) * 131_328.0 / window;
        let rest = (limit * 0.3).min(bytes);
        let limited = (bytes - rest) / (limit * rounded);
        assert!((limited * 0.98..limited * 1.02 + 0.35).contains(&total), "{mib}: {total}, {limited}");
    }
}

#[test]
fn a_coarse_sample_gives_the_answer_of_the_whole_guest() {
    // Zipf over 64 MiB at 200 Mbit/s, where the pages that are rewritten with their content take most of a threshold of 584.
    let zipf = |step| {
        guest(128, step, 150, |page, tick| {
            let chance = 40.0 / (page % 16_384 * 2_654_435_761 % 16_384 + 1) as f64;
            page < 16_384 && random::to_unit(random::mix(page * 1_000_003 + tick as u64)) < chance
        })
    };
    let silent = |pages| Interval { low: pages, high: pages };
    let ratio = |trace: &DirtyTrace, pages| {
        let conditions = Conditions { silent_pages: silent(pages), ..bare(23.9e6) };
        let settings = MigrationParameters { downtime_limit_seconds: 0.1, ..tcg() };
        let goal = Goal { deadline_seconds: Some(48.0), ..GOAL };
        quick(trace).replay(&settings, &conditions, &goal, 1).converges_ratio
    };
    let (whole, coarse) = (zipf(1), zipf(56));
    for pages in [100.0, 400.0] {
        assert!(ratio(&whole, pages) > 0.95 && ratio(&coarse, pages) > 0.95, "{pages}");
    }
    let (whole, coarse) = (ratio(&whole, 500.0), ratio(&coarse, 500.0));
    assert!(
        whole < 0.05 && coarse < 0.8,
        "{whole} {coarse}: such a sample is not sure, but it does not say yes"
    );
}

#[test]
fn many_passes_through_a_trace_dirty_what_each_of_them_does() {
    let trace = guest(64, 4, 10, |page, tick| page % 97 == tick as u64 * 9 || page % 1000 == 3);
    let guest = TracedGuest::new(&trace).unwrap();
    let dirtied = |parts: &[f64]| {
        let mut dirty = vec![0; guest.zero.len()];
        parts.windows(2).for_each(|part| guest.dirtied(part[0], part[1], 5, &guest.all, &mut dirty));
        dirty
    };
    let seconds: Vec<f64> = (0..=40).map(f64::from).collect();
    assert_eq!(dirtied(&[0.0, 40.0]), dirtied(&seconds));
}

#[test]
fn a_sweep_is_dirtied_in_order_and_converges_below_the_goodput() {
    // 128 MiB swept at 20 MiB/s; the path carries 60 MB/s: ρ = 0.35.
    let pages = 128 * MIB / PAGE_BYTES;
    let per_tick = 20 * MIB / PAGE_BYTES / 10;
    let sweep = guest(512, 8, 640, |page, tick| {
        let begin = tick as u64 * per_tick % pages;
        page < pages && (page + pages - begin) % pages < per_tick
    });
    let replay = replay(&sweep, &tcg(), &bare(60e6));
    assert!(replay.converges_ratio > 0.99);
    // The first pass dirties all of it; then each round leaves ρ of the one before: 128 MiB · (1 + ρ + ρ² …).
    let (first, ratio) = (512.0, 20.0 * MIB as f64 / 60e6);
    let rest = 128.0 / (1.0 - ratio);
    near(replay.bytes.unwrap().p50, (first + rest) * MIB as f64, 0.06);
}

#[test]
fn a_writer_faster_than_the_path_never_converges_and_throttling_makes_it() {
    let trace = random_writer(256, 200, 0.5);
    let as_it_is = replay(&trace, &tcg(), &bare(40e6));
    assert!(as_it_is.converges_ratio < 0.01, "{as_it_is:?}");
    assert_eq!(as_it_is.limit, LimitingFactor::DirtyRate);
    let throttled = MigrationParameters { auto_converge: Some(AutoConverge::default()), ..tcg() };
    let throttled = replay(&trace, &throttled, &bare(40e6));
    assert!(throttled.converges_ratio > 0.9 && throttled.throttle_percent > 20.0, "{throttled:?}");
}

#[test]
fn newer_qemus_throttle_sooner_in_a_long_round() {
    let trace = random_writer(1024, 900, 0.05);
    let with = |qemu: &str| {
        let qemu: Version = qemu.parse().unwrap();
        let settings = MigrationParameters { auto_converge: Some(AutoConverge::default()), qemu, ..tcg() };
        replay(&trace, &settings, &bare(30e6)).total_seconds.unwrap().p50
    };
    assert!(with("10.0") < with("7.2"), "{} {}", with("10.0"), with("7.2"));
}

#[test]
fn post_copy_ends_whatever_the_guest_does() {
    let settings = MigrationParameters { post_copy: true, ..tcg() };
    let replay = replay(&random_writer(256, 200, 0.5), &settings, &bare(40e6));
    assert!((replay.converges_ratio - 1.0).abs() < 1e-9);
    near(replay.total_seconds.unwrap().p50, (256.0 + 200.0 * 0.93) * MIB as f64 / 40e6, 0.1);
    assert!(replay.blackout_seconds.unwrap().p95 < 0.05);
}

#[test]
fn what_carries_and_packs_the_pages_decides_the_speed() {
    let mut trace = guest(512, 8, 100, |_, _| false);
    trace.compressed_ratio = Some(0.4);
    let slow = Conditions {
        tls_bytes_per_second: Interval { low: 5e8, high: 5e8 },
        tunnelled_slower: Interval { low: 2.0, high: 2.0 },
        ..bare(4e9)
    };
    let with = |settings: MigrationParameters| replay(&trace, &settings, &slow);
    let seconds = |settings| with(settings).total_seconds.unwrap().p50;
    let plain = seconds(tcg());
    let tls = MigrationParameters { transport: MigrationTransport::Tls, ..tcg() };
    // 512 MiB at the speed of one core, and of four.
    near(seconds(tls.clone()), 131_072.0 * (4104.0 / 5e8 + 1e-7), 0.05);
    let four = MigrationParameters { multifd_channels: Some(4), ..tls };
    near(seconds(four), 131_072.0 * (4107.0 / 5e8 + 1e-7) / 4.0, 0.1);
    let tunnelled = MigrationParameters { transport: MigrationTransport::Tunnelled, ..tcg() };
    near(seconds(tunnelled), plain * 2.0, 0.1);
    let zstd =
        MigrationParameters { multifd_channels: Some(4), compression: Some(Compression::Zstd), ..tcg() };
    near(with(zstd).bytes.unwrap().p50, 512.0 * MIB as f64 * 0.4, 0.1);
}

#[test]
fn a_dirty_limit_makes_a_kvm_guest_converge() {
    let trace = random_writer(256, 200, 0.5);
    let limited = |qemu: &str| {
        let settings = MigrationParameters {
            qemu: qemu.parse().unwrap(),
            dirty_limit_bytes_per_second: Some(4e6),
            ..MigrationParameters::default()
        };
        replay(&trace, &settings, &bare(40e6)).converges_ratio
    };
    assert!(limited("10.0") > 0.9, "{}", limited("10.0"));
    assert!(limited("7.2") < 0.1, "QEMU 7.2 has none");
}

#[test]
fn a_schedule_raises_the_limit_until_the_migration_completes_or_forces_it() {
    // 30 MB are dirty after each round: 0.6 s of the path.
    let trace = random_writer(256, 60, 1.0);
    let with = |schedule: Schedule| {
        let settings = MigrationParameters { downtime_limit_seconds: 0.02, schedule, ..tcg() };
        replay(&trace, &settings, &bare(48e6))
    };
    assert!(with(Schedule::default()).converges_ratio < 0.1);
    let raised = with(Schedule::downtime_ramp(0.02, 1.5, 10, 2.0));
    assert!(raised.converges_ratio > 0.9 && raised.blackout_seconds.unwrap().p50 > 0.3, "{raised:?}");
    let paused = with(Schedule::default().and(10.0, ScheduledAction::Pause));
    assert!((10.0..12.5).contains(&paused.total_seconds.unwrap().p50), "{paused:?}");
    assert!(paused.blackout_seconds.unwrap().p50 > 0.3, "the guest is silent from the pause on");
    assert!(with(Schedule::default().and(10.0, ScheduledAction::Abort)).converges_ratio < 0.1);
}

#[test]
fn a_migration_completes_when_the_load_ends() {
    let trace = random_writer(256, 200, 1.0);
    let ends = |load_end| {
        let conditions = Conditions { load_end, ..bare(40e6) };
        replay(&trace, &MigrationParameters { downtime_limit_seconds: 0.05, ..tcg() }, &conditions)
    };
    assert!(ends(None).converges_ratio < 0.1);
    let at_seconds = Interval { low: 20.0, high: 20.0 };
    let ended = ends(Some(LoadEnd { at_seconds, remaining_ratio: 0.0 }));
    assert!(ended.converges_ratio > 0.9);
    assert!((20.0..28.0).contains(&ended.total_seconds.unwrap().p50), "{ended:?}");
}

#[test]
fn a_bandwidth_limit_holds_on_a_faster_path() {
    let settings = MigrationParameters { bandwidth_limit_bytes_per_second: Some(25e6), ..tcg() };
    let replay = replay(&guest(256, 8, 100, |_, _| false), &settings, &bare(1e9));
    let bytes = (256 * MIB / PAGE_BYTES) as f64 * 4104.0;
    // A window of QEMU 10.0 sends 20 flushes of 32 pages, for 2.5 MB; the last 0.3 s of it go at the speed of the path.
    let window = 20.0 * 32.0 * 4104.0;
    near(replay.total_seconds.unwrap().p50, bytes / (window * 10.0) - 0.3, 0.02);
    assert_eq!(replay.limit, LimitingFactor::BandwidthLimit);
    let older = MigrationParameters { qemu: Version { major: 7, minor: 2, micro: 22 }, ..settings };
    let replay = self::replay(&guest(256, 8, 100, |_, _| false), &older, &bare(1e9));
    near(replay.total_seconds.unwrap().p50, bytes / 25e6 - 0.3, 0.02);
    assert!(replay.blackout_seconds.unwrap().p95 < 0.02, "QEMU lifts the limit at the switchover");
}

#[test]
fn differences_of_pages_make_a_rewriter_converge() {
    let mut trace = random_writer(256, 24, 5.0);
    let without = replay(&trace, &tcg(), &bare(40e6));
    assert!(without.converges_ratio < 0.01, "{without:?}");
    trace.deltas = Some(vmgate_facts::trace::Deltas {
        lag_seconds: 1.0,
        mean_bytes: 40.0,
        overflow_ratio: 0.0,
        compared: 100,
    });
    let settings = MigrationParameters { xbzrle_cache_bytes: Some(64 * MIB), ..tcg() };
    let with = replay(&trace, &settings, &bare(40e6));
    // The threshold is reckoned from bytes, of which differences have few, and compared with pages: QEMU's own flaw.
    assert!(with.limit != LimitingFactor::Path || with.converges_ratio > 0.9, "{with:?}");
}

#[test]
fn pages_that_share_a_slot_of_the_cache_are_sent_whole() {
    let mut trace = random_writer(256, 64, 1.0);
    trace.deltas = Some(vmgate_facts::trace::Deltas {
        lag_seconds: 1.0,
        mean_bytes: 40.0,
        overflow_ratio: 0.0,
        compared: 100,
    });
    let bytes = |cache: u64| {
        let settings =
            MigrationParameters { xbzrle_cache_bytes: Some(cache), downtime_limit_seconds: 0.05, ..tcg() };
        let (replayer, conditions) = (quick(&trace), bare(40e6));
        let inputs = replayer.draw_inputs(&settings, &conditions, &mut Random::new(7), 0.0);
        Run::new(&replayer.guest, &settings, &conditions, &inputs).run_until(20.0).bytes
    };
    // A cache as large as the working set holds about two thirds of it.
    let (tight, ample) = (bytes(64 * MIB), bytes(4096 * MIB));
    assert!(tight > 1.05 * ample, "{tight} {ample}");
}

#[test]
fn a_page_is_sent_whole_until_it_is_in_the_cache_however_many_it_stands_for() {
    // Each page is written once, before it is sent for the first time: there is nothing to send as a difference.
    let mut trace = guest(128, 128, 300, |page, tick| page < 16_384 && tick == 1);
    trace.deltas = Some(vmgate_facts::trace::Deltas {
        lag_seconds: 1.0,
        mean_bytes: 40.0,
        overflow_ratio: 0.0,
        compared: 100,
    });
    let bytes = |xbzrle_cache_bytes| {
        let settings = MigrationParameters { xbzrle_cache_bytes, downtime_limit_seconds: 0.05, ..tcg() };
        let (replayer, conditions) = (quick(&trace), bare(12e6));
        let inputs = UncertainInputs {
            offset_seconds: 0.0,
            ..replayer.draw_inputs(&settings, &conditions, &mut Random::new(7), 0.0)
        };
        Run::new(&replayer.guest, &settings, &conditions, &inputs).run_until(29.0).bytes
    };
    near(bytes(Some(4096 * MIB)), bytes(None), 0.001);
}

#[test]
fn what_the_kernel_rewrites_keeps_a_short_limit_from_being_met() {
    let mut trace = guest(64, 4, 100, |_, _| false);
    let settings = MigrationParameters { downtime_limit_seconds: 0.05, ..tcg() };
    // The limit lets 146 pages through.
    let converges = |trace: &DirtyTrace, pages: f64| {
        let conditions = Conditions { silent_pages: Interval { low: pages, high: pages }, ..bare(12e6) };
        replay(trace, &settings, &conditions).converges_ratio
    };
    assert!(converges(&trace, 100.0) > 0.99);
    assert!(converges(&trace, 200.0) < 0.01);
    trace.vcpu_busy_ratio = Some(0.0);
    assert!(converges(&trace, 200.0) > 0.99, "a vCPU that does nothing writes nothing");
}

#[test]
fn what_is_queued_adds_to_the_blackout() {
    let trace = random_writer(256, 64, 0.1);
    let with = |bytes: f64| {
        let conditions =
            Conditions { socket_queue_bytes: Interval { low: bytes, high: bytes }, ..bare(50e6) };
        replay(&trace, &tcg(), &conditions).blackout_seconds.unwrap().p50
    };
    let longer = with(4e6) - with(6e4);
    assert!((0.04..0.10).contains(&longer), "{longer}");
}

#[test]
fn kvm_counts_a_gib_from_the_moment_the_cursor_enters_it() {
    let trace =
        guest(4096, 64, 300, |page, tick| random::to_unit(random::mix(page * 31 + tick as u64)) < 0.002);
    let kvm = MigrationParameters { accelerator: Accelerator::Kvm, ..MigrationParameters::default() };
    let (kvm, tcg) = (replay(&trace, &kvm, &bare(4e8)), replay(&trace, &tcg(), &bare(4e8)));
    assert!(kvm.bytes.unwrap().p50 < tcg.bytes.unwrap().p50 * 0.97, "{kvm:?} {tcg:?}");
}

#[test]
fn advice_names_the_mildest_settings_that_meet_the_goal() {
    let trace = random_writer(256, 200, 0.5);
    let replayer = quick(&trace);
    let goal = Goal { longest_blackout_seconds: 0.5, deadline_seconds: Some(120.0) };
    let advice = replayer.advise(&tcg(), &bare(40e6), &goal, 1);
    assert!(advice.as_it_is.converges_ratio < 0.01);
    let recommended = advice.recommended.unwrap();
    assert_eq!(recommended.step, Some(SettingsChange::AutoConverge));
    assert!(recommended.settings.downtime_limit_seconds < 0.5);
    assert!(recommended.replay.blackout_seconds.unwrap().p95 <= 0.5);
    let of = |step| advice.what_if.iter().find(|what| what.step == step).unwrap();
    for step in [SettingsChange::LongerLimit, SettingsChange::Suspend, SettingsChange::PostCopy] {
        assert!(of(step).replay.converges_ratio > 0.9, "{:?}", of(step));
    }
    assert!(of(SettingsChange::LongerLimit).replay.blackout_seconds.unwrap().p50 > 0.5);
    let costs = |step: SettingsChange| step.costs(&of(step).replay);
    assert!(costs(SettingsChange::AutoConverge).starts_with("slows the vCPUs by up to "));
    assert!(costs(SettingsChange::PostCopy).ends_with(" MiB come over the network"));
    assert!(advice.what_if.iter().all(|what| what.step != SettingsChange::DirtyLimit), "not without KVM");

    let idle = guest(256, 8, 100, |_, _| false);
    let advice = quick(&idle).advise(&tcg(), &bare(40e6), &goal, 1);
    assert_eq!(advice.recommended.unwrap().step, None);
}

#[test]
fn windows_are_explained_by_groups_and_a_trace_made_of_them_dirties_as_much() {
    let truth = [PageGroup { pages: 4000.0, rate: 3.0 }, PageGroup { pages: 20_000.0, rate: 0.03 }];
    let dirtied = |groups: &[PageGroup], window: f64| -> f64 {
        groups.iter().map(|group| group.pages * (1.0 - f64::exp(-group.rate * window))).sum()
    };
    let windows = [0.1, 0.5, 1.0, 3.0, 10.0].map(|window| DirtyWindow {
        window_seconds: window,
        dirtied_bytes: (dirtied(&truth, window) * 4096.0) as u64,
    });
    let groups = synthetic_trace::fit_page_groups(&windows, 512 * MIB);
    for seen in windows {
        near(dirtied(&groups, seen.window_seconds) * 4096.0, seen.dirtied_bytes as f64, 0.05);
    }
    let trace = synthetic_trace::from_page_groups(&groups, 512 * MIB, 0.3, 1);
    assert_eq!(trace.check(), Ok(()));
    for seen in trace.dirty_windows().iter().filter(|seen| seen.window_seconds <= 10.0) {
        near(seen.dirtied_bytes as f64, dirtied(&truth, seen.window_seconds) * 4096.0, 0.15);
    }
    // The asked part of the RAM that nothing writes is zero, to a part of a word.
    let weights = trace.weights();
    let zero: f64 =
        weights.iter().enumerate().filter(|(page, _)| trace.zero.get(*page)).map(|(_, w)| w).sum();
    let written: f64 = groups.iter().map(|group| group.pages).sum();
    near(zero, (131_072.0 - written) * 0.3, 0.03);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn more_bandwidth_is_never_slower(working in 8_u64..120, rate in 0.01_f64..0.6, goodput in 2e7_f64..2e8) {
        let trace = random_writer(128, working, rate);
        let slow = replay(&trace, &tcg(), &bare(goodput));
        let fast = replay(&trace, &tcg(), &bare(goodput * 1.3));
        prop_assert!(fast.converges_ratio >= slow.converges_ratio - 0.05);
        if slow.converges_ratio > 0.9 {
            let (slow, fast) = (slow.total_seconds.unwrap().p50, fast.total_seconds.unwrap().p50);
            prop_assert!(fast <= slow * 1.03, "{fast} with more, {slow} with less");
        }
    }

    #[test]
    fn a_longer_limit_never_converges_less(working in 8_u64..120, rate in 0.05_f64..1.0) {
        let trace = random_writer(128, working, rate);
        let with = |limit: f64| {
            replay(&trace, &MigrationParameters { downtime_limit_seconds: limit, ..tcg() }, &bare(4e7)).converges_ratio
        };
        prop_assert!(with(1.0) >= with(0.2) - 0.05);
    }

    #[test]
    fn the_same_input_gives_the_same_replay(seed in any::<u64>(), rate in 0.01_f64..0.5) {
        let trace = random_writer(128, 64, rate);
        let replayer = quick(&trace);
        let conditions = Conditions { goodput_bytes_per_second: 5e7, ..Conditions::default() };
        let one = replayer.replay(&tcg(), &conditions, &GOAL, seed);
        prop_assert_eq!(one, replayer.replay(&tcg(), &conditions, &GOAL, seed));
    }
}
