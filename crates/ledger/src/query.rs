//! Questions to the ledger.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    Entry, LedgerError, Record, Row,
    entry::{Migration, Outcome, Pair, RunStarted},
};
use vmgate_facts::{Version, VersionPair};

/// A run that has begun and not ended.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenRun {
    /// When it began.
    pub since: Timestamp,
    /// What it is.
    pub run: RunStarted,
    /// Everything that was written of it, oldest first.
    pub history: Vec<Record>,
}

/// What was forecast of a migration, and what came.
#[derive(Debug, Clone, PartialEq)]
pub struct PastForecast {
    /// When it ended.
    pub at: Timestamp,
    /// Both.
    pub migration: Migration,
}

/// The runs of rows that were selected as open.
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

/// The pairs of versions in records of rehearsals and migrations: only what ended well is proof of anything.
pub(super) fn version_pairs(records: &[Record]) -> Vec<VersionPair> {
    let mut pairs: BTreeMap<(Version, Version, String), VersionPair> = BTreeMap::new();
    for record in records {
        let (pair, rehearsal) = match &record.entry {
            Entry::Rehearsal(rehearsal) if rehearsal.passed => (Some(&rehearsal.pair), true),
            Entry::Migration(migration) if migration.outcome == Outcome::Completed => {
                (migration.pair.as_ref(), migration.rehearsal)
            }
            _ => continue,
        };
        let Some(Pair { source_version, destination_version, machine_type }) = pair.cloned() else {
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
pub(super) fn past_forecasts(records: &[Record], source: &str, destination: &str) -> Vec<PastForecast> {
    let of = |record: &Record| match &record.entry {
        Entry::Migration(migration)
            if migration.source.uuid.as_deref() == Some(source)
                && migration.destination.uuid.as_deref() == Some(destination) =>
        {
            Some(PastForecast { at: record.at, migration: migration.clone() })
        }
        _ => None,
    };
    records.iter().filter_map(of).collect()
}
