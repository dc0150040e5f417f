//! Metrics of a campaign for Prometheus.

use std::fmt::Write as _;

use vmgate_execute::campaign::Counts;
use vmgate_ledger::{campaign::Steering, entry::VerdictSummary};

use crate::{
    report::prometheus::{label, number, seconds},
    serve::{checks::is_go, dashboard::Dashboard},
};

/// A gauge: name, help, and its values by labels.
struct Gauge {
    name: &'static str,
    help: &'static str,
    samples: Vec<(Vec<String>, f64)>,
}

/// The metrics of a campaign, in Prometheus's text format.
pub fn metrics(board: &Dashboard) -> String {
    let change = label("change", &board.state.id);
    let mut text = String::new();
    for Gauge { name, help, samples } in all(board) {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in samples {
            let labels = [vec![change.clone()], labels].concat().join(",");
            let _ = writeln!(text, "{name}{{{labels}}} {value}");
        }
    }
    text
}

fn all(board: &Dashboard) -> Vec<Gauge> {
    let state = &board.state;
    let gauge = |name, help, samples| Gauge { name, help, samples };
    let alone = |value| vec![(Vec::new(), value)];
    let is = |holds| alone(if holds { 1.0 } else { 0.0 });
    let waves = state
        .waves
        .iter()
        .enumerate()
        .flat_map(|(at, name)| by_state(&[label("wave", name)], state.counts(Some(at))));
    let hosts = board.hosts().into_iter().flat_map(|(name, counts)| {
        [("out", counts.leaving), ("in", counts.coming)]
            .into_iter()
            .flat_map(move |(way, counts)| by_state(&[label("host", &name), label("direction", way)], counts))
    });
    let runners = state.runners.iter().filter(|(_, runner)| !runner.gone);
    let mut metrics = vec![
        gauge("vmgate_campaign_moves", "Moves by state.", by_state(&[], state.counts(None))),
        gauge("vmgate_campaign_wave_moves", "Moves of a wave by state.", waves.collect()),
        gauge("vmgate_campaign_host_moves", "Moves out of and into a host by state.", hosts.collect()),
        gauge(
            "vmgate_campaign_paused",
            "1 if the campaign is paused or stopped.",
            is(matches!(state.steering, Some((Steering::Pause | Steering::Stop, _)))),
        ),
        gauge(
            "vmgate_campaign_failures",
            "Failed moves since the campaign began or was last resumed.",
            alone(f64::from(state.failures)),
        ),
        gauge(
            "vmgate_campaign_runner_heard_timestamp_seconds",
            "Time of the last heartbeat of a runner, by its clock.",
            runners.map(|(name, runner)| (vec![label("runner", name)], seconds(runner.last))).collect(),
        ),
    ];
    if let Some(budget) = state.error_budget {
        let help = "Number of failed moves at which no other move begins.";
        metrics.push(gauge("vmgate_campaign_error_budget", help, alone(f64::from(budget))));
    }
    if let Some(end) = state.window_end {
        let help = "End of the change window.";
        metrics.push(gauge("vmgate_campaign_window_end_timestamp_seconds", help, alone(seconds(end))));
    }
    metrics.extend(migrations(board));
    metrics.extend(checks(board));
    metrics
}

/// Measured durations of migrations, and the forecasts of the same ones.
fn migrations(board: &Dashboard) -> [Gauge; 5] {
    let seen = || board.moves.iter().filter_map(|seen| seen.migration.as_ref());
    let both = || {
        seen().filter_map(|migration| {
            Some((migration.forecast_total_seconds.as_ref()?, migration.total_seconds?))
        })
    };
    let gauge = |name, help, value| Gauge { name, help, samples: vec![(Vec::new(), value)] };
    let within = both().filter(|(forecast, came)| (forecast.p5..=forecast.p95).contains(came));
    [
        gauge(
            "vmgate_campaign_migrations_forecast",
            "Migrations with a known duration and a forecast.",
            number(both().count()),
        ),
        gauge(
            "vmgate_campaign_migrations_within_forecast",
            "Those of them with a duration within the 90 % interval of the forecast.",
            number(within.count()),
        ),
        gauge(
            "vmgate_campaign_forecast_seconds",
            "Sum of their median forecasts.",
            both().map(|(forecast, _)| forecast.p50).sum(),
        ),
        gauge(
            "vmgate_campaign_migration_seconds",
            "Sum of their measured durations.",
            both().map(|(_, came)| came).sum(),
        ),
        gauge(
            "vmgate_campaign_longest_downtime_seconds",
            "Longest downtime that QEMU reported.",
            seen().filter_map(|migration| migration.downtime_seconds).fold(0.0, f64::max),
        ),
    ]
}

/// The newest verdict on each VM of the site. Alerts compare the times with their own clock.
fn checks(board: &Dashboard) -> [Gauge; 4] {
    let verdicts = board.checks.verdicts();
    let labels = |given: &VerdictSummary| {
        let moved = &given.moved;
        vec![
            label("vm", moved.vm.label()),
            label("from", moved.source.label()),
            label("to", moved.destination.label()),
        ]
    };
    let gauge = |name, help, value: &dyn Fn(&VerdictSummary) -> Option<f64>| Gauge {
        name,
        help,
        samples: verdicts.iter().filter_map(|given| Some((labels(given), value(given)?))).collect(),
    };
    [
        gauge("vmgate_check_go", "1 if the newest verdict on a VM is GO, 0 if it is NO-GO.", &|given| {
            Some(if is_go(given) { 1.0 } else { 0.0 })
        }),
        gauge("vmgate_check_evaluated_timestamp_seconds", "Time of that verdict.", &|given| {
            Some(seconds(given.evaluated_at))
        }),
        gauge(
            "vmgate_check_expires_timestamp_seconds",
            "Time from which that verdict is too old to act on.",
            &|given| Some(seconds(given.expires_at)),
        ),
        gauge(
            "vmgate_check_silence_seconds",
            "Forecast of the silence that the guest's peers see, 95th percentile.",
            &|given| given.silence_seconds,
        ),
    ]
}

fn by_state(labels: &[String], counts: Counts) -> Vec<(Vec<String>, f64)> {
    let Counts { done, running, waiting, failed, needless } = counts;
    [("done", done), ("running", running), ("waiting", waiting), ("failed", failed), ("needless", needless)]
        .map(|(state, count)| ([labels, &[label("state", state)]].concat(), number(count)))
        .to_vec()
}
