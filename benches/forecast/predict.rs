//! The prediction of a case, from what is known before it starts.

use std::time::Instant;

use vmgate::{
    fact::{Accelerator, trace::DirtyTrace},
    forecast::replay::{AutoConverge, Conditions, Goal, Range, Replayer, Settings},
};

use crate::{Outcome, Prediction, lab::DEADLINE_SECONDS, plan::Case};

/// What the lab's two hosts cost beside the path: learnt from tuning runs, then left alone.
fn conditions(goodput: f64) -> Conditions {
    Conditions {
        goodput_bytes_per_second: goodput,
        goodput_cv: 0.005,
        socket_queue_bytes: Range { low: 1.2e6, high: 4.0e6 },
        page_seconds: 2.0e-6,
        zero_page_seconds: 0.8e-6,
        setup_seconds: Range { low: 0.75, high: 1.1 },
        other_bytes: 6.0e5,
        stop_seconds: Range { low: 0.02, high: 0.06 },
        start_seconds: Range { low: 0.07, high: 0.16 },
        finish_seconds: Range { low: 0.02, high: 0.1 },
        ..Conditions::default()
    }
}

/// Settings of QEMU that the case makes.
pub(crate) fn settings(case: &Case) -> Outcome<Settings> {
    let has = |option: &str| case.options.iter().any(|word| word == option);
    Ok(Settings {
        qemu: if case.from == "a" { "7.2.22" } else { "10.0.13" }.parse()?,
        accelerator: Accelerator::Tcg,
        downtime_limit_seconds: case.limit_ms as f64 / 1e3,
        auto_converge: has("--auto-converge").then(AutoConverge::default),
        xbzrle_cache_bytes: has("xbzrle").then_some(64 << 20),
        ..Settings::default()
    })
}

pub(crate) fn predict(case: &Case, trace: &DirtyTrace, goodput: f64) -> Outcome<Prediction> {
    let goal = Goal { longest_blackout_seconds: 10.0, deadline_seconds: Some(DEADLINE_SECONDS) };
    let began = Instant::now();
    let replay =
        Replayer::new(trace)?.replay(&settings(case)?, &conditions(goodput), &goal, u64::from(case.id));
    let replay_ms = began.elapsed().as_secs_f64() * 1e3;
    let pages = trace.pages.as_slice().len();
    Ok(Prediction {
        case: case.clone(),
        goodput,
        rho: dirtied_in_a_second(trace) / goodput,
        zero_ratio: trace.zero.ones() as f64 / pages as f64,
        cost: trace.cost,
        pages,
        replay_ms,
        replay,
        baseline_seconds: trace.ram_bytes as f64 / (case.link_mbit as f64 / 8.0 * 1e6),
    })
}

/// Mean memory dirtied in one second.
fn dirtied_in_a_second(trace: &DirtyTrace) -> f64 {
    let ticks = trace.tick_microseconds.len();
    let in_second = ((ticks as f64 / trace.seconds()).round() as usize).clamp(1, ticks);
    let seconds = (ticks / in_second).max(1);
    let pages = trace.pages.as_slice().len();
    let dirty: usize = (0..pages)
        .map(|page| {
            let in_this = |second: usize| {
                (0..in_second).any(|tick| trace.changes.get(page * ticks + second * in_second + tick))
            };
            (0..seconds).filter(|second| in_this(*second)).count()
        })
        .sum();
    dirty as f64 / seconds as f64 / pages as f64 * trace.ram_bytes as f64
}
