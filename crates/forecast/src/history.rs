//! Use of the ledger's history in a forecast: interval correction by earlier migrations, and quieter hours of the day.

use vmgate_facts::{
    Alternative, Fact, Facts, Forecast, ForecastMethod, History, ObservedHour, PastMigration, Quantiles,
    Version,
};

use super::{
    conditions,
    conformal::{Correction, PastForecast, with_bytes},
    replay::{Conditions, Goal, MigrationParameters, Replayer, synthetic_trace},
};

/// An hour is quiet if the VM dirties at most this part of its present dirty rate.
const QUIET: f64 = 0.5;

/// Corrects duration, blackout and bytes by the errors of earlier forecasts between the same hosts and QEMU versions. The replayed
/// figures are kept too: the next correction is learnt from them.
pub(super) fn correct(forecast: &mut Forecast, facts: &Facts) {
    forecast.replayed_total_seconds = forecast.total_seconds.clone();
    forecast.replayed_blackout_seconds = forecast.blackout_seconds.clone();
    forecast.replayed_sent_bytes = forecast.sent_bytes.clone();
    let past: Vec<&PastMigration> = past_of_the_pair(facts).collect();
    let of = |figure: fn(&PastMigration) -> Option<(Quantiles, f64)>| -> Vec<PastForecast> {
        let known = past.iter().filter_map(|past| figure(past));
        known.map(|(predicted, actual)| PastForecast { predicted, actual, explained: 0.0 }).collect()
    };
    let bytes = of(|past| Some((past.forecast_sent_bytes?, super::precopy::as_f64(past.sent_bytes?))));
    corrected(&mut forecast.sent_bytes, &bytes);
    let totals: Vec<PastForecast> = past
        .iter()
        .map(|past| {
            let bytes = past.forecast_sent_bytes.zip(past.sent_bytes.map(super::precopy::as_f64));
            PastForecast::of_duration(past.forecast_total_seconds, past.total_seconds, bytes)
        })
        .collect();
    if corrected(&mut forecast.total_seconds, &totals) {
        if let (Fact::Known(total), Fact::Known(replayed), Fact::Known(before), Fact::Known(sent)) = (
            &mut forecast.total_seconds,
            &forecast.replayed_total_seconds,
            &forecast.replayed_sent_bytes,
            &forecast.sent_bytes,
        ) {
            *total = with_bytes(*total, *replayed, (*before, *sent));
        }
        forecast.corrected_by_migrations = u32::try_from(totals.len()).unwrap_or(u32::MAX);
        forecast.fixed_costs = Fact::Known(conditions::in_words(false, forecast.corrected_by_migrations));
    }
    // An assumed blackout says nothing that could be corrected.
    if forecast.method.known().is_some_and(|method| *method != ForecastMethod::Assumed) {
        let blackouts = of(|past| Some((past.forecast_blackout_seconds?, past.downtime_seconds?)));
        corrected(&mut forecast.blackout_seconds, &blackouts);
    }
}

/// Corrects a figure if earlier forecasts of it are known.
fn corrected(figure: &mut Fact<Quantiles>, past: &[PastForecast]) -> bool {
    let Fact::Known(known) = figure else { return false };
    let Some(correction) = Correction::from_past(past) else { return false };
    *known = correction.apply(*known);
    true
}

/// Earlier migrations between these hosts, without those of other QEMU versions.
fn past_of_the_pair(facts: &Facts) -> impl Iterator<Item = &PastMigration> {
    let source = facts.vm.known().and_then(|vm| vm.qemu_version.known().copied());
    let destination = facts.destination.known().and_then(|host| host.qemu_version.known().copied());
    let is = |then: Option<Version>, now: Option<Version>| then.is_none() || now.is_none() || then == now;
    let past = facts.history.known().and_then(|history| history.past_migrations.known());
    past.into_iter()
        .flatten()
        .filter(move |past| is(past.source_version, source) && is(past.destination_version, destination))
}

/// Hours with a lower dirty rate than now, the quietest first.
pub(super) fn quiet_hours<'f>(facts: &'f Facts, rate_bytes_per_second: u64) -> Vec<&'f ObservedHour> {
    let hours = |history: &'f History| history.observed_hours.known();
    let Some(hours) = facts.history.known().and_then(hours) else { return Vec::new() };
    let most = super::precopy::as_f64(rate_bytes_per_second) * QUIET;
    let mut quiet: Vec<&ObservedHour> =
        hours.iter().filter(|hour| super::precopy::as_f64(hour.rate_bytes_per_second) <= most).collect();
    quiet.sort_by_key(|hour| (hour.rate_bytes_per_second, hour.hour));
    quiet
}

/// Forecast of the migration at an observed hour: a replay of the hour's windows, for a guest with the present share of
/// zero pages.
pub(super) fn at_hour(
    hour: &ObservedHour,
    (ram_bytes, zero_ratio): (u64, f64),
    settings: &MigrationParameters,
    conditions: &Conditions,
    goal: &Goal,
    seed: u64,
) -> Option<Alternative> {
    let groups = synthetic_trace::fit_page_groups(&hour.dirty_windows, ram_bytes);
    let trace = synthetic_trace::from_page_groups(&groups, ram_bytes, zero_ratio, seed);
    let replay = Replayer::of_groups(&trace).ok()?.sketch(settings, conditions, goal, seed);
    Some(Alternative {
        setting: format!("a start at {:02}:00 UTC, as observed", hour.hour),
        converges_ratio: replay.converges_ratio,
        total_seconds: replay.total_seconds,
        blackout_seconds: replay.blackout_seconds,
        throttle_pause_seconds: replay.throttle_pause_seconds,
        downtime_limit_seconds: settings.downtime_limit_seconds,
        costs: "a later start".to_owned(),
    })
}

/// Duration in words, or "does not complete".
pub(super) fn in_words(total: Option<Quantiles>, converges_ratio: f64) -> String {
    match total.filter(|_| converges_ratio >= 0.5) {
        Some(total) if total.p50 >= 9.5 => format!("{:.0} s", total.p50),
        Some(total) => format!("{:.1} s", total.p50),
        None => "does not complete".to_owned(),
    }
}
