//! The lab's fixed costs: learnt from the tuning cases, then frozen in a file before any other case runs, together with
//! the corrections of the intervals from the same cases.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};
use vmgate_facts::{Accelerator, Quantiles};
use vmgate_forecast::{
    conformal::{Correction, PastForecast},
    replay::{Conditions, Interval},
};

use crate::{
    Came, Outcome, Prediction,
    plan::{Case, Kind},
    score::quantile,
};

/// Fewest cases of a direction that its costs are learnt from.
const MIN_PAST_FORECASTS: usize = 4;

/// Learnt constants.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Constants {
    /// Fixed costs of migrations from the older host, and from the newer one.
    pub(crate) from_a: Fixed,
    pub(crate) from_b: Fixed,
    /// Number of cases that the costs were learnt from.
    pub(crate) cases: usize,
    /// Corrections of the intervals of total time, bytes and blackout, from these cases forecast with these costs.
    #[serde(default)]
    pub(crate) corrections: [Option<Correction>; 3],
}

/// Costs that do not depend on the guest's memory.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[allow(clippy::struct_field_names)]
pub(crate) struct Fixed {
    pub(crate) setup_seconds: Interval,
    pub(crate) stop_seconds: Interval,
    pub(crate) start_seconds: Interval,
    pub(crate) finish_seconds: Interval,
}

impl Default for Constants {
    /// Wide costs, before anything was learnt.
    fn default() -> Self {
        let fixed = Fixed {
            setup_seconds: Interval { low: 0.4, high: 1.2 },
            stop_seconds: Interval { low: 0.01, high: 0.05 },
            start_seconds: Interval { low: 0.04, high: 0.2 },
            finish_seconds: Interval { low: 0.02, high: 0.1 },
        };
        Self { from_a: fixed, from_b: fixed, cases: 0, corrections: [None; 3] }
    }
}

impl Constants {
    pub(crate) fn read(file: &Path) -> Outcome<Option<Self>> {
        if !file.exists() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&fs::read_to_string(file)?)?))
    }

    pub(crate) fn write(&self, file: &Path) -> Outcome<()> {
        Ok(fs::write(file, serde_json::to_string_pretty(self)? + "\n")?)
    }

    /// Corrects the costs by the errors of the forecasts that were made with them.
    pub(crate) fn learn(&self, pairs: &[(Prediction, Came)]) -> Self {
        let of = |from: &str, fixed: Fixed| -> Fixed {
            let usable = pairs.iter().filter(|(prediction, came)| {
                let plain = !matches!(prediction.case.kind, Kind::AutoConverge | Kind::Xbzrle);
                prediction.case.from == from && plain && came.completed && !came.disturbed
            });
            let (mut blackout, mut setup) = (Vec::new(), Vec::new());
            for (prediction, came) in usable {
                let replay = &prediction.replay;
                let (Some(foretold), Some(total), Some(bytes), Some(real)) =
                    (replay.blackout_seconds, replay.total_seconds, replay.bytes, came.blackout_seconds)
                else {
                    continue;
                };
                let longer_blackout = real - foretold.p50;
                // Time that a longer blackout and more bytes explain is not preparation.
                let sending = (came.bytes - bytes.p50) / prediction.goodput;
                blackout.push(longer_blackout);
                setup.push(came.total_seconds - total.p50 - longer_blackout - sending);
            }
            Fixed {
                setup_seconds: moved(fixed.setup_seconds, setup),
                start_seconds: moved(fixed.start_seconds, blackout),
                ..fixed
            }
        };
        Self {
            from_a: of("a", self.from_a),
            from_b: of("b", self.from_b),
            cases: pairs.len(),
            corrections: [None; 3],
        }
    }

    pub(crate) fn conditions(&self, case: &Case, goodput: f64, queue_bytes: f64) -> Conditions {
        let fixed = if case.from == "a" { self.from_a } else { self.from_b };
        // Of the lab's Linux guests it is known; of a guest that nobody measured a part of none to as many.
        let silent = Interval { low: 110.0, high: 150.0 };
        let silent_pages = match case.accelerator {
            Accelerator::Tcg => silent,
            Accelerator::Kvm => Conditions::default().silent_pages,
        };
        Conditions {
            goodput_bytes_per_second: goodput,
            goodput_cv: 0.005,
            silent_pages,
            socket_queue_bytes: Interval { low: 0.7 * queue_bytes, high: 1.1 * queue_bytes },
            setup_seconds: fixed.setup_seconds,
            stop_seconds: fixed.stop_seconds,
            start_seconds: fixed.start_seconds,
            finish_seconds: fixed.finish_seconds,
            ..Conditions::default()
        }
    }
}

/// The range around the old middle, moved by the middle residual, in which nine of ten of them lie.
fn moved(range: Interval, residuals: Vec<f64>) -> Interval {
    if residuals.len() < MIN_PAST_FORECASTS {
        return range;
    }
    let middle = quantile(&residuals, 0.5).unwrap_or_default();
    let off: Vec<f64> = residuals.iter().map(|residual| (residual - middle).abs()).collect();
    let half = quantile(&off, 0.9).unwrap_or_default();
    let now = (range.low + range.high) / 2.0 + middle;
    Interval { low: (now - half).max(0.0), high: (now + half).max(0.0) }
}

/// Corrections of the intervals of total time, bytes and blackout, from these cases.
pub(crate) fn corrections(pairs: &[(Prediction, Came)]) -> [Option<Correction>; 3] {
    let learn = |foretold: fn(&Prediction) -> Option<Quantiles>, came: fn(&Came) -> f64| {
        let done = pairs.iter().filter(|(_, came)| came.completed && !came.disturbed);
        let past: Vec<PastForecast> = done
            .filter_map(|(prediction, one)| {
                Some(PastForecast { predicted: foretold(prediction)?, actual: came(one) })
            })
            .collect();
        Correction::from_past(&past)
    };
    [
        learn(|prediction| prediction.replay.total_seconds, |came| came.total_seconds),
        learn(|prediction| prediction.replay.bytes, |came| came.bytes),
        learn(
            |prediction| prediction.replay.blackout_seconds,
            |came| came.blackout_seconds.unwrap_or(f64::NAN),
        ),
    ]
}
