//! Checks of a site, for the page and Prometheus: the newest verdict on each VM, which hosts can be emptied, and how forecasts
//! compared with what came.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use vmgate_ledger::{
    Entry, Record,
    entry::{Migration, MigrationOutcome, VerdictSummary},
};
use vmgate_verdict::{Decision, NameAndUuid};

/// Migrations that the comparison of forecasts shows.
const SHOWN: usize = 60;

/// The newest verdict on each VM, and the newest migrations with a forecast.
#[derive(Debug, Clone, Default)]
pub struct Checks {
    newest: BTreeMap<String, VerdictSummary>,
    migrations: VecDeque<(Timestamp, Migration)>,
}

/// A host with the VMs that were checked on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct CheckedHost {
    /// Number of its VMs whose newest verdict is GO and holds.
    pub may_leave: usize,
    /// Number of its VMs whose newest verdict was GO and is too old.
    pub outdated: usize,
    /// VMs that may not leave.
    pub held: Vec<String>,
}

impl CheckedHost {
    /// Number of the VMs.
    pub(super) fn vms(&self) -> usize {
        self.may_leave + self.outdated + self.held.len()
    }
}

impl Checks {
    /// Applies a record. A verdict for a time that somebody chose says nothing of now, and a VM that has moved is checked anew.
    pub fn read(&mut self, record: &Record) {
        match &record.entry {
            Entry::Verdict(given) if !given.simulated => {
                self.newest.insert(key(&given.moved.vm), given.clone());
            }
            Entry::Migration(migration) => {
                let moved =
                    matches!(migration.outcome, MigrationOutcome::Completed | MigrationOutcome::Suffers);
                if moved {
                    self.newest.remove(&key(&migration.vm));
                }
                if migration.forecast_total_seconds.is_some() && migration.total_seconds.is_some() {
                    self.migrations.push_back((record.at, migration.clone()));
                    if self.migrations.len() > SHOWN {
                        self.migrations.pop_front();
                    }
                }
            }
            _ => {}
        }
    }

    /// The newest verdicts, those that need somebody first.
    pub fn verdicts(&self) -> Vec<&VerdictSummary> {
        let mut all: Vec<&VerdictSummary> = self.newest.values().collect();
        all.sort_by_key(|verdict| (is_go(verdict), verdict.moved.source.label(), verdict.moved.vm.label()));
        all
    }

    /// Hosts that verdicts are about, by name.
    pub(super) fn hosts(&self, now: Timestamp) -> BTreeMap<&str, CheckedHost> {
        let mut hosts: BTreeMap<&str, CheckedHost> = BTreeMap::new();
        for verdict in self.newest.values() {
            let host = hosts.entry(verdict.moved.source.label()).or_default();
            match (is_go(verdict), verdict.expires_at > now) {
                (true, true) => host.may_leave += 1,
                (true, false) => host.outdated += 1,
                (false, _) => host.held.push(verdict.moved.vm.label().to_owned()),
            }
        }
        hosts
    }

    /// The newest migrations that had a forecast, oldest first.
    pub fn migrations(&self) -> impl Iterator<Item = &(Timestamp, Migration)> {
        self.migrations.iter()
    }
}

/// True if a verdict is GO.
pub(super) fn is_go(verdict: &VerdictSummary) -> bool {
    matches!(verdict.decision, Decision::Go(_))
}

fn key(vm: &NameAndUuid) -> String {
    vm.uuid.as_ref().map_or_else(|| vm.label().to_owned(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use vmgate_ledger::Ledger;
    use vmgate_verdict::{Verdict, sample};

    use super::*;

    fn read(verdicts: &[Verdict]) -> Checks {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path().join("ledger.db")).unwrap();
        let mut checks = Checks::default();
        for verdict in verdicts {
            checks.read(&ledger.append(&Entry::Verdict(verdict.into())).unwrap());
        }
        checks
    }

    #[test]
    fn a_host_can_be_emptied_if_every_vm_on_it_may_leave_now() {
        let mut other = sample::go();
        other.moved.source = sample::no_go().moved.source;
        other.moved.vm = NameAndUuid { name: Some("other".into()), uuid: None };
        let checks = read(&[sample::no_go(), other.clone()]);
        let before = other.expires_at - jiff::SignedDuration::from_secs(1);
        let hosts = checks.hosts(before);
        let host = hosts.values().next().unwrap();
        assert_eq!((hosts.len(), host.may_leave, host.held.len()), (1, 1, 1), "{hosts:?}");
        assert_eq!(checks.hosts(other.expires_at).values().next().unwrap().outdated, 1);
        assert!(!is_go(checks.verdicts()[0]), "what needs somebody comes first");
    }

    #[test]
    fn only_the_newest_verdict_on_a_vm_counts_and_a_simulated_one_never() {
        let mut better = sample::go();
        better.moved = sample::no_go().moved;
        let simulated = Verdict { simulated: true, ..sample::no_go() };
        let checks = read(&[sample::no_go(), better, simulated]);
        let verdicts = checks.verdicts();
        assert_eq!(verdicts.len(), 1);
        assert!(is_go(verdicts[0]));
    }
}
