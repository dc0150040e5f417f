//! Corrections of a forecast by the earlier cases between the same hosts, as the product learns them from its ledger.

use serde::{Deserialize, Serialize};
use vmgate_facts::{Accelerator, Quantiles};
use vmgate_forecast::{
    conformal::{Correction, PastForecast, with_bytes},
    replay::{Conditions, Interval, PredictedMigration},
};

use crate::{Came, Prediction, net::Goodput, plan::Case, score::Pair};

/// A forecast as replayed, and as corrected.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Forecast {
    pub(crate) replay: PredictedMigration,
    /// Total time and blackout, corrected once enough earlier cases are known.
    pub(crate) total_seconds: Option<Quantiles>,
    pub(crate) blackout_seconds: Option<Quantiles>,
    /// Bytes, corrected in the same way; absent in campaigns before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    corrected_bytes: Option<Quantiles>,
    /// Number of earlier cases between the same hosts.
    pub(crate) earlier: usize,
}

impl Forecast {
    /// Bytes to send, as foretold then.
    pub(crate) fn bytes(&self) -> Option<Quantiles> {
        self.corrected_bytes.or(self.replay.bytes)
    }

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
            let of = |case: &Case| (case.from.clone(), case.to.clone(), case.accelerator);
            of(&past.case) == of(case) && came.completed && !came.disturbed
        });
        let of_pair: Vec<&Pair> = of_pair.collect();
        let corrected =
            |figure: fn(&PredictedMigration) -> Option<Quantiles>,
             past: &dyn Fn(&PredictedMigration, &Came) -> Option<PastForecast>| {
                let past = of_pair.iter().filter_map(|pair| past(&same(&pair.0)?.replay, &pair.1));
                let correction = Correction::from_past(&past.collect::<Vec<_>>());
                let replayed = figure(&replay)?;
                Some(correction.map_or(replayed, |correction| correction.apply(replayed)))
            };
        let plain = |predicted: Option<Quantiles>, actual| {
            Some(PastForecast { predicted: predicted?, actual, explained: 0.0 })
        };
        let corrected_bytes = corrected(|replay| replay.bytes, &|past, came| plain(past.bytes, came.bytes));
        let total = corrected(|replay| replay.total_seconds, &|past, came| {
            let bytes = past.bytes.map(|bytes| (bytes, came.bytes));
            Some(PastForecast::of_duration(past.total_seconds?, came.total_seconds, bytes))
        });
        let total_seconds = total.zip(replay.total_seconds).zip(replay.bytes.zip(corrected_bytes));
        Self {
            total_seconds: total_seconds.map(|((total, replayed), bytes)| with_bytes(total, replayed, bytes)),
            blackout_seconds: corrected(|replay| replay.blackout_seconds, &|past, came| {
                plain(past.blackout_seconds, came.blackout_seconds?)
            }),
            corrected_bytes,
            earlier: of_pair.len(),
            replay,
        }
    }
}

/// Conditions of a case: nothing but the path is known of the hosts, whose costs are learnt from earlier cases.
pub(crate) fn conditions(case: &Case, path: Goodput) -> Conditions {
    let unmeasured = Conditions::default();
    let conditions = Conditions {
        goodput_bytes_per_second: path.bytes_per_second,
        goodput_cv: 0.005,
        socket_queue_bytes: Interval { low: 0.7 * path.queue_bytes, high: 1.1 * path.queue_bytes },
        silent_pages: match case.accelerator {
            // Of the lab's Linux guests it is known.
            Accelerator::Tcg => Interval { low: 110.0, high: 150.0 },
            Accelerator::Kvm => unmeasured.silent_pages,
        },
        ..unmeasured
    };
    conditions.shared_by(1 + u32::from(case.beside), case.bandwidth_mib.map(|limit| (limit << 20) as f64))
}
