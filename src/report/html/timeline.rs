//! The forecast as a picture: memory left to send over time, with the uncertainty band, the rounds and the blackout.

use std::fmt::Write as _;

use serde::Serialize;
use vmgate_facts::{Forecast, RemainingMemory};
use vmgate_verdict::Verdict;

use super::super::words;

/// Size of the picture in view box units. It is stretched to the page, so its labels stand beside it.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 140.0;

/// The picture. Positions are in view box units.
#[derive(Debug, Serialize, PartialEq)]
pub(super) struct Timeline {
    width: f64,
    height: f64,
    /// The picture in words, for readers who do not see it.
    text: String,
    /// Path around the band from the fifth to the ninety-fifth percentile.
    band: String,
    /// Path of the median.
    middle: String,
    /// Positions of the ends of the rounds.
    rounds: Vec<f64>,
    /// Start and width of the blackout; `None` if unknown.
    blackout: Option<(f64, f64)>,
    /// The largest amount, and the time at the right end, in words.
    most: String,
    end: String,
}

/// The picture of a verdict's forecast; `None` without a replay.
pub(super) fn timeline(verdict: &Verdict) -> Option<Timeline> {
    draw(verdict.forecast.as_ref()?)
}

fn draw(forecast: &Forecast) -> Option<Timeline> {
    let moments = forecast.timeline.known().filter(|moments| moments.len() > 1)?;
    let end = moments.last()?.at_seconds;
    let most = moments.iter().map(|moment| moment.remaining_bytes.p95).fold(0.0, f64::max);
    if !(end.is_finite() && end > 0.0 && most.is_finite() && most > 0.0) {
        return None;
    }
    let x = |seconds: f64| tenth((seconds / end).clamp(0.0, 1.0) * WIDTH);
    let y = |bytes: f64| tenth((1.0 - (bytes / most).clamp(0.0, 1.0)) * HEIGHT);
    let line = |moments: &mut dyn Iterator<Item = &RemainingMemory>, of: fn(&RemainingMemory) -> f64| {
        let mut path = String::new();
        for moment in moments {
            // Writing to a string cannot fail.
            let _ = write!(path, "{} {} ", x(moment.at_seconds), y(of(moment)));
        }
        path
    };
    let above = line(&mut moments.iter(), |moment| moment.remaining_bytes.p95);
    let below = line(&mut moments.iter().rev(), |moment| moment.remaining_bytes.p5);
    let middle = line(&mut moments.iter(), |moment| moment.remaining_bytes.p50);
    let total = forecast.total_seconds.known();
    let blackout = forecast.blackout_seconds.known().zip(total).map(|(blackout, total)| {
        let begin = x(total.p50 - blackout.p50);
        (begin, (x(total.p50) - begin).max(1.0))
    });
    let rounds = forecast.round_ends_seconds.known().cloned().unwrap_or_default();
    let takes = total.map_or_else(
        || "the migration does not complete".to_owned(),
        |total| format!("complete after {}", words::seconds(total.p50)),
    );
    Some(Timeline {
        width: WIDTH,
        height: HEIGHT,
        text: format!(
            "{} at the beginning; {takes}{}",
            words::bytes(most),
            words::rounds(forecast).map_or(String::new(), |rounds| format!(", in {rounds}"))
        ),
        band: format!("M{above}L{below}Z"),
        middle: format!("M{middle}"),
        rounds: rounds.iter().filter(|at| **at <= end).map(|at| x(*at)).collect(),
        blackout,
        most: words::bytes(most),
        end: words::seconds(end),
    })
}

fn tenth(place: f64) -> f64 {
    (place * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use vmgate_facts::{Fact, Quantiles};
    use vmgate_verdict::sample;

    use super::*;

    #[test]
    fn the_picture_goes_from_all_of_the_memory_to_nothing() {
        let drawn = timeline(&sample::go()).unwrap();
        assert!(drawn.middle.starts_with("M0 0 "), "{}", drawn.middle);
        assert!(drawn.middle.trim_end().ends_with("600 140"), "{}", drawn.middle);
        assert_eq!(drawn.rounds.len(), 5, "as many as the forecast's rounds");
        let (begin, width) = drawn.blackout.unwrap();
        assert!(begin > 300.0 && width > 0.0 && begin + width <= 600.0);
    }

    #[test]
    fn what_cannot_be_drawn_is_not() {
        assert_eq!(draw(&Forecast::default()), None);
        let at = |at_seconds, bytes| RemainingMemory {
            at_seconds,
            remaining_bytes: Quantiles { p5: bytes, p50: bytes, p95: bytes },
        };
        for moments in [
            vec![],
            vec![at(0.0, 1.0)],
            vec![at(0.0, 0.0), at(1.0, 0.0)],
            vec![at(0.0, 1.0), at(f64::NAN, 0.0)],
        ] {
            assert_eq!(draw(&Forecast { timeline: Fact::Known(moments), ..Forecast::default() }), None);
        }
    }
}
