//! Comparison of settings in one table: the forecast of the move as it is set, and with each other setting.

use serde::Serialize;
use vmgate_facts::{Alternative, Forecast, Quantiles};
use vmgate_verdict::Verdict;

use super::words;

/// Titles of the columns.
pub(super) const COLUMNS: [&str; 5] = ["Setting", "Total", "Blackout", "Completes", "Costs"];

/// The forecast with one setting, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct SettingRow {
    pub(super) setting: String,
    pub(super) total: String,
    /// The 95th percentile.
    pub(super) blackout: String,
    pub(super) completes: String,
    pub(super) costs: String,
}

/// True if the move as it is set meets its goals, so that nobody needs another setting.
pub(super) fn present_settings_do(forecast: &Forecast) -> bool {
    let recommended = forecast.recommended.known().and_then(Option::as_ref);
    recommended.is_some_and(|recommended| recommended.setting == Alternative::PRESENT)
}

/// Rows of the table, the move as it is set first; none without alternatives.
pub(super) fn rows(verdict: &Verdict) -> Vec<SettingRow> {
    let Some(forecast) = &verdict.forecast else { return Vec::new() };
    let (Some(others), Some(ratio)) = (forecast.alternatives.known(), forecast.converges_ratio.known())
    else {
        return Vec::new();
    };
    if others.is_empty() {
        return Vec::new();
    }
    let figures = |total: Option<&Quantiles>, blackout: Option<&Quantiles>, ratio: f64| {
        let completes = format!("{:.0} %", ratio * 100.0);
        let seconds = |figure: Option<f64>| figure.map_or_else(|| "-".to_owned(), words::seconds);
        [seconds(total.map(|total| total.p50)), seconds(blackout.map(|blackout| blackout.p95)), completes]
    };
    let row = |setting: &str, costs: &str, [total, blackout, completes]: [String; 3]| SettingRow {
        setting: setting.to_owned(),
        total,
        blackout,
        completes,
        costs: costs.to_owned(),
    };
    let own = figures(forecast.total_seconds.known(), forecast.blackout_seconds.known(), *ratio);
    let mut rows = vec![row("present settings", "", own)];
    rows.extend(others.iter().map(|other| {
        let Alternative { total_seconds, blackout_seconds, converges_ratio, .. } = other;
        row(
            &other.setting,
            &other.costs,
            figures(total_seconds.as_ref(), blackout_seconds.as_ref(), *converges_ratio),
        )
    }));
    rows
}

#[cfg(test)]
mod tests {
    use vmgate_facts::Fact;
    use vmgate_verdict::sample;

    use super::*;

    #[test]
    fn what_does_not_complete_has_no_duration_and_no_alternatives_make_no_table() {
        let mut verdict = sample::go();
        let rows = rows(&verdict);
        assert_eq!(rows.first().unwrap().setting, "present settings");
        assert!(rows.iter().any(|row| row.costs.contains("vCPUs")), "{rows:?}");
        let forecast = verdict.forecast.as_mut().unwrap();
        forecast.total_seconds = Fact::default();
        forecast.converges_ratio = Fact::Known(0.0);
        let own = self::rows(&verdict).remove(0);
        assert_eq!((own.total.as_str(), own.completes.as_str()), ("-", "0 %"));
        verdict.forecast.as_mut().unwrap().alternatives = Fact::Known(Vec::new());
        assert!(self::rows(&verdict).is_empty());
    }
}
