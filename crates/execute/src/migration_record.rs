//! What was foretold of a migration and what came of it: written into the ledger, where later forecasts learn from it.

use std::time::Duration;

use super::run::Run;
use vmgate_facts::{Fact, Facts, Forecast, Quantiles};
use vmgate_ledger::{
    Entry,
    entry::{Migration, Outcome, Pair, Rehearsal},
};
use vmgate_libvirt::JobStats;

impl Run<'_> {
    /// Writes down what was forecast and what came. `account` is libvirt's own, where the migration completed.
    pub(super) fn account_for(&self, account: Option<&JobStats>, outcome: Outcome) {
        let verdict = self.assignment.pass.verdict();
        let [forecast_total_seconds, replayed_total_seconds, forecast_blackout_seconds] =
            verdict.forecast.as_ref().map(foretold).unwrap_or_default();
        let last = self.over.as_ref().and_then(|over| over.last.as_ref());
        let stats = account.or(last);
        let seconds = |time: Duration| time.as_secs_f64();
        let pair = self.facts.as_ref().and_then(pair);
        let rehearsal = self.assignment.plan.rehearsal;
        let entry = Entry::Migration(Migration {
            run: self.journal.run.run.clone(),
            vm: verdict.moved.vm.clone(),
            source: verdict.moved.source.clone(),
            destination: verdict.moved.destination.clone(),
            pair: pair.clone(),
            outcome,
            rehearsal,
            forecast_total_seconds,
            replayed_total_seconds,
            forecast_blackout_seconds,
            total_seconds: stats.and_then(|stats| stats.elapsed).map(seconds),
            downtime_seconds: account.and_then(|account| account.downtime).map(seconds),
            sent_bytes: stats.and_then(|stats| stats.data_processed_bytes),
            rounds: stats.and_then(|stats| stats.iteration),
            downtime_limit_seconds: self.over.as_ref().map(|over| seconds(over.limit)),
            throttle_percent: last.and_then(|last| last.throttle_percent),
        });
        self.remember(&entry);
        if let Some(pair) = pair.filter(|_| rehearsal) {
            self.remember(&Entry::Rehearsal(Rehearsal {
                vm: verdict.moved.vm.clone(),
                pair,
                there_and_back: false,
                passed: outcome == Outcome::Completed,
                by: self.assignment.keeper.by.clone(),
                note: Some(format!("run {}", self.journal.run.run)),
            }));
        }
    }

    fn remember(&self, entry: &Entry) {
        if let Err(error) = self.journal.ledger.append(entry) {
            tracing::error!("this is not in the ledger: {entry}: {error}");
        }
    }
}

/// The duration as the verdict had it, the same before earlier migrations corrected it, and the blackout.
fn foretold(forecast: &Forecast) -> [Option<Quantiles>; 3] {
    [&forecast.total_seconds, &forecast.replayed_total_seconds, &forecast.blackout_seconds]
        .map(|figure: &Fact<Quantiles>| figure.known().copied())
}

/// The version that runs the VM is what sends: where the source was updated under it, that is not the installed one.
fn pair(facts: &Facts) -> Option<Pair> {
    let vm = facts.vm.known()?;
    Some(Pair {
        source_version: *vm.qemu_version.known()?,
        destination_version: *facts.destination.known()?.qemu_version.known()?,
        machine_type: vm.machine_type.known()?.clone(),
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use vmgate_facts::{History, PastMigration, Vm};
    use vmgate_ledger::Ledger;
    use vmgate_rules::Catalogues;
    use vmgate_verdict::NameAndUuid;

    /// What the ledger remembers of a migration that took `total` seconds and was foretold so.
    fn remembered(forecast: &Forecast, total: f64) -> PastMigration {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path().join("ledger.db")).unwrap();
        let named = |name: &str| NameAndUuid { name: None, uuid: Some(name.to_owned()) };
        let [forecast_total_seconds, replayed_total_seconds, forecast_blackout_seconds] = foretold(forecast);
        let migration = Migration {
            run: "r1".to_owned(),
            vm: named("vm"),
            source: named("a"),
            destination: named("b"),
            pair: None,
            outcome: Outcome::Completed,
            rehearsal: false,
            forecast_total_seconds,
            replayed_total_seconds,
            forecast_blackout_seconds,
            total_seconds: Some(total),
            downtime_seconds: None,
            sent_bytes: None,
            rounds: None,
            downtime_limit_seconds: None,
            throttle_percent: None,
        };
        ledger.append(&Entry::Migration(migration)).unwrap();
        ledger.past("vm", "a", "b").unwrap().past_migrations.known().unwrap()[0]
    }

    #[test]
    fn a_correction_that_holds_is_not_taken_back_by_what_it_led_to() {
        let text = include_str!("../../../rules/fixtures/idle-vm.yaml");
        let facts: Facts = serde_yaml::from_str(text).unwrap();
        let foretold_with = |past: Vec<PastMigration>| {
            let history = History { past_migrations: Fact::Known(past), ..History::default() };
            let facts = Facts { history: Fact::Known(history), ..facts.clone() };
            vmgate_forecast::derive(facts, &Catalogues::default()).1
        };
        let first = foretold_with(Vec::new());
        let came = first.total_seconds.known().unwrap().p50 * 1.5;
        let mut past = vec![remembered(&first, came); 20];
        let corrected = foretold_with(past.clone());
        let middle = |forecast: &Forecast| forecast.total_seconds.known().unwrap().p50;
        assert!((middle(&corrected) / came - 1.0).abs() < 0.01, "{}", middle(&corrected));
        // Twenty more that came as they were foretold, corrected, teach nothing new.
        past.extend(vec![remembered(&corrected, came); 60]);
        assert!((middle(&foretold_with(past)) / came - 1.0).abs() < 0.01);
    }

    #[test]
    fn the_pair_is_of_the_version_that_runs_the_vm() {
        let mut facts: Facts =
            serde_yaml::from_str(include_str!("../../../rules/fixtures/idle-vm.yaml")).unwrap();
        let running = "7.1.0".parse().unwrap();
        facts.vm = facts.vm.map(|vm| Vm { qemu_version: Fact::Known(running), ..vm });
        assert_eq!(pair(&facts).unwrap().source_version, running);
        assert_eq!(pair(&Facts::empty(Timestamp::UNIX_EPOCH)), None);
    }
}
