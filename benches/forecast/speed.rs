//! Cost of a replay: a trace of 30 s of a guest of 16 GiB, and of one of 512 GiB, beside what it may cost.

use std::{fs, time::Instant};

use vmgate_facts::{
    Accelerator,
    trace::{Bits, DirtyTrace, PAGE_BYTES, Positions, Stratum, TraceCost, TraceEnd, TraceSchema},
};
use vmgate_forecast::replay::{Conditions, Goal, MigrationParameters, Replayer};

use crate::Outcome;

const PAGES: u64 = 8192;
const TICKS: usize = 300;

/// Time that a forecast, and one with all alternatives, may take, in milliseconds; and for the larger guest both.
const MAY_TAKE: (f64, f64) = (50.0, 150.0);
const LARGE_MAY_TAKE: f64 = 300.0;
/// Memory that the process may take, in MiB.
const MAY_HOLD_MIB: f64 = 200.0;

pub(crate) fn measure() -> Outcome<()> {
    println!("{:<40} {:>8} {:>8} {:>8}", "8192 pages, 300 ticks", "ready ms", "replay", "advise");
    for (name, hot, chance) in
        [("idle", 0, 0.0), ("1 % hot, half of the ticks", 82, 0.5), ("20 % at random", 1638, 0.05)]
    {
        for (path, goodput) in [("1 Gbit/s", 1.17e8), ("10 Gbit/s", 1.17e9)] {
            time(&format!("16 GiB, {name}, {path}"), &guest(16, hot, chance), goodput, MAY_TAKE)?;
        }
        let name = format!("512 GiB, {name}, 10 Gbit/s");
        time(&name, &guest(512, hot, chance), 1.17e9, (LARGE_MAY_TAKE, LARGE_MAY_TAKE))?;
    }
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next());
    let mebibytes = peak.ok_or("no VmHWM")?.parse::<f64>()? / 1024.0;
    println!("most memory held: {mebibytes:.0} MiB of {MAY_HOLD_MIB:.0}");
    Ok(())
}

fn time(name: &str, trace: &DirtyTrace, goodput: f64, (may, may_all): (f64, f64)) -> Outcome<()> {
    let settings = MigrationParameters { accelerator: Accelerator::Kvm, ..MigrationParameters::default() };
    let conditions = Conditions { goodput_bytes_per_second: goodput, ..Conditions::default() };
    let goal = Goal { longest_blackout_seconds: 0.5, deadline_seconds: Some(600.0) };
    let began = Instant::now();
    let replayer = Replayer::new(trace)?;
    let ready = began.elapsed();
    let began = Instant::now();
    let replay = replayer.replay(&settings, &conditions, &goal, 1);
    let replayed = began.elapsed();
    let began = Instant::now();
    replayer.advise(&settings, &conditions, &goal, 1);
    let advised = began.elapsed();
    let [ready, replayed, advised] = [ready, replayed, advised].map(|took| took.as_secs_f64() * 1e3);
    let slow = if replayed > may || advised > may_all { "TOO SLOW, " } else { "" };
    println!(
        "{name:<40} {ready:>8.1} {replayed:>8.1} {advised:>8.1}  {slow}{} runs, P {:.2}, {}",
        replay.runs,
        replay.converges_ratio,
        replay.limit.words()
    );
    Ok(())
}

fn guest(ram_gib: u64, hot: u64, chance: f64) -> DirtyTrace {
    let ram_pages = (ram_gib << 30) / PAGE_BYTES;
    let mut changes = Bits::clear(PAGES as usize * TICKS);
    let mut state = 1_u64;
    for page in (0..PAGES).filter(|page| page * 7919 % PAGES < hot) {
        for tick in 0..TICKS {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if ((state >> 33) as f64) < chance * (1_u64 << 31) as f64 {
                changes.set(page as usize * TICKS + tick);
            }
        }
    }
    DirtyTrace {
        schema: TraceSchema::V1,
        ram_bytes: ram_gib << 30,
        strata: vec![Stratum { pages: ram_pages, sampled: PAGES as u32 }],
        pages: Positions::new((0..PAGES).map(|at| at * (ram_pages / PAGES) + 17).collect()),
        tick_microseconds: vec![100_000; TICKS].into(),
        changes,
        zero: Bits::clear(PAGES as usize),
        absent_ratio: 0.0,
        swapped_ratio: 0.0,
        deltas: None,
        compressed_ratio: None,
        vcpu_busy_ratio: Some(0.4),
        cost: TraceCost::default(),
        ended: TraceEnd::Complete,
    }
}
