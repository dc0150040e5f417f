//! Questions to the ledger.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    Entry, LedgerError, Record, Row,
    entry::{Migration, Outcome, RunStarted},
};
use crate::fact::Version;

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

/// A pair of QEMU versions and a machine type that a VM was moved with, and that went well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RehearsedPair {
    /// QEMU at the source.
    pub source_version: Version,
    /// QEMU at the destination.
    pub destination_version: Version,
    /// The machine type, as libvirt writes it.
    pub machine_type: String,
    /// The last time.
    pub last: Timestamp,
    /// How many times.
    pub times: u32,
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

/// The pairs in records of rehearsals and migrations: only what ended well is a rehearsal of anything.
pub(super) fn rehearsed(records: &[Record]) -> Vec<RehearsedPair> {
    let mut pairs: BTreeMap<(Version, Version, String), (Timestamp, u32)> = BTreeMap::new();
    for record in records {
        let pair = match &record.entry {
            Entry::Rehearsal(rehearsal) if rehearsal.passed => Some(&rehearsal.pair),
            Entry::Migration(migration) if migration.outcome == Outcome::Completed => migration.pair.as_ref(),
            _ => None,
        };
        let Some(pair) = pair else { continue };
        let key = (pair.source_version, pair.destination_version, pair.machine_type.clone());
        let seen = pairs.entry(key).or_insert((record.at, 0));
        *seen = (seen.0.max(record.at), seen.1 + 1);
    }
    pairs
        .into_iter()
        .map(|((source_version, destination_version, machine_type), (last, times))| RehearsedPair {
            source_version,
            destination_version,
            machine_type,
            last,
            times,
        })
        .collect()
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
