//! Ledger record of a migration: its forecast and its measured result, from which later forecasts learn.

use std::time::Duration;

use vmgate_facts::{Fact, Facts, Forecast, Quantiles};
use vmgate_ledger::{
    Entry,
    entry::{HypervisorPair, Migration, MigrationOutcome, Rehearsal},
};
use vmgate_libvirt::JobStats;

use super::run::Run;

impl Run<'_> {
    /// Records forecast and measured result. `job_stats` are those of libvirt, where the migration completed.
    pub(super) fn record_migration(&self, job_stats: Option<&JobStats>, outcome: MigrationOutcome) {
        let verdict = self.assignment.pass.verdict();
        let [
            forecast_total_seconds,
            replayed_total_seconds,
            forecast_blackout_seconds,
            replayed_blackout_seconds,
            replayed_sent_bytes,
        ] = verdict.forecast.as_ref().map(forecast_quantiles).unwrap_or_default();
        let last = self.ended.as_ref().and_then(|ended| ended.last_stats.as_ref());
        let stats = job_stats.or(last);
        let seconds = |time: Duration| time.as_secs_f64();
        let pair = self.facts.as_ref().and_then(version_pair);
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
            replayed_blackout_seconds,
            replayed_sent_bytes,
            total_seconds: stats.and_then(|stats| stats.elapsed).map(seconds),
            downtime_seconds: job_stats.and_then(|job_stats| job_stats.downtime).map(seconds),
            sent_bytes: stats.and_then(|stats| stats.data_processed_bytes),
            rounds: stats.and_then(|stats| stats.iteration),
            downtime_limit_seconds: self.ended.as_ref().map(|ended| seconds(ended.downtime_limit)),
            throttle_percent: last.and_then(|last| last.throttle_percent),
            silences: self.silences.clone(),
        });
        self.append(&entry);
        if let Some(pair) = pair.filter(|_| rehearsal) {
            self.append(&Entry::Rehearsal(Rehearsal {
                vm: verdict.moved.vm.clone(),
                pair,
                there_and_back: false,
                passed: outcome == MigrationOutcome::Completed,
                by: self.assignment.evidence_options.by.clone(),
                note: Some(format!("run {}", self.journal.run.run)),
                twin: None,
            }));
        }
    }

    fn append(&self, entry: &Entry) {
        if let Err(error) = self.journal.ledger.append(entry) {
            tracing::error!("this could not be written to the ledger: {entry}: {error}");
        }
    }
}

/// Forecasts of duration and blackout, each as in the verdict and before the correction by earlier migrations, and of the bytes
/// before it.
fn forecast_quantiles(forecast: &Forecast) -> [Option<Quantiles>; 5] {
    [
        &forecast.total_seconds,
        &forecast.replayed_total_seconds,
        &forecast.blackout_seconds,
        &forecast.replayed_blackout_seconds,
        &forecast.replayed_sent_bytes,
    ]
    .map(|figure: &Fact<Quantiles>| figure.known().copied())
}

/// QEMU versions and machine type. The source's version is that of the running process: if the host was updated since the
/// VM started, it is not the installed one.
fn version_pair(facts: &Facts) -> Option<HypervisorPair> {
    let vm = facts.vm.known()?;
    Some(HypervisorPair {
        source_version: *vm.qemu_version.known()?,
        destination_version: *facts.destination.known()?.qemu_version.known()?,
        machine_type: vm.machine_type.known()?.clone(),
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use vmgate_facts::{History, PastMigration, Vm};
    use vmgate_ledger::Ledger;
    use vmgate_rules::Catalogues;
    use vmgate_verdict::NameAndUuid;

    use super::*;

    /// Ledger record of a migration that took `total` seconds, with this forecast.
    fn remembered(forecast: &Forecast, total: f64) -> PastMigration {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path().join("ledger.db")).unwrap();
        let uuid = |text: &str| text.parse::<vmgate_facts::Uuid>().unwrap();
        let vm = uuid("5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11");
        let hosts =
            ["6f0d3c4e-1111-4222-8333-000000000001", "6f0d3c4e-1111-4222-8333-000000000002"].map(uuid);
        let named = |uuid: &vmgate_facts::Uuid| NameAndUuid { name: None, uuid: Some(uuid.clone()) };
        let [
            forecast_total_seconds,
            replayed_total_seconds,
            forecast_blackout_seconds,
            replayed_blackout_seconds,
            replayed_sent_bytes,
        ] = forecast_quantiles(forecast);
        let migration = Migration {
            run: "r1".to_owned(),
            vm: named(&vm),
            source: named(&hosts[0]),
            destination: named(&hosts[1]),
            pair: None,
            outcome: MigrationOutcome::Completed,
            rehearsal: false,
            forecast_total_seconds,
            replayed_total_seconds,
            forecast_blackout_seconds,
            replayed_blackout_seconds,
            replayed_sent_bytes,
            total_seconds: Some(total),
            downtime_seconds: None,
            sent_bytes: None,
            rounds: None,
            downtime_limit_seconds: None,
            throttle_percent: None,
            silences: Vec::new(),
        };
        ledger.append(&Entry::Migration(migration)).unwrap();
        ledger.past(&vm, &hosts[0], &hosts[1]).unwrap().past_migrations.known().unwrap()[0]
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
        assert_eq!(version_pair(&facts).unwrap().source_version, running);
        assert_eq!(version_pair(&Facts::empty(Timestamp::UNIX_EPOCH)), None);
    }
}
