//! Correction of forecast intervals by the errors of earlier forecasts: conformal prediction (score of Romano, Patterson,
//! Candès 2019), calibrated on all earlier migrations and not on a part split off.
//!
//! A score is the distance of the actual figure outside its interval, divided by the median; negative for a figure
//! inside. The interval is then widened, or narrowed, by the score that nine of ten earlier forecasts stayed below,
//! whatever the reason for the errors was. The only assumption is that the next migration is like the earlier ones.

use serde::{Deserialize, Serialize};
use vmgate_facts::Quantiles;

/// Share of the actual figures that should lie in the interval from p5 to p95.
const COVERAGE: f64 = 0.9;
/// Minimum number of earlier forecasts for a correction: with fewer, no score bounds nine of ten.
pub const MIN_PAST_FORECASTS: usize = 9;

/// Fewest earlier forecasts from which a shift is learnt, which needs no bound.
pub const MIN_FOR_A_SHIFT: usize = 4;

/// Forecast of an earlier migration with the actual figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PastForecast {
    /// Forecast figure.
    pub predicted: Quantiles,
    /// Actual figure.
    pub actual: f64,
}

/// Correction of intervals, relative to the median.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Correction {
    widen_ratio: f64,
    /// Median relative error of the median.
    shift_ratio: f64,
}

impl Correction {
    /// Learns a correction from earlier forecasts; `None` if there are too few.
    pub fn from_past(past: &[PastForecast]) -> Option<Self> {
        let usable = past.iter().filter(|past| past.predicted.p50 > 0.0 && past.actual.is_finite());
        let mut shifts: Vec<f64> =
            usable.clone().map(|past| past.actual / past.predicted.p50 - 1.0).collect();
        shifts.sort_by(f64::total_cmp);
        let shift_ratio = *shifts.get(shifts.len() / 2)?;
        let unwidened = Self { widen_ratio: 0.0, shift_ratio };
        let mut scores: Vec<f64> = usable.map(|past| score(&unwidened.apply(past.predicted), past)).collect();
        scores.sort_by(f64::total_cmp);
        let rank = ((scores.len() + 1) as f64 * COVERAGE).ceil() as usize;
        let widen_ratio = *scores.get(rank.checked_sub(1)?)?;
        Some(Self { widen_ratio, shift_ratio })
    }

    /// Shifts the median and widens or narrows the interval, never past the median nor below zero.
    pub fn apply(&self, figure: Quantiles) -> Quantiles {
        let (shift, widen) = (self.shift_ratio * figure.p50, self.widen_ratio * figure.p50);
        let p50 = figure.p50 + shift;
        let p5 = (figure.p5 + shift - widen).clamp(0.0, p50.max(0.0));
        Quantiles { p5, p50, p95: (figure.p95 + shift + widen).max(p50) }
    }
}

/// Figure shifted by the median error of earlier forecasts, its interval as wide as before; `None` if they are too few. Of the
/// error in seconds (fixed costs) and the relative one (goodput) the one that changes less.
pub fn shifted(figure: Quantiles, past: &[PastForecast]) -> Option<Quantiles> {
    let middle = |error: fn(&PastForecast) -> f64| {
        let mut errors: Vec<f64> = past.iter().map(error).filter(|error| error.is_finite()).collect();
        errors.sort_by(f64::total_cmp);
        errors.get(errors.len() / 2).copied().filter(|_| errors.len() >= MIN_FOR_A_SHIFT)
    };
    let seconds = middle(|past| past.actual - past.predicted.p50)?;
    let relative = figure.p50 * middle(|past| past.actual / past.predicted.p50 - 1.0)?;
    let shift = if seconds.abs() < relative.abs() { seconds } else { relative };
    let at = |figure: f64| (figure + shift).max(0.0);
    Some(Quantiles { p5: at(figure.p5), p50: at(figure.p50), p95: at(figure.p95) })
}

fn score(interval: &Quantiles, past: &PastForecast) -> f64 {
    (interval.p5 - past.actual).max(past.actual - interval.p95) / past.predicted.p50
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const PREDICTED: Quantiles = Quantiles { p5: 0.95, p50: 1.0, p95: 1.05 };

    fn past(actual: impl IntoIterator<Item = f64>) -> Vec<PastForecast> {
        actual.into_iter().map(|actual| PastForecast { predicted: PREDICTED, actual }).collect()
    }

    #[test]
    fn too_few_teach_nothing() {
        assert_eq!(Correction::from_past(&past([1.0; MIN_PAST_FORECASTS - 1])), None);
        assert!(Correction::from_past(&past([1.0; MIN_PAST_FORECASTS])).is_some());
    }

    #[test]
    fn a_few_shift_by_fixed_costs_or_by_the_goodput_whichever_is_less() {
        assert_eq!(shifted(PREDICTED, &past([1.3; MIN_FOR_A_SHIFT - 1])), None);
        let middle = |figure: f64| {
            let figure = Quantiles { p5: figure * 0.9, p50: figure, p95: figure * 1.1 };
            shifted(figure, &past([1.3; MIN_FOR_A_SHIFT])).unwrap().p50
        };
        assert!((middle(100.0) - 100.3).abs() < 1e-9, "0.3 s of setup do not grow with the guest");
        assert!((middle(0.1) - 0.13).abs() < 1e-9, "nor are they more than the error of a short one");
    }

    #[test]
    fn what_is_always_late_is_foretold_later() {
        let corrected = Correction::from_past(&past([1.2; 20])).unwrap().apply(PREDICTED);
        assert!((corrected.p50 - 1.2).abs() < 1e-9 && corrected.p5 > 1.1, "{corrected:?}");
    }

    #[test]
    fn a_spread_wider_than_foretold_widens_the_interval() {
        let actual = (0..40).map(|number| 0.8 + 0.4 * f64::from(number) / 39.0);
        let corrected = Correction::from_past(&past(actual)).unwrap().apply(PREDICTED);
        assert!(
            (0.78..0.84).contains(&corrected.p5) && (1.16..1.22).contains(&corrected.p95),
            "{corrected:?}"
        );
    }

    proptest! {
        #[test]
        fn the_corrected_interval_holds_nine_of_ten_of_what_it_was_learnt_from(actual in vec(0.1..5.0_f64, MIN_PAST_FORECASTS..200)) {
            let past = past(actual);
            let correction = Correction::from_past(&past).unwrap();
            let interval = correction.apply(PREDICTED);
            prop_assert!(interval.p5 <= interval.p50 && interval.p50 <= interval.p95);
            let held = past.iter().filter(|past| (interval.p5 - 1e-9..=interval.p95 + 1e-9).contains(&past.actual)).count();
            prop_assert!(held as f64 >= 0.9 * past.len() as f64 - 1e-9, "{held} of {}", past.len());
        }
    }
}
