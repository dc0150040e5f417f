//! Cost of a replay: a 16 GiB guest and a trace of 30 s.

use std::time::Instant;

use vmgate_facts::{
    Accelerator,
    trace::{Bits, DirtyTrace, PAGE_BYTES, Positions, Stratum, TraceCost, TraceEnd, TraceSchema},
};
use vmgate_forecast::replay::{Conditions, Goal, MigrationParameters, Replayer};

use crate::Outcome;

const PAGES: u64 = 8192;
const TICKS: usize = 300;

pub(crate) fn measure() -> Outcome<()> {
    println!("{:<52} {:>8} {:>8} {:>8}", "16 GiB, 8192 pages, 300 ticks", "ready ms", "replay", "advise");
    for (name, hot, chance) in
        [("idle", 0, 0.0), ("1 % hot, half of the ticks", 82, 0.5), ("20 % at random", 1638, 0.05)]
    {
        for (path, goodput) in [("1 Gbit/s", 1.17e8), ("10 Gbit/s", 1.17e9)] {
            time(&format!("{name}, {path}"), &guest(hot, chance), goodput)?;
        }
    }
    Ok(())
}

fn time(name: &str, trace: &DirtyTrace, goodput: f64) -> Outcome<()> {
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
    println!(
        "{name:<52} {:>8.1} {:>8.1} {:>8.1}  {} runs, P {:.2}, {}",
        ready.as_secs_f64() * 1e3,
        replayed.as_secs_f64() * 1e3,
        advised.as_secs_f64() * 1e3,
        replay.runs,
        replay.converges_ratio,
        replay.limit.words()
    );
    Ok(())
}

fn guest(hot: u64, chance: f64) -> DirtyTrace {
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
        ram_bytes: 16 << 30,
        strata: vec![Stratum { pages: (16 << 30) / PAGE_BYTES, sampled: PAGES as u32 }],
        pages: Positions::new((0..PAGES).map(|at| at * 512 + 17).collect()),
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
