//! Forecast of a migration from the facts of a move: a replay of the dirty trace, else of the measured dirty windows,
//! else an estimate from rates.

use sha2::{Digest as _, Sha256};
use vmgate_facts::{
    Accelerator, Alternative, Cause, Fact, Facts, Forecast, ForecastMethod, LoadDependence,
    MigrationTransport, Provenance, Quantiles, Unknown, Vm, trace::DirtyTrace,
};

use super::{
    conditions::{self, KnownConditions},
    history,
    load::{self, LoadQuestion},
    managed::Managed,
    memory::TouchedMemory,
    precopy,
    replay::{
        Advice, AutoConverge, Conditions, Goal, Interval, MigrationParameters, PredictedMigration, Replayer,
        SettingsChange, WhatIf, synthetic_trace,
    },
};

/// Minimum number of windows for a synthetic guest: with one, any mixture of pages would explain the window.
const FEWEST_WINDOWS: usize = 2;

/// Input of a replay.
struct Evidence {
    trace: DirtyTrace,
    method: ForecastMethod,
    /// Path of the fact that the trace comes from.
    path: &'static str,
    seconds: f64,
    /// Share of zero pages among those that are not known to be zero.
    resident_zero_ratio: Interval,
}

/// Predicts the migration, and records in the provenance the facts on which the forecast is based.
pub(super) fn forecast(facts: &mut Facts, managed: Option<Managed>) -> Forecast {
    let usual = transport(facts);
    let carrier = managed.map_or(usual, |managed| managed.transport(usual));
    let assumed = precopy::forecast(facts, managed.and_then(|managed| managed.longest_limit()), carrier);
    let (mut forecast, path, seconds) = match evidence(facts) {
        Some(evidence) => match replayed(facts, &evidence, &assumed, managed) {
            Some(forecast) => (forecast, evidence.path, Some(evidence.seconds)),
            None => (assumed, "vm.dirty_rate", None),
        },
        None => (assumed, "vm.dirty_rate", None),
    };
    history::correct(&mut forecast, facts);
    if let Some(of) = facts.provenance_of(path) {
        let method = format!("computed from {path} ({}: {})", of.collector, of.method);
        let own = Provenance { collector: "vmgate".into(), method, at: of.at, window_seconds: seconds };
        facts.provenance.insert("forecast".into(), own);
    }
    forecast
}

/// Forecast of which nothing is known, for one reason.
pub(super) fn unknown(why: &Unknown) -> Forecast {
    Forecast {
        method: Fact::Unknown(why.clone()),
        converges_ratio: Fact::Unknown(why.clone()),
        total_seconds: Fact::Unknown(why.clone()),
        blackout_seconds: Fact::Unknown(why.clone()),
        silence_seconds: Fact::Unknown(why.clone()),
        downtime_limit_seconds: Fact::Unknown(why.clone()),
        throttle_pause_seconds: Fact::Unknown(why.clone()),
        advice: Fact::Unknown(why.clone()),
        ..Forecast::default()
    }
}

fn evidence(facts: &Facts) -> Option<Evidence> {
    let vm = facts.vm.known()?;
    if let Some(trace) = vm.dirty_trace.known().filter(|trace| trace.check().is_ok()) {
        let (method, path) = (ForecastMethod::Replay, "vm.dirty_trace");
        let seconds = trace.seconds();
        return Some(Evidence {
            trace: trace.clone(),
            method,
            path,
            seconds,
            resident_zero_ratio: Interval::none(),
        });
    }
    let windows = vm.dirty_windows.known()?;
    let longest = windows.iter().map(|window| window.window_seconds).fold(0.0, f64::max);
    let (trace, resident_zero_ratio) = guest_of_windows(vm, seed(facts))?;
    let (method, path) = (ForecastMethod::ReplayOfWindows, "vm.dirty_windows");
    Some(Evidence { trace, method, path, seconds: longest, resident_zero_ratio })
}

/// Synthetic guest of a VM without a trace, from its dirty windows and what the host tells of its memory, and the share of zero
/// pages among those that are not known to be zero. For [`Replayer::of_groups`].
pub fn guest_of_windows(vm: &Vm, seed: u64) -> Option<(DirtyTrace, Interval)> {
    let windows = vm.dirty_windows.known().filter(|windows| windows.len() >= FEWEST_WINDOWS)?;
    // Page sampling does not count zero pages: what the guest has touched is told by the host.
    let memory = TouchedMemory::of(vm)?;
    let groups = synthetic_trace::fit_page_groups(windows, memory.touched_bytes());
    let zero_ratio = memory.untouched_ratio_beside(&groups);
    let trace = synthetic_trace::from_page_groups(&groups, memory.ram_bytes, zero_ratio, seed);
    Some((trace, memory.resident_zero_ratio))
}

/// Forecast by replay; `None` where the goodput of the path is not known.
fn replayed(
    facts: &Facts,
    evidence: &Evidence,
    assumed: &Forecast,
    managed: Option<Managed>,
) -> Option<Forecast> {
    let path = facts.path.known()?;
    let change = &facts.change;
    let KnownConditions { conditions, tried } = conditions::of(facts, path)?;
    let conditions = Conditions { resident_zero_ratio: evidence.resident_zero_ratio, ..conditions };
    let goal = Goal {
        longest_blackout_seconds: change.longest_blackout_seconds,
        deadline_seconds: change.deadline_seconds,
    };
    if goal.longest_blackout_seconds.is_nan() || goal.longest_blackout_seconds <= 0.0 {
        return None;
    }
    let replayer = match evidence.method {
        ForecastMethod::ReplayOfWindows => Replayer::of_groups(&evidence.trace).ok()?,
        _ => Replayer::new(&evidence.trace).ok()?,
    };
    let seed = seed(facts);
    let usual = migration_parameters(facts);
    let (advised, own) = if let Some(managed) = managed {
        (managed.predict(facts, &replayer, &usual, (&conditions, &goal, seed)), None)
    } else {
        let advice = replayer.advise(&usual, &conditions, &goal, seed);
        (Advised::from(&advice), Some(advice))
    };
    let quiet = history::quiet_hours(facts, evidence.trace.dirty_rate().rate_bytes_per_second);
    let guest = (evidence.trace.ram_bytes, zero_ratio(&evidence.trace));
    let quietest = quiet
        .first()
        .and_then(|hour| history::at_hour(hour, guest, &advised.settings, &conditions, &goal, seed));
    let question = LoadQuestion {
        replayer: &replayer,
        settings: &advised.settings,
        conditions: &conditions,
        goal: &goal,
        seed,
    };
    let ratio = assumed.dirty_to_bandwidth_ratio.known().copied();
    let observed = facts.history.known().and_then(|history| history.observed_hours.known());
    let observed = observed.map(Vec::as_slice).unwrap_or_default();
    let load_dependence = question.dependence(&advised.as_it_is, ratio, observed, guest);
    let mut alternatives = advised.alternatives;
    alternatives.extend(quietest);
    let PredictedMigration { converges_ratio, throttle_pause_seconds, limit, .. } = advised.as_it_is;
    let replay = &advised.as_it_is;
    let figure = |figure: Option<Quantiles>| match figure {
        Some(figure) => Fact::Known(figure),
        None => Fact::unknown(
            Cause::NotSupported,
            format!("the migration completes in no replay: it is limited by {}", limit.words()),
        ),
    };
    Some(Forecast {
        managed: Fact::default(), // set by derive
        method: Fact::Known(evidence.method),
        evidence_seconds: Fact::Known(evidence.seconds),
        converges_ratio: Fact::Known(converges_ratio),
        total_seconds: figure(replay.total_seconds),
        replayed_total_seconds: figure(replay.total_seconds),
        corrected_by_migrations: 0,
        sent_bytes: figure(replay.bytes),
        replayed_sent_bytes: figure(replay.bytes),
        rounds: figure(replay.rounds),
        blackout_seconds: figure(replay.blackout_seconds),
        replayed_blackout_seconds: figure(replay.blackout_seconds),
        fixed_costs: Fact::Known(conditions::in_words(tried, 0)),
        // With the dark time, once that is derived.
        silence_seconds: Fact::default(),
        silence_parts: Fact::default(),
        downtime_limit_seconds: Fact::Known(advised.settings.downtime_limit_seconds),
        throttle_pause_seconds: Fact::Known(throttle_pause_seconds),
        dirty_to_bandwidth_ratio: assumed.dirty_to_bandwidth_ratio.clone(),
        limited_by: Fact::Known(limit.words().to_owned()),
        advice: Fact::Known(own.map_or(advised.words, |advice| {
            advice_in_words(&advice, &alternatives, load_dependence.as_ref())
        })),
        load_dependence: Fact::Known(load_dependence),
        alternatives: Fact::Known(alternatives),
        recommended: Fact::Known(advised.recommended),
        quiet_hours: match facts.history.known().map(|history| &history.observed_hours) {
            Some(Fact::Known(_)) => Fact::Known(quiet.iter().map(|hour| hour.hour).collect()),
            Some(Fact::Unknown(why)) => Fact::Unknown(why.clone()),
            None => {
                Fact::unknown(Cause::NotCollected, "no ledger with observations of this VM is configured")
            }
        },
        timeline: Fact::Known(replay.timeline.clone()),
        round_ends_seconds: Fact::Known(replay.round_ends_seconds.clone()),
    })
}

fn zero_ratio(trace: &DirtyTrace) -> f64 {
    let weights = trace.weights();
    let zero = weights.iter().enumerate().filter(|(page, _)| trace.zero.get(*page)).map(|(_, weight)| weight);
    zero.sum::<f64>() / weights.iter().sum::<f64>().max(1.0)
}

/// Migration parameters of QEMU as the change sets them; libvirt's defaults for the rest.
fn migration_parameters(facts: &Facts) -> MigrationParameters {
    let (change, vm) = (&facts.change, facts.vm.known());
    let known = |accelerator: fn(&Vm) -> Option<Accelerator>| vm.and_then(accelerator);
    let defaults = MigrationParameters::default();
    MigrationParameters {
        qemu: vm.and_then(|vm| vm.qemu_version.known().copied()).unwrap_or(defaults.qemu),
        // Under emulation a page counts as dirty for longer: the safe assumption where the accelerator is not known.
        accelerator: known(|vm| vm.accelerator.known().copied()).unwrap_or(Accelerator::Tcg),
        downtime_limit_seconds: change.longest_blackout_seconds,
        bandwidth_limit_bytes_per_second: change.bandwidth_limit_bytes_per_second.map(precopy::as_f64),
        auto_converge: change.settings.auto_converge.then(AutoConverge::default),
        xbzrle_cache_bytes: change.settings.xbzrle_cache_bytes,
        multifd_channels: change.settings.multifd_channels,
        post_copy: change.settings.post_copy,
        transport: transport(facts),
        ..defaults
    }
}

/// Carrier of the pages: as the change orders it, or as the source's libvirt forces it. An unknown one is taken for the slower TLS.
fn transport(facts: &Facts) -> MigrationTransport {
    let forced = facts.source.known().and_then(|host| host.migration_tls_forced.known());
    match facts.path.known().and_then(|path| path.transport.known()) {
        Some(MigrationTransport::Tcp) if !facts.change.settings.tls && forced != Some(&true) => {
            MigrationTransport::Tcp
        }
        Some(MigrationTransport::Tunnelled) => MigrationTransport::Tunnelled,
        _ => MigrationTransport::Tls,
    }
}

/// Seed of the replay, hashed from the facts, so that the same facts give the same forecast. A rehearsal gets the same
/// forecast as any other move, recorded or not.
fn seed(facts: &Facts) -> u64 {
    let mut change = serde_json::to_value(&facts.change).unwrap_or_default();
    if let Some(change) = change.as_object_mut() {
        change.shift_remove("rehearsal");
        change.shift_remove("in_ledger");
        change.shift_remove("moves_at_once");
        // The manager's settings are in the change.
        change.shift_remove("run_by");
    }
    let text = serde_json::to_vec(&(&facts.vm, &facts.path, &change)).unwrap_or_default();
    let digest = Sha256::digest(text);
    digest.iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte))
}

fn alternative(what: &WhatIf) -> Alternative {
    with_words(what.step.words(), &what.settings, &what.replay, what.step.costs(&what.replay))
}

/// Forecast of a migration, with other settings that were tried.
pub(super) struct Advised {
    /// The migration with its settings.
    pub(super) as_it_is: PredictedMigration,
    /// Its settings.
    pub(super) settings: MigrationParameters,
    /// The migration with other settings.
    pub(super) alternatives: Vec<Alternative>,
    /// Settings that meet the goals.
    pub(super) recommended: Option<Alternative>,
    /// Forecast and advice in a sentence; empty where it is made of the alternatives.
    pub(super) words: String,
}

impl From<&Advice> for Advised {
    fn from(advice: &Advice) -> Self {
        Self {
            as_it_is: advice.as_it_is.clone(),
            settings: advice.settings.clone(),
            alternatives: advice.what_if.iter().map(alternative).collect(),
            recommended: recommended(advice),
            words: String::new(),
        }
    }
}

fn recommended(advice: &Advice) -> Option<Alternative> {
    let recommended = advice.recommended.as_ref()?;
    let words = recommended.step.map_or(Alternative::PRESENT, SettingsChange::words);
    let costs = recommended.step.map_or_else(String::new, |step| step.costs(&recommended.replay));
    Some(with_words(words, &recommended.settings, &recommended.replay, costs))
}

pub(super) fn with_words(
    words: &str,
    settings: &MigrationParameters,
    replay: &PredictedMigration,
    costs: String,
) -> Alternative {
    Alternative {
        setting: words.to_owned(),
        converges_ratio: replay.converges_ratio,
        total_seconds: replay.total_seconds,
        blackout_seconds: replay.blackout_seconds,
        throttle_pause_seconds: replay.throttle_pause_seconds,
        downtime_limit_seconds: settings.downtime_limit_seconds,
        costs,
    }
}

/// True if a setting makes the migration at least 5 % shorter, or lets it complete at all.
fn helps(other: &Alternative, as_it_is: &PredictedMigration) -> bool {
    let median = |total: Option<Quantiles>, converges_ratio| {
        total.filter(|_| converges_ratio >= 0.5).map(|total| total.p50)
    };
    let now = median(as_it_is.total_seconds, as_it_is.converges_ratio).unwrap_or(f64::INFINITY);
    median(other.total_seconds, other.converges_ratio).is_some_and(|other| other <= now * 0.95)
}

/// Advice in one sentence: duration with the settings that help, and the recommended one.
fn advice_in_words(
    advice: &Advice,
    alternatives: &[Alternative],
    load_dependence: Option<&LoadDependence>,
) -> String {
    let PredictedMigration { total_seconds, converges_ratio, .. } = &advice.as_it_is;
    let mut parts =
        vec![format!("with the present settings: {}", history::in_words(*total_seconds, *converges_ratio))];
    parts.extend(load_dependence.map(load::in_words));
    // What a change file cannot order is in the table alone.
    let usual = |at: usize| {
        let what = advice.what_if.get(at).map(|what| what.step);
        what.is_none_or(|step| step.can_be_ordered() || step == SettingsChange::TwiceTheGoodput)
    };
    let named = alternatives.iter().enumerate();
    let named = named.filter(|(at, other)| usual(*at) && helps(other, &advice.as_it_is));
    parts.extend(named.map(|(_, other)| {
        format!("with {}: {}", other.setting, history::in_words(other.total_seconds, other.converges_ratio))
    }));
    parts.push(match &advice.recommended {
        Some(recommended) => match recommended.step {
            Some(step) => format!("recommended: {}", step.words()),
            None => "the present settings meet the goals".to_owned(),
        },
        None => {
            "no single setting meets the goals: reduce the load of the guest, or use a faster path".to_owned()
        }
    });
    parts.join("; ")
}
