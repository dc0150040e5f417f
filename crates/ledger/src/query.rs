//! Queries over the ledger's records: open runs, version pairs and past forecasts.

use std::collections::BTreeMap;

use jiff::Timestamp;
use vmgate_facts::{Uuid, Version, VersionPair, text::plain};

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

/// Parses rows that were selected as open runs, and leaves those out that this version cannot read.
pub(super) fn open_runs(rows: &[Row]) -> Result<Vec<OpenRun>, LedgerError> {
    let mut runs = Vec::new();
    for row in rows {
        let Record { at: since, entry, sequence, .. } = Record::try_from(row)?;
        match entry {
            Entry::RunStarted(run) => runs.push(OpenRun { since, run, history: Vec::new() }),
            other => {
                tracing::warn!("record {sequence} of the ledger is left out: {}", plain(&other.to_string()));
            }
        }
    }
    Ok(runs)
}

/// The open run of the same VM that this version cannot read: it reserves the VM all the same.
pub(super) fn unread_run<'a>(rows: &'a [Row], run: &RunStarted) -> Result<Option<&'a Row>, LedgerError> {
    for row in rows
        .iter()
        .filter(|row| row.vm.is_some() && row.vm.as_deref() == run.vm.uuid.as_ref().map(Uuid::as_str))
    {
        if matches!(Record::try_from(row)?.entry, Entry::Unknown(_)) {
            return Ok(Some(row));
        }
    }
    Ok(None)
}

/// Version pairs in records of rehearsals and migrations: only successful ones are proof.
pub(super) fn version_pairs(records: &[Record]) -> Vec<VersionPair> {
    let mut pairs: BTreeMap<(Version, Version, String), VersionPair> = BTreeMap::new();
    for record in records {
        let (pair, rehearsal) = match &record.entry {
            // An empty twin shows nothing about other devices than its own.
            Entry::Rehearsal(rehearsal) if rehearsal.passed && rehearsal.twin.is_none() => {
                (Some(&rehearsal.pair), true)
            }
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
