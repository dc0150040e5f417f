//! The prediction of a case, from what is known before it starts.

use std::time::Instant;

use vmgate_facts::trace::DirtyTrace;
use vmgate_forecast::replay::{AutoConverge, Goal, MigrationParameters, Replayer};

use crate::{
    Outcome, Prediction, baseline, constants::Constants, lab::DEADLINE_SECONDS, net::Goodput, plan::Case,
};

/// Settings of QEMU that the case makes.
fn settings(case: &Case) -> Outcome<MigrationParameters> {
    let has = |option: &str| case.options.iter().any(|word| word == option);
    Ok(MigrationParameters {
        qemu: if case.from == "a" { "7.2.22" } else { "10.0.13" }.parse()?,
        accelerator: case.accelerator,
        bandwidth_limit_bytes_per_second: case.bandwidth_mib.map(|limit| (limit << 20) as f64),
        downtime_limit_seconds: case.limit_ms as f64 / 1e3,
        auto_converge: has("--auto-converge").then(AutoConverge::default),
        xbzrle_cache_bytes: has("xbzrle").then_some(64 << 20),
        ..MigrationParameters::default()
    })
}

pub(crate) fn predict(
    case: &Case,
    trace: &DirtyTrace,
    path: Goodput,
    constants: &Constants,
) -> Outcome<Prediction> {
    let goal = Goal { longest_blackout_seconds: 10.0, deadline_seconds: Some(DEADLINE_SECONDS) };
    let goodput = path.bytes_per_second;
    let conditions = constants.conditions(case, goodput, path.queue_bytes);
    let began = Instant::now();
    let mut replay = Replayer::new(trace)?.replay(&settings(case)?, &conditions, &goal, u64::from(case.id));
    let replay_ms = began.elapsed().as_secs_f64() * 1e3;
    // Results are kept in the repository: a plot of each would be most of them.
    replay.timeline.clear();
    replay.round_ends_seconds.clear();
    let pages = trace.pages.as_slice().len();
    let limit_seconds = case.limit_ms as f64 / 1e3;
    Ok(Prediction {
        case: case.clone(),
        goodput,
        queue_bytes: path.queue_bytes,
        rho: trace.dirty_rate().rate_bytes_per_second as f64
            / case.bandwidth_mib.map_or(goodput, |limit| goodput.min((limit << 20) as f64)),
        zero_ratio: trace.zero.ones() as f64 / pages as f64,
        cost: trace.cost,
        pages,
        replay_ms,
        replay,
        mean_rate: Some(baseline::mean_rate(trace, case.link_mbit, limit_seconds)),
        working_set: Some(baseline::working_set(trace, goodput, limit_seconds)),
        learnt_from: constants.cases,
    })
}
