//! Corrections of a forecast by the earlier cases between the same hosts, as the product learns them from its ledger.

use serde::{Deserialize, Serialize};
use vmgate_facts::{Accelerator, Quantiles};
use vmgate_forecast::{
    conformal::{Correction, PastForecast},
    replay::{Conditions, Interval, PredictedMigration},
};

use crate::{Prediction, net::Goodput, plan::Case, score::Pair};

/// A forecast as replayed, and as corrected.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Forecast {
    pub(crate) replay: PredictedMigration,
    /// Total time and blackout, corrected once enough earlier cases are known.
    pub(crate) total_seconds: Option<Quantiles>,
    pub(crate) blackout_seconds: Option<Quantiles>,
    /// Number of earlier cases between the same hosts.
    pub(crate) earlier: usize,
}

impl Forecast {
    /// Corrects a replay by the forecasts of earlier cases, from the same evidence.
    pub(crate) fn learnt(
        mut replay: PredictedMigration,
        case: &Case,
        earlier: &[Pair],
        same: fn(&Prediction) -> Option<&Forecast>,
    ) -> Self {
        // Results are kept in the repository: a plot of each would be most of them.
        replay.timeline.clear();
        replay.round_ends_seconds.clear();
        let of_pair = earlier.iter().filter(|(past, came)| {
            let past = &past.case;
            let plain = |case: &Case| (case.from.clone(), case.to.clone(), case.accelerator);
            plain(past) == plain(case) && came.completed && !came.disturbed
        });
        let of_pair: Vec<&Pair> = of_pair.collect();
        let corrected = |figure: fn(&PredictedMigration) -> Option<Quantiles>, actual: fn(&Pair) -> f64| {
            let past = of_pair.iter().filter_map(|pair| {
                Some(PastForecast { predicted: figure(&same(&pair.0)?.replay)?, actual: actual(pair) })
            });
            let correction = Correction::from_past(&past.collect::<Vec<_>>());
            let replayed = figure(&replay)?;
            Some(correction.map_or(replayed, |correction| correction.apply(replayed)))
        };
        Self {
            total_seconds: corrected(|replay| replay.total_seconds, |pair| pair.1.total_seconds),
            blackout_seconds: corrected(
                |replay| replay.blackout_seconds,
                |pair| pair.1.blackout_seconds.unwrap_or(f64::NAN),
            ),
            earlier: of_pair.len(),
            replay,
        }
    }
}

/// Conditions of a case: nothing but the path is known of the hosts, whose costs are learnt from earlier cases. Another move
/// over the same path sends in bursts: of the rest, which goes without the limit, it takes none of the path or its part.
pub(crate) fn conditions(case: &Case, path: Goodput) -> Conditions {
    let unmeasured = Conditions::default();
    let others = case.bandwidth_mib.filter(|_| case.beside).map_or(0.0, |limit| (limit << 20) as f64);
    Conditions {
        goodput_bytes_per_second: path.bytes_per_second - others / 2.0,
        goodput_cv: if case.beside { 0.2 } else { 0.005 },
        socket_queue_bytes: Interval { low: 0.7 * path.queue_bytes, high: 1.1 * path.queue_bytes },
        silent_pages: match case.accelerator {
            // Of the lab's Linux guests it is known.
            Accelerator::Tcg => Interval { low: 110.0, high: 150.0 },
            Accelerator::Kvm => unmeasured.silent_pages,
        },
        ..unmeasured
    }
}
