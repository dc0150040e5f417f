//! The ledger: what was checked, moved, isolated and overridden, written down before or as it happens, never changed.
//!
//! Append-only and hash-chained: each record holds the digest of the one before it, so that a change to any of them
//! breaks all that follow. A move holds its VM by the record that it has begun and not ended, so that a crash can
//! neither lose that hold nor leave it behind unseen. [`Store`] is all that a database has to do.

pub mod campaign;
mod chain;
pub mod entry;
mod error;
mod limits;
mod observation;
#[cfg(feature = "postgres")]
mod postgres;
mod query;
mod sql;
mod sqlite;
mod store;
mod words;

use std::sync::Mutex;

use jiff::Timestamp;

pub use campaign::{Campaign, Expulsion};
pub use chain::{Broken, Head};
pub use entry::Entry;
pub use error::LedgerError;
pub use limits::{InTheWay, Refusal};
pub use observation::Observation;
#[cfg(feature = "postgres")]
pub use postgres::PostgresStore;
pub use query::{OpenRun, PastForecast};
pub use sqlite::SqliteStore;
pub use store::{Row, Selection, Store, Writer};

use crate::{
    change::Limits,
    fact::{Fact, Facts, History, Host, VersionPair},
    place::LedgerUrl,
    verdict::Digest,
};
use entry::{Kind, RunStarted};

/// One record: an entry with its place in the chain.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its number, from 1, without gaps.
    pub sequence: u64,
    /// When it was written, by the clock of the machine that wrote it. Clocks jump: the sequence is the order.
    pub at: Timestamp,
    /// What it says.
    pub entry: Entry,
    /// Its own digest, which the next record holds.
    pub digest: Digest,
}

/// An open ledger. May be shared between threads; several processes may have it open.
pub struct Ledger {
    store: Mutex<Box<dyn Store>>,
    /// The runner that writes, where there is one: once it was expelled, nothing of it is written any more.
    runner: Option<String>,
}

impl Ledger {
    /// Opens a ledger. A file is made where there is none.
    pub fn open(place: impl Into<LedgerUrl>) -> Result<Self, LedgerError> {
        match place.into() {
            LedgerUrl::File(path) => Ok(Self::over(Box::new(SqliteStore::open(&path)?))),
            LedgerUrl::Database(url) => Self::in_database(&url),
        }
    }

    /// Opens an existing ledger to be read.
    pub fn open_existing(place: impl Into<LedgerUrl>) -> Result<Self, LedgerError> {
        match place.into() {
            LedgerUrl::File(path) => Ok(Self::over(Box::new(SqliteStore::open_existing(&path)?))),
            LedgerUrl::Database(url) => Self::in_database(&url),
        }
    }

    /// Makes a ledger where there is none, and lets these roles of its database read it and append to it.
    pub fn init(place: LedgerUrl, runners: &[String]) -> Result<(), LedgerError> {
        match place {
            LedgerUrl::File(_) => Self::open(place).map(drop),
            #[cfg(feature = "postgres")]
            LedgerUrl::Database(url) => PostgresStore::init(&url, runners),
            #[cfg(not(feature = "postgres"))]
            LedgerUrl::Database(url) => Self::in_database(&url).map(drop),
        }
    }

    #[cfg(feature = "postgres")]
    fn in_database(url: &str) -> Result<Self, LedgerError> {
        Ok(Self::over(Box::new(PostgresStore::open(url)?)))
    }

    #[cfg(not(feature = "postgres"))]
    fn in_database(url: &str) -> Result<Self, LedgerError> {
        let why = "this build of vmgate keeps ledgers in files only".to_owned();
        Err(LedgerError::Unopened { place: url.into(), why })
    }

    /// A ledger over another store.
    pub fn over(store: Box<dyn Store>) -> Self {
        Self { store: Mutex::new(store), runner: None }
    }

    /// The same ledger for a runner of campaigns. Every record is held against its expulsion in the transaction that writes
    /// it: a runner that was given up can write no step, and a step that is not written is not taken.
    #[must_use]
    pub fn of_runner(self, runner: &str) -> Self {
        Self { runner: Some(runner.to_owned()), ..self }
    }

    /// Reads the records of these kinds after a number and lets `work` choose, on what they say, an entry to append: in one
    /// transaction, so that of two that choose at once one sees what the other chose. `work` may be called twice.
    pub fn decide<T>(
        &self,
        selection: &Selection,
        mut work: impl FnMut(&[Record]) -> Result<(T, Option<Entry>), LedgerError>,
    ) -> Result<(T, Option<Record>), LedgerError> {
        self.write(|writer| {
            let records: Vec<Record> =
                writer.select(selection)?.iter().map(Record::try_from).collect::<Result<_, _>>()?;
            let (answer, entry) = work(&records)?;
            let record = entry.map(|entry| chain::append(writer, &entry, Timestamp::now())).transpose()?;
            Ok((answer, record))
        })
    }

    /// Appends an entry, now.
    pub fn append(&self, entry: &Entry) -> Result<Record, LedgerError> {
        self.append_at(entry, Timestamp::now())
    }

    /// Appends an entry under a given time.
    pub fn append_at(&self, entry: &Entry, at: Timestamp) -> Result<Record, LedgerError> {
        self.write(|writer| chain::append(writer, entry, at))
    }

    /// Begins a run, if nobody else moves the VM and its hosts and link have room for one more move. Looking and
    /// writing are one transaction: of two that come at once, one is refused.
    pub fn begin(&self, run: &RunStarted, limits: &Limits) -> Result<Record, LedgerError> {
        self.write(|writer| {
            let open = query::open_runs(&writer.select(&Selection::open_runs())?)?;
            if let Some(refusal) = limits.refuse(run, &open) {
                return Err(LedgerError::Refused(Box::new(refusal)));
            }
            chain::append(writer, &Entry::RunStarted(run.clone()), Timestamp::now())
        })
    }

    /// The records that a selection asks for, oldest first.
    pub fn records(&self, selection: &Selection) -> Result<Vec<Record>, LedgerError> {
        self.rows(selection)?.iter().map(Record::try_from).collect()
    }

    /// One record by its number.
    pub fn record(&self, sequence: u64) -> Result<Option<Record>, LedgerError> {
        let wanted = Selection { sequence: Some(sequence), ..Selection::default() };
        Ok(self.records(&wanted)?.pop())
    }

    /// Checks every digest of the chain and that the columns say what the records say. Gives its newest record.
    pub fn verify(&self) -> Result<Head, LedgerError> {
        let mut chain = chain::Verification::default();
        loop {
            let after = chain.head().sequence;
            let rows = self.rows(&Selection { after, at_most: Some(1000), ..Selection::default() })?;
            if rows.is_empty() {
                return Ok(chain.head());
            }
            rows.iter().try_for_each(|row| chain.next(row))?;
        }
    }

    /// Runs that have begun and not ended, oldest first: moves under way, or left behind by a crash.
    pub fn open_runs(&self) -> Result<Vec<OpenRun>, LedgerError> {
        let mut runs = query::open_runs(&self.rows(&Selection::open_runs())?)?;
        for open in &mut runs {
            open.history = self.history(&open.run.run)?;
        }
        Ok(runs)
    }

    /// Everything that was written of a run.
    pub fn history(&self, run: &str) -> Result<Vec<Record>, LedgerError> {
        self.records(&Selection { run: Some(run.to_owned()), ..Selection::default() })
    }

    /// Pairs of versions that VMs were moved between and verified afterwards.
    pub fn version_pairs(&self) -> Result<Vec<VersionPair>, LedgerError> {
        let kinds = vec![Kind::Rehearsal, Kind::Migration];
        let wanted = Selection { kinds, ..Selection::default() };
        Ok(query::version_pairs(&self.records(&wanted)?))
    }

    /// What was forecast and what came, of migrations between two hosts (by UUID), oldest first.
    pub fn past_forecasts(&self, source: &str, destination: &str) -> Result<Vec<PastForecast>, LedgerError> {
        let wanted = Selection { kinds: vec![Kind::Migration], ..Selection::default() };
        Ok(query::past_forecasts(&self.records(&wanted)?, source, destination))
    }

    /// What the ledger knows of earlier moves between two hosts and of a VM at other hours, all by UUID.
    pub fn past(&self, vm: &str, source: &str, destination: &str) -> Result<History, LedgerError> {
        let wanted = Selection { kinds: vec![Kind::Observation], ..Selection::default() };
        Ok(History {
            past_migrations: Fact::Known(observation::past_migrations(
                &self.past_forecasts(source, destination)?,
            )),
            observed_hours: Fact::Known(observation::hours(&self.records(&wanted)?, vm)),
            version_pairs: Fact::Known(self.version_pairs()?),
        })
    }

    /// Adds to the facts of a move what the ledger knows of earlier ones, where they name the VM and both hosts.
    pub fn add_history(&self, facts: &mut Facts) -> Result<(), LedgerError> {
        let uuid = |host: &Fact<Host>| host.known().and_then(|host| host.uuid.known().cloned());
        let vm = facts.vm.known().and_then(|vm| vm.uuid.known().cloned());
        if let (Some(vm), Some(source), Some(destination)) =
            (vm, uuid(&facts.source), uuid(&facts.destination))
        {
            facts.history = Fact::Known(self.past(&vm, &source, &destination)?);
        }
        Ok(())
    }

    fn rows(&self, selection: &Selection) -> Result<Vec<Row>, LedgerError> {
        self.lock().select(selection)
    }

    fn write<T>(
        &self,
        mut work: impl FnMut(&mut dyn Writer) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let mut written = None;
        self.lock().write(&mut |writer| {
            self.still_in(writer)?;
            written = Some(work(writer)?);
            Ok(())
        })?;
        written.ok_or_else(|| LedgerError::Store("the store did not do the work it was given".to_owned()))
    }

    /// Whether the runner that writes may still do so.
    fn still_in(&self, writer: &mut dyn Writer) -> Result<(), LedgerError> {
        let Some(runner) = &self.runner else { return Ok(()) };
        let wanted = Selection {
            kinds: vec![Kind::Expulsion],
            run: Some(runner.clone()),
            at_most: Some(1),
            ..Selection::default()
        };
        if writer.select(&wanted)?.is_empty() { Ok(()) } else { Err(LedgerError::Expelled) }
    }

    /// A thread that panicked with the lock left no half transaction behind: the store rolls those back.
    fn lock(&self) -> std::sync::MutexGuard<'_, Box<dyn Store>> {
        self.store.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ledger")
    }
}

#[cfg(test)]
pub(crate) mod fresh;
#[cfg(test)]
mod tests;
