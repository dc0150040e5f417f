//! Queries over the ledger's records: open runs, version pairs and past forecasts.

use std::collections::BTreeMap;

use jiff::Timestamp;
use vmgate_facts::{Uuid, Version, VersionPair};

use super::{
    Entry, LedgerError, Record, Row,
    entry::{HypervisorPair, Migration, MigrationOutcome, RunStarted},
};

/// A run that has begun and not ended.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenRun {
    /// Time of the start.
    pub since: Timestamp,
    /// The start record.
    pub run: RunStarted,
    /// All records of the run, oldest first.
    pub history: Vec<Record>,
}

/// Forecast and measured result of a past migration.
#[derive(Debug, Clone, PartialEq)]
pub struct PastForecast {
    /// Time of its end.
    pub at: Timestamp,
    /// The migration record.
    pub migration: Migration,
}

/// Parses rows that were selected as open runs.
pub(super) fn open_runs(rows: &[Row]) -> Result<Vec<OpenRun>, LedgerError> {
    let mut runs = Vec::new();
    for row in rows {
        let Record { at: since, entry, .. } = Record::try_from(row)?;
        if let Entry::RunStarted(run) = entry {
            runs.push(OpenRun { since, run, history: Vec::new() });
        }
    }
    Ok(runs)
}

/// Version pairs in records of rehearsals and migrations: only successful ones are proof.
pub(super) fn version_pairs(records: &[Record]) -> Vec<VersionPair> {
    let mut pairs: BTreeMap<(Version, Version, String), VersionPair> = BTreeMap::new();
    for record in records {
        let (pair, rehearsal) = match &record.entry {
            Entry::Rehearsal(rehearsal) if rehearsal.passed => (Some(&rehearsal.pair), true),
            Entry::Migration(migration) if migration.outcome == MigrationOutcome::Completed => {
                (migration.pair.as_ref(), migration.rehearsal)
            }
            _ => continue,
        };
        let Some(HypervisorPair { source_version, destination_version, machine_type }) = pair.cloned() else {
            continue;
        };
        let key = (source_version, destination_version, machine_type.clone());
        let known = pairs.entry(key).or_insert(VersionPair {
            source_version,
            destination_version,
            machine_type,
            rehearsed_at: None,
            moved_at: None,
        });
        let last = if rehearsal { &mut known.rehearsed_at } else { &mut known.moved_at };
        *last = (*last).max(Some(record.at));
    }
    pairs.into_values().collect()
}

/// The migrations between two hosts, by UUID, in that direction.
pub(super) fn past_forecasts(records: &[Record], source: &Uuid, destination: &Uuid) -> Vec<PastForecast> {
    let of = |record: &Record| match &record.entry {
        Entry::Migration(migration)
            if migration.source.uuid.as_ref() == Some(source)
                && migration.destination.uuid.as_ref() == Some(destination) =>
        {
            Some(PastForecast { at: record.at, migration: migration.clone() })
        }
        _ => None,
    };
    records.iter().filter_map(of).collect()
}
