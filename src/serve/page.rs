//! HTML page of a campaign for `vmgate serve`, from the template in `reports/campaign/`.

use jiff::Timestamp;
use minijinja::{Value, context, value::Serde};
use serde::Serialize;
use vmgate_execute::campaign::{CampaignState, Counts, Task, TaskState, window_text};
use vmgate_facts::{Quantiles, text::ShownCommand};
use vmgate_ledger::{campaign::Steering, entry::VerdictSummary};
use vmgate_verdict::Decision;

use super::{checks::is_go, comparison::comparison, dashboard::host_name};
use crate::{
    report::{html, words},
    serve::dashboard::{Dashboard, MoveStatus},
};

const PAGE: &str = include_str!("../../reports/campaign/page.html");
const SCRIPT: &str = include_str!("../../reports/campaign/script.js");
const STYLE: &str = include_str!("../../reports/html/style.css");
const MORE_STYLE: &str = include_str!("../../reports/campaign/style.css");

/// Largest number of moves on the page, unless more run or have failed: a longer page is of no use to people.
const MOST_MOVES: usize = 500;

/// Row of one move, in words.
#[derive(Serialize)]
struct Row {
    vm: String,
    from: String,
    to: String,
    word: &'static str,
    why: String,
    verdict: Option<&'static str>,
    blocking: String,
    forecast: Option<String>,
    actual: Option<String>,
    blackout_forecast: Option<String>,
    blackout: Option<String>,
    place: String,
}

/// Progress of a part of the campaign: a wave, a host, or the whole.
#[derive(Serialize)]
struct Part {
    name: String,
    counts: Counts,
    all: usize,
    over: usize,
}

/// The page, as HTML.
pub fn page(board: &Dashboard, now: Timestamp) -> Result<String, minijinja::Error> {
    let state = &board.state;
    let rows: Vec<(usize, Row)> = state
        .tasks
        .iter()
        .zip(&board.moves)
        .map(|(task, seen)| (urgency(task), row(state, task, seen, now)))
        .collect();
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|at| rows.get(*at).map(|(urgency, _)| *urgency));
    let pressing = rows.iter().filter(|(urgency, _)| *urgency < CALM).count();
    let most = pressing.max(MOST_MOVES);
    let shown: Vec<&Row> =
        order.iter().take(most).filter_map(|at| rows.get(*at)).map(|(_, row)| row).collect();
    let waves = state.waves.iter().enumerate().map(|(at, name)| part(name, state.counts(Some(at))));
    let hosts = board.hosts();
    let leaving = hosts.iter().filter(|(_, counts)| counts.leaving.all() > 0);
    let coming = hosts.iter().filter(|(_, counts)| counts.coming.all() > 0);
    let mut engine = html::engine()?;
    engine.add_template("page.html", PAGE)?;
    engine.get_template("page.html")?.render(context! {
        id => if state.id.is_empty() { "Checks".to_owned() } else { state.id.clone() },
        has_campaign => !state.id.is_empty(),
        hosts => Serde(hosts_of(board, now)),
        checks => Serde(board.checks.verdicts().into_iter().take(MOST_MOVES).map(|given| check(given, now)).collect::<Vec<_>>()),
        comparison => Serde(comparison(&board.checks)),
        word => standing(state),
        whole => Serde(part(&state.id, state.counts(None))),
        window => state.window_end.map(|end| format!("The window {} ({}).", window_text(end, now), words::time(end))),
        error_budget => state.error_budget,
        failures => state.failures,
        waves => Serde(waves.collect::<Vec<_>>()),
        leaving => Serde(leaving.map(|(name, counts)| part(name, counts.leaving)).collect::<Vec<_>>()),
        coming => Serde(coming.map(|(name, counts)| part(name, counts.coming)).collect::<Vec<_>>()),
        runners => state.runners.iter().filter(|(_, runner)| !runner.gone).map(|(name, runner)| context! {
            name, process => runner.driver.clone(), ago => now.duration_since(runner.last).as_secs(),
        }).collect::<Vec<_>>(),
        hidden => rows.len().saturating_sub(shown.len()),
        moves => Serde(shown),
        at => words::time(now),
        version => env!("CARGO_PKG_VERSION"),
        style => Value::from_safe_string([STYLE, MORE_STYLE].concat()),
        script => Value::from_safe_string(SCRIPT.to_owned()),
        script_hash => Value::from_safe_string(html::script_hash(SCRIPT)),
    })
}

/// Row of a host that can, or cannot, be emptied now.
#[derive(Serialize)]
struct HostRow {
    name: String,
    vms: usize,
    word: &'static str,
    why: String,
}

fn hosts_of(board: &Dashboard, now: Timestamp) -> Vec<HostRow> {
    let rows = board.checks.hosts(now).into_iter().map(|(name, host)| {
        let (word, why) = match (host.held.len(), host.outdated) {
            (0, 0) => ("yes", String::new()),
            (0, outdated) => {
                let command = ShownCommand::new("vmgate check --all --from").value(name);
                (
                    "unknown",
                    format!("{} too old: `{command}` checks again", words::number(outdated, "verdict")),
                )
            }
            (held, _) => {
                let some: Vec<&str> = host.held.iter().take(5).map(String::as_str).collect();
                let more = if held > some.len() {
                    format!(" and {} more", held - some.len())
                } else {
                    String::new()
                };
                ("no", format!("NO-GO: {}{more}", some.join(", ")))
            }
        };
        HostRow { name: name.to_owned(), vms: host.vms(), word, why }
    });
    rows.collect()
}

/// Row of the newest verdict on a VM.
#[derive(Serialize)]
struct CheckRow {
    vm: String,
    from: String,
    to: String,
    go: bool,
    word: &'static str,
    /// True if the verdict is too old to act on.
    outdated: bool,
    at: String,
    blocking: String,
    total: Option<String>,
    silence: Option<String>,
    way_out: String,
}

fn check(given: &VerdictSummary, now: Timestamp) -> CheckRow {
    CheckRow {
        vm: given.moved.vm.label().to_owned(),
        from: given.moved.source.label().to_owned(),
        to: given.moved.destination.label().to_owned(),
        go: is_go(given),
        word: given.decision.word(),
        outdated: given.expires_at <= now,
        at: words::time(given.evaluated_at),
        blocking: given.blocking.join(", "),
        total: given.total_seconds.map(words::seconds),
        silence: given.silence_seconds.map(words::seconds),
        way_out: given.way_out.clone().unwrap_or_default(),
    }
}

/// First urgency of moves that need no attention.
const CALM: usize = 3;

fn urgency(task: &Task) -> usize {
    match &task.state {
        TaskState::Failed { .. } => 0,
        TaskState::Orphaned { .. } => 1,
        TaskState::Claimed { .. } => 2,
        TaskState::Waiting { why: Some(_), .. } => CALM,
        TaskState::Waiting { .. } => CALM + 1,
        TaskState::Done { .. } => CALM + 2,
    }
}

fn standing(state: &CampaignState) -> String {
    let counts = state.counts(None);
    match &state.steering {
        Some((what @ (Steering::Pause | Steering::Stop), by)) => format!("{} by {by}", what.word()),
        _ if state.error_budget.is_some_and(|budget| state.failures >= budget) => {
            "on hold: the error budget is used up (`vmgate campaign resume` continues)".to_owned()
        }
        _ if counts.running + counts.waiting == 0 => "over".to_owned(),
        _ => "under way".to_owned(),
    }
}

fn part(name: &str, counts: Counts) -> Part {
    Part { name: name.to_owned(), counts, all: counts.all(), over: counts.done + counts.needless }
}

fn row(state: &CampaignState, task: &Task, seen: &MoveStatus, now: Timestamp) -> Row {
    let the_move = &task.the_move;
    let (word, why) = match &task.state {
        TaskState::Done { at } => ("done", words::time(*at)),
        TaskState::Failed { why, .. } => ("failed", why.clone()),
        TaskState::Claimed { runner, since, .. } => {
            ("running", format!("for {} s, by {runner}", now.duration_since(*since).as_secs()))
        }
        TaskState::Orphaned { .. } => {
            ("orphaned", "its runner is gone: another runner takes the move over".to_owned())
        }
        TaskState::Waiting { .. } if state.is_needless(task) => {
            ("needless", "an earlier move of the VM failed, so there is nothing to bring back".to_owned())
        }
        TaskState::Waiting { why, .. } => ("waits", why.clone().unwrap_or_default()),
    };
    let (from, to) = (host_name(&the_move.from), host_name(&the_move.to));
    let place = match (&task.state, &seen.runs_on) {
        (_, Some(host)) => host.clone(),
        (TaskState::Done { .. }, None) => to.clone(),
        (TaskState::Waiting { .. }, None) if task.attempts == 0 => from.clone(),
        _ => "not certain".to_owned(),
    };
    let migration = seen.migration.as_ref();
    let verdict = seen.verdict.as_ref();
    let planned = the_move.expected_seconds.map(|seconds| format!("{} planned", words::seconds(seconds)));
    Row {
        word,
        why,
        verdict: verdict.map(|given| match given.decision {
            Decision::Go(_) => "GO",
            Decision::NoGo(_) => "NO-GO",
        }),
        blocking: verdict.map(|given| given.blocking.join(", ")).unwrap_or_default(),
        forecast: migration.and_then(|seen| range(seen.forecast_total_seconds.as_ref())).or(planned),
        actual: migration.and_then(|seen| seen.total_seconds).map(words::seconds),
        blackout_forecast: migration.and_then(|seen| range(seen.forecast_blackout_seconds.as_ref())),
        blackout: migration.and_then(|seen| seen.downtime_seconds).map(words::seconds),
        vm: the_move.vm.clone(),
        from,
        to,
        place,
    }
}

fn range(forecast: Option<&Quantiles>) -> Option<String> {
    let Quantiles { p5, p50, p95 } = forecast?;
    let [low, middle, high] = [p5, p50, p95].map(|seconds| words::seconds(*seconds));
    Some(format!("{middle} ({low} to {high})"))
}
