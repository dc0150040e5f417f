//! Correction of forecasts by the errors of earlier ones: the median by their median error, the interval by conformal
//! prediction (score of Romano, Patterson, Candès 2019), calibrated on all earlier migrations and not on a part split off.
//! An error counts for the median the more, the narrower its forecast was: a long migration close to never ending says little
//! about what each migration between two hosts costs. The forecast itself is one more earlier migration, of average width and without
//! error: a single migration, which may have been off for a reason of its own, moves the median half of the way, and two that
//! contradict each other not at all.
//!
//! Errors are counted in the figure's own unit, as those of costs are that every migration has, or as a part of the median, as
//! those of a speed are: as explains the earlier errors better, and in its own unit if both do as well. A score is the distance of the actual figure outside its
//! interval; negative for a figure inside. The interval is then widened, or narrowed, by the score that nine of ten earlier
//! forecasts stayed below, whatever the reason for the errors was. Of fewer than nine even the largest score is exceeded by more
//! than one in ten of the next migrations: they may widen an interval and never narrow it. The only assumption is that the next
//! migration is like the earlier ones.

use vmgate_facts::Quantiles;

/// Share of the actual figures that should lie in the interval from p5 to p95.
const COVERAGE: f64 = 0.9;
/// Least width of an interval in the weight of its error, as a part of the median.
const MIN_WIDTH: f64 = 0.01;

/// Forecast of an earlier migration with the actual figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PastForecast {
    /// Forecast figure.
    pub predicted: Quantiles,
    /// Actual figure.
    pub actual: f64,
    /// Part of its error with a reason of its own, which tells nothing of the next migration's median.
    pub explained: f64,
}

impl PastForecast {
    /// Duration of a migration, with its bytes (forecast and actual) where they are known. The time of the bytes beyond the forecast is
    /// explained: it tells of that guest, and not of what migrations between these hosts cost.
    pub fn of_duration(predicted: Quantiles, actual: f64, bytes: Option<(Quantiles, f64)>) -> Self {
        let explained = bytes.filter(|(foretold, sent)| foretold.p50 > 0.0 && sent.is_finite());
        let explained = explained.map_or(0.0, |(foretold, sent)| (sent / foretold.p50 - 1.0) * predicted.p50);
        Self { predicted, actual, explained }
    }

    /// Error of the median that the next migration may have too.
    fn error(&self) -> f64 {
        self.actual - self.explained - self.predicted.p50
    }
}

/// Corrected duration of a migration whose bytes (replayed and corrected) were corrected too: with the time of those beyond the replayed.
pub fn with_bytes(corrected: Quantiles, replayed: Quantiles, bytes: (Quantiles, Quantiles)) -> Quantiles {
    let more = PastForecast::of_duration(replayed, 0.0, Some((bytes.0, bytes.1.p50))).explained;
    let [p5, p50, p95] =
        [corrected.p5, corrected.p50, corrected.p95].map(|seconds| (seconds + more).max(0.0));
    Quantiles { p5, p50, p95 }
}

/// Unit in which errors are counted.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Unit {
    /// The figure's own.
    Own,
    /// Parts of the forecast's median.
    Median,
}

impl Unit {
    fn of(self, predicted: &Quantiles) -> f64 {
        match self {
            Self::Own => 1.0,
            Self::Median => predicted.p50,
        }
    }
}

/// Correction of a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Correction {
    unit: Unit,
    /// Median error of the median.
    shift: f64,
    widen: f64,
}

impl Correction {
    /// Learns a correction from earlier forecasts; `None` if there are none that tell anything.
    pub fn from_past(past: &[PastForecast]) -> Option<Self> {
        let usable = past.iter().filter(|past| past.predicted.p50 > 0.0 && past.actual.is_finite());
        let usable: Vec<PastForecast> = usable.copied().collect();
        if usable.is_empty() {
            return None;
        }
        let in_units = [Unit::Own, Unit::Median].map(|unit| Self::in_unit(unit, &usable));
        in_units.into_iter().min_by(|one, other| one.misses(&usable).total_cmp(&other.misses(&usable)))
    }

    fn in_unit(unit: Unit, past: &[PastForecast]) -> Self {
        let weighted_error = |past: &PastForecast| {
            let predicted = &past.predicted;
            let width = (predicted.p95 - predicted.p5).max(MIN_WIDTH * predicted.p50) / unit.of(predicted);
            (past.error() / unit.of(predicted), 1.0 / width)
        };
        let mut errors: Vec<(f64, f64)> = past.iter().map(weighted_error).collect();
        let usual_weight = errors.iter().map(|(_, weight)| weight).sum::<f64>() / errors.len() as f64;
        errors.push((0.0, usual_weight));
        errors.sort_by(|one, other| one.0.total_cmp(&other.0));
        let shifted = Self { unit, shift: weighted_median(&errors), widen: 0.0 };
        let score = |past: &PastForecast| {
            let interval = shifted.apply(past.predicted);
            (interval.p5 - past.actual).max(past.actual - interval.p95) / unit.of(&past.predicted)
        };
        let mut scores: Vec<f64> = past.iter().map(score).collect();
        scores.sort_by(f64::total_cmp);
        let rank = ((scores.len() + 1) as f64 * COVERAGE).ceil() as usize;
        let calibrated = scores.get(rank - 1).copied();
        let widen = calibrated.or(scores.last().map(|largest| largest.max(0.0))).unwrap_or(0.0);
        Self { widen, ..shifted }
    }

    /// Sum of the relative errors that are left of these forecasts.
    fn misses(&self, past: &[PastForecast]) -> f64 {
        past.iter()
            .map(|past| {
                (past.actual - past.explained - self.apply(past.predicted).p50).abs() / past.predicted.p50
            })
            .sum()
    }

    /// Shifts the median and widens or narrows the interval, never past the median nor below zero.
    pub fn apply(&self, figure: Quantiles) -> Quantiles {
        let unit = self.unit.of(&figure);
        let (shift, widen) = (self.shift * unit, self.widen * unit);
        let p50 = (figure.p50 + shift).max(0.0);
        let p5 = (figure.p5 + shift - widen).clamp(0.0, p50);
        Quantiles { p5, p50, p95: (figure.p95 + shift + widen).max(p50) }
    }
}

/// Figure that half of the weight lies below, of figures that rise with their weights.
fn weighted_median(figures: &[(f64, f64)]) -> f64 {
    let half = figures.iter().map(|(_, weight)| weight).sum::<f64>() / 2.0;
    let mut below = 0.0;
    let mut middle = figures.iter().skip_while(|(_, weight)| {
        below += weight;
        below < half * (1.0 - 1e-9)
    });
    let Some((first, _)) = middle.next() else { return 0.0 };
    match middle.next() {
        Some((next, _)) if below <= half * (1.0 + 1e-9) => f64::midpoint(*first, *next),
        _ => *first,
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const PREDICTED: Quantiles = Quantiles { p5: 0.95, p50: 1.0, p95: 1.05 };

    fn past(actual: impl IntoIterator<Item = f64>) -> Vec<PastForecast> {
        actual
            .into_iter()
            .map(|actual| PastForecast { predicted: PREDICTED, actual, explained: 0.0 })
            .collect()
    }

    fn times(factor: f64) -> Quantiles {
        Quantiles { p5: 0.95 * factor, p50: factor, p95: 1.05 * factor }
    }

    #[test]
    fn one_migration_moves_the_median_half_of_the_way_and_two_that_contradict_each_other_not_at_all() {
        assert_eq!(Correction::from_past(&[]), None);
        let corrected = |actual: &[f64]| {
            Correction::from_past(&past(actual.iter().copied())).unwrap().apply(PREDICTED).p50
        };
        assert!((corrected(&[0.9]) - 0.95).abs() < 1e-9, "{}", corrected(&[0.9]));
        assert!((corrected(&[0.7, 1.4]) - 1.0).abs() < 1e-9, "{}", corrected(&[0.7, 1.4]));
        assert!((corrected(&[0.9, 0.8]) - 0.9).abs() < 1e-9, "{}", corrected(&[0.9, 0.8]));
    }

    #[test]
    fn a_forecast_that_was_sure_counts_for_more_than_one_that_was_not() {
        let unsure = Quantiles { p5: 5.0, p50: 10.0, p95: 40.0 };
        let mut past = past([0.98, 0.98, 0.98]);
        past.extend([PastForecast { predicted: unsure, actual: 30.0, explained: 0.0 }; 3]);
        assert!((Correction::from_past(&past).unwrap().apply(PREDICTED).p50 - 0.98).abs() < 1e-9);
    }

    #[test]
    fn time_of_more_bytes_tells_nothing_of_the_next_duration() {
        let more = |bytes: f64| PastForecast::of_duration(PREDICTED, bytes + 0.2, Some((PREDICTED, bytes)));
        let corrected = Correction::from_past(&[1.0, 1.5, 2.0].map(more)).unwrap().apply(PREDICTED);
        assert!((corrected.p50 - 1.2).abs() < 1e-9, "0.2 s were not explained: {corrected:?}");
        assert!(corrected.p95 > 2.1, "but the next one may differ by as much: {corrected:?}");
    }

    #[test]
    fn what_is_always_late_is_foretold_later() {
        let corrected = Correction::from_past(&past([1.2; 20])).unwrap().apply(PREDICTED);
        assert!((corrected.p50 - 1.2).abs() < 1e-9 && corrected.p5 > 1.1, "{corrected:?}");
    }

    #[test]
    fn a_cost_that_every_migration_has_is_the_same_for_a_long_one() {
        let late = |by: fn(f64) -> f64| -> Vec<PastForecast> {
            let figures = [2.0, 3.0, 5.0, 8.0, 40.0];
            figures
                .map(|figure| PastForecast { predicted: times(figure), actual: by(figure), explained: 0.0 })
                .into()
        };
        let of = |past: Vec<PastForecast>| Correction::from_past(&past).unwrap().apply(times(100.0)).p50;
        assert!((of(late(|figure| figure - 0.5)) - 99.5).abs() < 1e-9);
        assert!((of(late(|figure| figure * 1.1)) - 110.0).abs() < 1e-9);
    }

    #[test]
    fn a_few_migrations_never_narrow_an_interval() {
        let few = Correction::from_past(&past([1.2; 8])).unwrap().apply(PREDICTED);
        assert!((few.p95 - few.p5 - 0.1).abs() < 1e-9, "{few:?}");
        let enough = Correction::from_past(&past([1.2; 9])).unwrap().apply(PREDICTED);
        assert!(enough.p95 - enough.p5 < 1e-9, "{enough:?}");
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
        fn the_corrected_interval_holds_nine_of_ten_of_what_it_was_learnt_from(actual in vec(0.1..5.0_f64, 9..200)) {
            let past = past(actual);
            let correction = Correction::from_past(&past).unwrap();
            let interval = correction.apply(PREDICTED);
            prop_assert!(interval.p5 <= interval.p50 && interval.p50 <= interval.p95);
            let held = past.iter().filter(|past| (interval.p5 - 1e-9..=interval.p95 + 1e-9).contains(&past.actual)).count();
            prop_assert!(held as f64 >= 0.9 * past.len() as f64 - 1e-9, "{held} of {}", past.len());
        }
    }
}
