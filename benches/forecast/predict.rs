//! The prediction of a case, from what is known before it starts.

use std::time::Instant;

use vmgate_facts::{Fact, Vm, trace::DirtyTrace};
use vmgate_forecast::{
    guest_of_windows, managed_parameters,
    replay::{AutoConverge, Conditions, Goal, MigrationParameters, Replayer},
};

use crate::{
    Outcome, Prediction, baseline,
    lab::DEADLINE_SECONDS,
    learnt::{Forecast, conditions},
    net::Goodput,
    plan::Case,
    score::Pair,
};

/// Everything that is measured before a migration.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) trace: DirtyTrace,
    pub(crate) path: Goodput,
    /// Resident set of the guest's QEMU.
    pub(crate) resident_bytes: u64,
    /// Time that it waited for a processor while it was traced, by the trace's length.
    pub(crate) waited_ratio: Option<f64>,
}

/// Settings of QEMU that the case makes.
fn settings(case: &Case) -> Outcome<MigrationParameters> {
    let has = |option: &str| case.options.iter().any(|word| word == option);
    let qemu = match case.from.as_str() {
        "a" => "7.2.22",
        "b" => "10.0.13",
        _ => "11.1.3",
    };
    let ordered = MigrationParameters {
        qemu: qemu.parse()?,
        accelerator: case.accelerator,
        bandwidth_limit_bytes_per_second: case.bandwidth_mib.map(|limit| (limit << 20) as f64),
        downtime_limit_seconds: case.limit_ms as f64 / 1e3,
        auto_converge: has("--auto-converge").then(AutoConverge::default),
        xbzrle_cache_bytes: has("xbzrle").then_some(64 << 20),
        ..MigrationParameters::default()
    };
    Ok(case.managed.as_ref().map_or(ordered.clone(), |managed| managed_parameters(managed, &ordered)))
}

pub(crate) fn predict(case: &Case, measured: &Measured, earlier: &[Pair]) -> Outcome<Prediction> {
    let Measured { trace, path, resident_bytes, waited_ratio } = measured;
    let goal = Goal { longest_blackout_seconds: 10.0, deadline_seconds: Some(DEADLINE_SECONDS) };
    let goodput = path.bytes_per_second;
    let (settings, conditions) = (settings(case)?, conditions(case, *path));
    let seed = u64::from(case.id);
    let began = Instant::now();
    let replay = Replayer::new(trace)?.replay(&settings, &conditions, &goal, seed);
    let replay_ms = began.elapsed().as_secs_f64() * 1e3;
    let windows = without_trace(case, measured, seed).map(|(guest, resident_zero_ratio)| {
        let conditions = Conditions { resident_zero_ratio, ..conditions };
        Ok::<_, Box<dyn std::error::Error>>(Replayer::of_groups(&guest)?.replay(
            &settings,
            &conditions,
            &goal,
            seed,
        ))
    });
    let windows = windows.transpose()?;
    let pages = trace.pages.as_slice().len();
    let limit_seconds = case.limit_ms as f64 / 1e3;
    Ok(Prediction {
        case: case.clone(),
        goodput,
        queue_bytes: path.queue_bytes,
        resident_bytes: *resident_bytes,
        rho: trace.dirty_rate().rate_bytes_per_second as f64
            / case.bandwidth_mib.map_or(goodput, |limit| goodput.min((limit << 20) as f64)),
        zero_ratio: trace.zero.ones() as f64 / pages as f64,
        waited_ratio: *waited_ratio,
        cost: trace.cost,
        pages,
        replay_ms,
        trace: Forecast::learnt(replay, case, earlier, |past| Some(&past.trace)),
        windows: windows.map(|replay| Forecast::learnt(replay, case, earlier, |past| past.windows.as_ref())),
        mean_rate: baseline::mean_rate(trace, case.link_mbit, limit_seconds),
        working_set: baseline::working_set(trace, goodput, limit_seconds),
    })
}

/// The guest as an operator without a trace knows it: windows of several lengths, and QEMU's resident set.
fn without_trace(
    case: &Case,
    measured: &Measured,
    seed: u64,
) -> Option<(DirtyTrace, vmgate_forecast::replay::Interval)> {
    let vm = Vm {
        memory_bytes: Fact::Known(case.memory_mib << 20),
        resident_bytes: Fact::Known(Some(measured.resident_bytes)),
        accelerator: Fact::Known(case.accelerator),
        dirty_windows: Fact::Known(measured.trace.dirty_windows()),
        ..Vm::default()
    };
    guest_of_windows(&vm, seed)
}
