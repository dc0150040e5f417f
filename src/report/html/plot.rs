//! The forecast as bars: from the fifth to the ninety-fifth percentile, with the median and the limit marked.

use serde::Serialize;
use vmgate_facts::{Fact, Quantiles};
use vmgate_verdict::Verdict;

/// One bar. Positions are percentages of the width of the plot.
#[derive(Debug, Serialize, PartialEq)]
pub(super) struct Plot {
    title: &'static str,
    /// The figures in words, for readers who do not see the picture.
    text: String,
    from: f64,
    middle: f64,
    width: f64,
    limit: Option<f64>,
    /// Figure at the right end, in seconds.
    end: String,
    /// True if the ninety-fifth percentile is beyond the limit.
    over: bool,
}

/// The plots of the forecasts that are known.
pub(super) fn plots(verdict: &Verdict) -> Vec<Plot> {
    let Some(forecast) = &verdict.forecast else { return Vec::new() };
    let blackout = verdict.change.longest_blackout_seconds;
    let bars = [
        ("Blackout", &forecast.blackout_seconds, Some(blackout)),
        ("Whole migration", &forecast.total_seconds, verdict.change.deadline_seconds),
    ];
    bars.into_iter().filter_map(|(title, quantiles, limit)| plot(title, quantiles, limit)).collect()
}

fn plot(title: &'static str, quantiles: &Fact<Quantiles>, limit: Option<f64>) -> Option<Plot> {
    let &Quantiles { p5, p50, p95 } = quantiles.known()?;
    // A tenth of the width stays free at the right end.
    let scale = limit.unwrap_or(p95).max(p95) * 1.1;
    let drawable =
        [p5, p50, p95, scale].iter().all(|x| x.is_finite() && *x >= 0.0) && p5 <= p50 && p50 <= p95;
    if !drawable || scale <= 0.0 {
        return None;
    }
    let percent = |seconds: f64| (seconds / scale * 1000.0).round() / 10.0;
    let limits = limit.map(|limit| format!("; limit {} s", number(limit))).unwrap_or_default();
    Some(Plot {
        title,
        text: format!("{} s (5 %), {} s (50 %), {} s (95 %){limits}", number(p5), number(p50), number(p95)),
        from: percent(p5),
        middle: percent(p50),
        width: (percent(p95) - percent(p5)).max(0.3),
        limit: limit.map(percent),
        end: format!("{} s", number(scale)),
        over: limit.is_some_and(|limit| p95 > limit),
    })
}

/// Rounds to about three digits, which are enough for a forecast.
fn number(seconds: f64) -> String {
    if seconds >= 100.0 { format!("{seconds:.0}") } else { format!("{}", (seconds * 100.0).round() / 100.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantiles(p5: f64, p50: f64, p95: f64) -> Fact<Quantiles> {
        Fact::Known(Quantiles { p5, p50, p95 })
    }

    #[test]
    fn a_bar_reaches_from_the_fifth_to_the_ninety_fifth_percentile() {
        let plot = plot("Blackout", &quantiles(0.5, 1.0, 2.0), Some(1.5)).unwrap();
        assert_eq!((plot.from, plot.middle, plot.limit, plot.over), (22.7, 45.5, Some(68.2), true));
        assert_eq!(plot.text, "0.5 s (5 %), 1 s (50 %), 2 s (95 %); limit 1.5 s");
    }

    #[test]
    fn what_cannot_be_drawn_is_not() {
        for (p5, p50, p95) in [
            (0.0, 0.0, 0.0),
            (f64::NAN, 1.0, 2.0),
            (1.0, 2.0, f64::INFINITY),
            (3.0, 2.0, 1.0),
            (-1.0, 0.0, 1.0),
        ] {
            assert_eq!(plot("Blackout", &quantiles(p5, p50, p95), None), None, "{p5} {p50} {p95}");
        }
        assert_eq!(plot("Blackout", &Fact::default(), Some(1.0)), None);
    }
}
