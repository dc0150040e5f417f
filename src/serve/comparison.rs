//! Picture of forecasts against what came: each migration a bar from the fifth to the ninety-fifth percentile of its forecast,
//! and a dot for its duration.

use serde::Serialize;
use vmgate_ledger::entry::Migration;

use crate::{report::words, serve::checks::Checks};

/// Size of the picture in view box units. It is stretched to the page, so its labels stand beside it.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 140.0;

/// The picture. Positions are in view box units.
#[derive(Debug, Serialize, PartialEq)]
pub(super) struct Comparison {
    width: f64,
    height: f64,
    /// The picture in words.
    text: String,
    marks: Vec<Mark>,
    /// The largest duration, in words.
    most: String,
    /// Times of the first and the last migration.
    first: String,
    last: String,
}

/// One migration.
#[derive(Debug, Serialize, PartialEq)]
struct Mark {
    x: f64,
    top: f64,
    height: f64,
    dot: f64,
    /// True if the duration is within the forecast.
    within: bool,
}

/// The picture of the newest migrations; `None` without one.
pub(super) fn comparison(checks: &Checks) -> Option<Comparison> {
    let figures = |migration: &Migration| {
        let forecast = migration.forecast_total_seconds.as_ref()?;
        let came = migration.total_seconds?;
        let all = [forecast.p5, forecast.p95, came];
        all.iter().all(|figure| figure.is_finite() && *figure >= 0.0).then_some(all)
    };
    let shown: Vec<_> =
        checks.migrations().filter_map(|(at, migration)| Some((*at, figures(migration)?))).collect();
    let (first, last) = (shown.first()?.0, shown.last()?.0);
    let most = shown.iter().flat_map(|(_, figures)| figures).copied().fold(0.0, f64::max);
    if most <= 0.0 {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "at most sixty migrations")]
    let step = WIDTH / (shown.len() + 1) as f64;
    let y = |seconds: f64| tenth((1.0 - seconds / most) * HEIGHT);
    let mut x = 0.0;
    let mut marks = Vec::new();
    for (_, [p5, p95, came]) in &shown {
        x += step;
        let within = (p5..=p95).contains(&came);
        let height = (y(*p5) - y(*p95)).max(1.0);
        marks.push(Mark { x: tenth(x), top: y(*p95), height: tenth(height), dot: y(*came), within });
    }
    let within = marks.iter().filter(|mark| mark.within).count();
    Some(Comparison {
        width: WIDTH,
        height: HEIGHT,
        text: format!(
            "{within} of {} took as long as the 90 % interval of their forecast says",
            words::number(marks.len(), "migration")
        ),
        marks,
        most: words::seconds(most),
        first: words::time(first),
        last: words::time(last),
    })
}

fn tenth(place: f64) -> f64 {
    (place * 10.0).round() / 10.0
}
