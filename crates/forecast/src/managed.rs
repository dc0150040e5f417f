//! Forecast of the migration that a manager would run (`--as`): its schedule, its end, and which of its settings to change.

use rayon::prelude::*;
use vmgate_facts::{
    Alternative, Cause, Change, Fact, Facts, ManagedEnd, ManagedEndAction, ManagedMigration,
    ManagedStallStep, MigrationTransport, Quantiles,
};
use vmgate_rules::catalogue::{Catalogues, ManagerEntry, MigrationKnob as Knob};

use super::{
    precopy::as_f64,
    predict::{Advised, with_words},
    replay::{
        AutoConverge, Conditions, Goal, MigrationParameters, PredictedMigration, Replayer, Schedule,
        ScheduledAction, ScheduledStep, SettingsChange, StallEvidence, StallRule, StallStep,
    },
};

/// libvirt's size of the XBZRLE cache.
const XBZRLE_CACHE_BYTES: u64 = 64 << 20;
/// Part of the accepted blackout that is tried as a limit: QEMU does not count all of the blackout.
const LIMIT_RATIO: f64 = 0.7;
/// Share of the runs from which on a forecast speaks of certainty, in both directions.
const SURE: f64 = 0.95;

/// A manager, and the migration that it would run.
#[derive(Clone, Copy)]
pub(super) struct Managed<'a> {
    entry: &'a ManagerEntry,
    pub(super) migration: &'a ManagedMigration,
}

/// The migration that the manager of the change would run; none where vmgate runs it.
pub(super) fn migration(facts: &Facts, catalogues: &Catalogues) -> Fact<Option<ManagedMigration>> {
    let Some(id) = &facts.change.run_by else { return Fact::Known(None) };
    let Some(entry) = entry(id, catalogues) else {
        let known: Vec<&str> = catalogues.managers().iter().map(|entry| entry.id.as_str()).collect();
        let known = known.join(", ");
        return Fact::unknown(Cause::NotListed, format!("no manager {id} is known; known are {known}"));
    };
    let memory = facts.vm.as_ref().and_then(|vm| vm.memory_max_bytes.clone());
    let settings = if entry.files.is_empty() {
        Fact::Known(Vec::new())
    } else {
        facts
            .source
            .as_ref()
            .and_then(|host| host.managers.as_ref().and_then(|managers| managers.settings.clone()))
    };
    memory.and_then(|memory| {
        settings.and_then(|settings| {
            entry
                .migration(&settings, memory, &[])
                .map_or_else(Fact::Unknown, |found| Fact::Known(Some(found)))
        })
    })
}

fn entry<'a>(id: &str, catalogues: &'a Catalogues) -> Option<&'a ManagerEntry> {
    catalogues.managers().iter().find(|entry| entry.id == id)
}

/// Puts the manager's settings in the place of those of the change, so that rules judge the migration that would run.
pub(super) fn apply(migration: &ManagedMigration, change: &mut Change) {
    change.bandwidth_limit_bytes_per_second = migration.bandwidth_limit_bytes_per_second;
    change.settings.auto_converge = migration.auto_converge;
    change.settings.post_copy = migration.post_copy;
    change.settings.xbzrle_cache_bytes = migration.xbzrle.then_some(XBZRLE_CACHE_BYTES);
    change.settings.multifd_channels = migration.multifd_channels;
    change.settings.tls = migration.tls;
}

impl<'a> Managed<'a> {
    /// The manager of a migration.
    pub(super) fn of(migration: &'a ManagedMigration, catalogues: &'a Catalogues) -> Option<Self> {
        Some(Self { entry: entry(&migration.manager, catalogues)?, migration })
    }

    /// The last downtime limit that the manager sets; none where that is QEMU's default.
    pub(super) fn longest_limit(&self) -> Option<f64> {
        self.migration.downtime_limits.last().map(|step| step.limit_seconds)
    }

    /// Carrier of its migrations, where without it it would be the usual one.
    pub(super) fn transport(&self, usual: MigrationTransport) -> MigrationTransport {
        transport(self.migration, usual)
    }

    /// Predicts the migration as the manager would run it, and with changes of the manager's settings.
    pub(super) fn predict(
        &self,
        facts: &Facts,
        replayer: &Replayer,
        usual: &MigrationParameters,
        (conditions, goal, seed): (&Conditions, &Goal, u64),
    ) -> Advised {
        let settings = parameters(self.migration, usual);
        let as_it_is = replayer.replay(&settings, conditions, goal, seed);
        let try_out = |instead: Vec<(Knob, String)>| {
            self.tried(facts, &instead, replayer, usual, (conditions, goal, seed))
        };
        let tried: Vec<(Alternative, bool)> =
            self.changes(goal).into_par_iter().filter_map(try_out).collect();
        let words = self.words(&as_it_is);
        let recommended = if goal.is_met_by(&as_it_is) {
            Some(with_words(Alternative::PRESENT, &settings, &as_it_is, String::new()))
        } else {
            tried.iter().find(|(_, meets)| *meets).map(|(tried, _)| tried.clone())
        };
        let advice = match &recommended {
            Some(_) if goal.is_met_by(&as_it_is) => "its present settings meet the goals".to_owned(),
            Some(change) => format!("set {}", change.setting),
            None => format!(
                "no change of its settings meets the goals: reduce the load of the guest, use a faster path, or accept a longer \
                 blackout{}",
                if self.migration.end.is_some() {
                    ""
                } else {
                    "; nothing ends such a migration but a person"
                }
            ),
        };
        let alternatives = tried.into_iter().map(|(tried, _)| tried).collect();
        Advised { as_it_is, settings, alternatives, recommended, words: format!("{words}; {advice}") }
    }

    /// Changes of the manager's settings to try, the mildest first.
    fn changes(&self, goal: &Goal) -> Vec<Vec<(Knob, String)>> {
        let on = |knob| (knob, "true".to_owned());
        let mut limit = Vec::new();
        if let Some(own) =
            self.entry.in_own_unit(Knob::DowntimeLimit, goal.longest_blackout_seconds * LIMIT_RATIO)
        {
            limit.push((Knob::DowntimeLimit, own));
            let short = self.entry.in_own_unit(Knob::StepSecondsPerGib, 3.0);
            limit.extend(short.map(|short| (Knob::StepSecondsPerGib, short)));
        }
        let mut changes = Vec::new();
        if self.migration.bandwidth_limit_bytes_per_second.is_some() {
            changes.push(vec![(Knob::BandwidthLimit, "0".to_owned())]);
        }
        changes.push(limit.clone());
        if !self.migration.auto_converge {
            changes.push(vec![on(Knob::AutoConverge)]);
            changes.push(limit.into_iter().chain([on(Knob::AutoConverge)]).collect());
        }
        if !self.migration.post_copy {
            changes.push(vec![on(Knob::PostCopy)]);
        }
        changes.retain(|change| !change.is_empty());
        changes.dedup();
        changes
    }

    /// Forecast with other settings, and if it meets the goals; none where the manager leaves no such choice.
    fn tried(
        &self,
        facts: &Facts,
        instead: &[(Knob, String)],
        replayer: &Replayer,
        usual: &MigrationParameters,
        (conditions, goal, seed): (&Conditions, &Goal, u64),
    ) -> Option<(Alternative, bool)> {
        let words: Option<Vec<String>> =
            instead.iter().map(|(knob, value)| self.entry.setting_words(*knob, value)).collect();
        let managers = facts.source.known().and_then(|host| host.managers.known());
        let settings =
            managers.and_then(|managers| managers.settings.known()).map(Vec::as_slice).unwrap_or_default();
        let memory = *facts.vm.known()?.memory_max_bytes.known()?;
        let migration = self.entry.migration(settings, memory, instead).ok()?;
        let settings = parameters(&migration, usual);
        let replay = replayer.sketch(&settings, conditions, goal, seed);
        let costs =
            instead.iter().filter_map(|(knob, _)| costs(*knob, &replay)).collect::<Vec<_>>().join("; ");
        Some((with_words(&words?.join(" and "), &settings, &replay, costs), goal.is_met_by(&replay)))
    }

    /// The predicted end of the migration in words.
    fn words(&self, replay: &PredictedMigration) -> String {
        let title = &self.migration.title;
        let silence = replay
            .blackout_seconds
            .map_or_else(String::new, |blackout| format!(" with {} of silence", seconds(blackout.p95)));
        let took = |total: Quantiles| seconds(total.p50);
        match (self.migration.end, replay.total_seconds) {
            (Some(ManagedEnd { at_seconds, action: ManagedEndAction::Pause }), Some(total))
                if total.p50 >= at_seconds =>
            {
                format!("{title} would force it to complete after {}{silence}", seconds(at_seconds))
            }
            (Some(ManagedEnd { at_seconds, action: ManagedEndAction::PostCopy }), Some(total))
                if total.p50 >= at_seconds =>
            {
                format!("{title} would switch to post-copy after {}{silence}", seconds(at_seconds))
            }
            (_, Some(total)) if replay.converges_ratio >= SURE => {
                format!("{title} would complete it in {}{silence}", took(total))
            }
            (Some(end), _) if replay.converges_ratio <= 1.0 - SURE => {
                format!("{title} would abort it after {}, and the VM would stay", seconds(end.at_seconds))
            }
            (None, _) if replay.converges_ratio <= 1.0 - SURE => {
                format!("{title} would never complete it, and sets no time-out")
            }
            (end, _) => {
                let otherwise = match end {
                    Some(end) => format!("abort it after {}", seconds(end.at_seconds)),
                    None => "never end it".to_owned(),
                };
                let percent = (replay.converges_ratio * 100.0).round();
                format!(
                    "{title} would complete it in {percent} % of the replays{silence}, and else {otherwise}"
                )
            }
        }
    }
}

/// Costs of a change of the manager's settings.
fn costs(knob: Knob, replay: &PredictedMigration) -> Option<String> {
    let change = match knob {
        Knob::BandwidthLimit => SettingsChange::NoBandwidthLimit,
        Knob::AutoConverge => SettingsChange::AutoConverge,
        Knob::PostCopy => SettingsChange::PostCopy,
        _ => return None,
    };
    Some(change.costs(replay))
}

/// Parameters of a migration that a manager runs: the manager's over the usual ones.
pub fn parameters(migration: &ManagedMigration, usual: &MigrationParameters) -> MigrationParameters {
    let limit = |step: &vmgate_facts::DowntimeStep| ScheduledStep {
        at_seconds: step.at_seconds,
        action: ScheduledAction::DowntimeLimit(step.limit_seconds),
    };
    let mut steps: Vec<ScheduledStep> = migration.downtime_limits.iter().map(limit).collect();
    steps.extend(migration.end.map(|end| ScheduledStep {
        at_seconds: end.at_seconds,
        action: match end.action {
            ManagedEndAction::Abort => ScheduledAction::Abort,
            ManagedEndAction::Pause => ScheduledAction::Pause,
            ManagedEndAction::PostCopy => ScheduledAction::PostCopy,
        },
    }));
    let defaults = MigrationParameters::default();
    MigrationParameters {
        stall: stall(migration),
        downtime_limit_seconds: migration
            .downtime_limits
            .first()
            .map_or(defaults.downtime_limit_seconds, |step| step.limit_seconds),
        bandwidth_limit_bytes_per_second: migration.bandwidth_limit_bytes_per_second.map(as_f64),
        auto_converge: migration.auto_converge.then(AutoConverge::default),
        xbzrle_cache_bytes: migration.xbzrle.then_some(XBZRLE_CACHE_BYTES),
        multifd_channels: migration.multifd_channels,
        post_copy: migration.post_copy,
        transport: transport(migration, usual.transport),
        schedule: Schedule::new(steps),
        ..usual.clone()
    }
}

/// Carrier of the manager's migration.
fn transport(migration: &ManagedMigration, usual: MigrationTransport) -> MigrationTransport {
    match migration {
        ManagedMigration { tunnelled: true, .. } => MigrationTransport::Tunnelled,
        ManagedMigration { tls: true, .. } => MigrationTransport::Tls,
        _ => usual,
    }
}

/// Steps of the manager against a migration that makes no progress.
fn stall(migration: &ManagedMigration) -> Option<StallRule> {
    let stall = migration.stall.as_ref()?;
    let step = |step: &ManagedStallStep| StallStep {
        after: match step.rounds {
            0 => StallEvidence::Rises(step.rises),
            rounds => StallEvidence::Rounds(rounds),
        },
        action: step.limit_seconds.map_or(ScheduledAction::Abort, ScheduledAction::DowntimeLimit),
    };
    Some(StallRule { look_seconds: stall.look_seconds, steps: stall.steps.iter().map(step).collect() })
}

fn seconds(seconds: f64) -> String {
    if seconds >= 9.5 { format!("{seconds:.0} s") } else { format!("{seconds:.1} s") }
}

#[cfg(test)]
mod tests;
