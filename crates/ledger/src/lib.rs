//! The ledger: append-only records of every check, move, isolation and override, written before or as they happen.
//!
//! Hash-chained: each record holds the digest of the one before it, so that a change to any of them
//! breaks all that follow. A move reserves its VM by a record of its start without one of its end, so that a crash can
//! neither lose that reservation nor hide it. [`Store`] is the interface to a database. Records and refuses, and never acts:
//! it knows no hypervisor and no host. For `vmgate_execute` and the command line.
//!
//! Walls, which the compiler keeps:
//!
//! ```compile_fail
//! use vmgate_execute::Pass;
//! ```
//!
//! ```compile_fail
//! use vmgate_libvirt::Hypervisor;
//! ```

#![forbid(unsafe_code)]

mod anchor;
pub mod campaign;
mod chain;
mod display;
pub mod entry;
mod error;
mod ledger_url;
mod limits;
mod network;
mod observation;
mod owner_only;
mod postgres;
mod query;
mod sql;
mod sqlite;
mod stamp;
mod store;
mod trial;
mod unknown;

use std::sync::Mutex;

pub use anchor::{Anchor, AnchorError, NotAHead, append_anchor, read_anchors};
pub use campaign::{Campaign, Expulsion};
pub use chain::{BrokenChain, Head};
pub use entry::Entry;
use entry::{EntryKind, RehearsalStarted, RunStarted};
pub use error::LedgerError;
use jiff::{SignedDuration, Timestamp};
pub use ledger_url::LedgerUrl;
pub use limits::{MoveConflict, Refusal};
pub use network::{NetworkRehearsed, NetworkSilence};
pub use observation::Observation;
pub use postgres::PostgresStore;
pub use query::{OpenRun, PastForecast};
pub use sqlite::SqliteStore;
pub use stamp::SignatureState;
pub use store::{Draft, Row, Selection, Store, Writer};
pub use unknown::UnknownEntry;
use vmgate_attest::{Digest, PrivateKey, PublicKey};
use vmgate_facts::{Fact, Facts, History, Host, Rehearsal, Trial, Uuid, VersionPair};
use vmgate_judge::change::Limits;

/// Age up to which a rehearsal of a network counts: a night of moves, in which nobody rebuilds the network.
const NETWORK_REHEARSAL_COUNTS: SignedDuration = SignedDuration::from_hours(24);

/// Record of the ledger: an entry with its position in the chain.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Number of the record, from 1, without gaps.
    pub sequence: u64,
    /// Time of writing, by the clock of the database, or of the machine that wrote it to a file. Clocks jump: only the sequence
    /// gives the order.
    pub at: Timestamp,
    /// Content of the record, as far as this version knows it.
    pub entry: Entry,
    /// Role of the database that wrote it, as the database saw it; none in a file and in records of old.
    pub role: Option<String>,
    /// The record's own text, with what this version does not know.
    pub body: String,
    /// Digest of the record, which the next record contains.
    pub digest: Digest,
}

/// An open ledger. May be shared between threads; several processes may have it open.
pub struct Ledger {
    store: Mutex<Box<dyn Store>>,
    /// Name of the campaign runner that writes, if any: once it was expelled, nothing of it is written any more.
    runner: Option<String>,
    /// Key that signs what is written, if any.
    key: Option<PrivateKey>,
}

impl Ledger {
    /// Opens a ledger. A file is made where there is none.
    pub fn open(place: impl Into<LedgerUrl>) -> Result<Self, LedgerError> {
        match place.into() {
            LedgerUrl::File(path) => Ok(Self::with_store(Box::new(SqliteStore::open(&path)?))),
            LedgerUrl::Database(url) => Self::in_database(&url),
        }
    }

    /// Opens an existing ledger to be read.
    pub fn open_existing(place: impl Into<LedgerUrl>) -> Result<Self, LedgerError> {
        match place.into() {
            LedgerUrl::File(path) => Ok(Self::with_store(Box::new(SqliteStore::open_existing(&path)?))),
            LedgerUrl::Database(url) => Self::in_database(&url),
        }
    }

    /// Makes a ledger where there is none, and lets these roles of its database read it and append to it.
    pub fn init(place: LedgerUrl, runners: &[String]) -> Result<(), LedgerError> {
        match place {
            LedgerUrl::File(_) => Self::open(place).map(drop),
            LedgerUrl::Database(url) => PostgresStore::init(&url, runners),
        }
    }

    fn in_database(url: &str) -> Result<Self, LedgerError> {
        Ok(Self::with_store(Box::new(PostgresStore::open(url)?)))
    }

    /// A ledger in another store.
    pub fn with_store(store: Box<dyn Store>) -> Self {
        Self { store: Mutex::new(store), runner: None, key: None }
    }

    /// The same ledger for a campaign runner. The transaction that writes a record first checks that the runner was not
    /// expelled: an expelled runner can write no step, and a step that is not written is not taken.
    #[must_use]
    pub fn for_runner(self, runner: &str) -> Self {
        Self { runner: Some(runner.to_owned()), ..self }
    }

    /// The same ledger, whose new records are signed with this key, if there is one.
    #[must_use]
    pub fn signed_with(self, key: Option<PrivateKey>) -> Self {
        Self { key, ..self }
    }

    /// Reads the selected records and lets `work` choose an entry to append, in one transaction: of two writers at once, the
    /// second sees the choice of the first. `work` may be called more than once.
    pub fn decide<T>(
        &self,
        selection: &Selection,
        mut work: impl FnMut(&[Record]) -> Result<(T, Option<Entry>), LedgerError>,
    ) -> Result<(T, Option<Record>), LedgerError> {
        self.write(|writer| {
            let records: Vec<Record> =
                writer.select(selection)?.iter().map(Record::try_from).collect::<Result<_, _>>()?;
            let (answer, entry) = work(&records)?;
            let record = entry.map(|entry| self.add(writer, &entry)).transpose()?;
            Ok((answer, record))
        })
    }

    /// Appends an entry with the present time.
    pub fn append(&self, entry: &Entry) -> Result<Record, LedgerError> {
        self.append_at(entry, Timestamp::now())
    }

    /// Appends an entry with a given time; a database takes its own all the same.
    pub fn append_at(&self, entry: &Entry, at: Timestamp) -> Result<Record, LedgerError> {
        self.write(|writer| chain::append(writer, entry, at, self.key.as_ref()))
    }

    fn add(&self, writer: &mut dyn Writer, entry: &Entry) -> Result<Record, LedgerError> {
        chain::append(writer, entry, Timestamp::now(), self.key.as_ref())
    }

    /// Records the start of a run, if no other run moves the VM and the limits of hosts and link allow one more move. Check
    /// and write are one transaction: of two conflicting runs at once, one is refused.
    pub fn begin(&self, run: &RunStarted, limits: &Limits) -> Result<Record, LedgerError> {
        self.write(|writer| {
            let rows = writer.select(&Selection::open_runs())?;
            let open = query::open_runs(&rows)?;
            if let Some(row) = query::unread_run(&rows, run)? {
                return Err(LedgerError::UnreadRun { vm: run.vm.label().to_owned(), sequence: row.sequence });
            }
            if let Some(refusal) = limits::refuse(limits, run, &open) {
                return Err(LedgerError::Refused(Box::new(refusal)));
            }
            self.add(writer, &Entry::RunStarted(run.clone()))
        })
    }

    /// The selected records, oldest first.
    pub fn records(&self, selection: &Selection) -> Result<Vec<Record>, LedgerError> {
        self.rows(selection)?.iter().map(Record::try_from).collect()
    }

    /// One record by its number.
    pub fn record(&self, sequence: u64) -> Result<Option<Record>, LedgerError> {
        let wanted = Selection { sequence: Some(sequence), ..Selection::default() };
        Ok(self.records(&wanted)?.pop())
    }

    /// Checks every digest of the chain, and that the columns agree with the records. Returns the newest record.
    pub fn verify(&self) -> Result<Head, LedgerError> {
        self.verify_each(|_| Ok(()))
    }

    /// The same, and lets `look` see each record that was checked, oldest first.
    pub fn verify_each(
        &self,
        mut look: impl FnMut(&Row) -> Result<(), LedgerError>,
    ) -> Result<Head, LedgerError> {
        let mut chain = chain::Verification::new();
        loop {
            let after = chain.head().sequence;
            let rows = self.rows(&Selection { after, at_most: Some(1000), ..Selection::default() })?;
            if rows.is_empty() {
                return Ok(chain.head().clone());
            }
            for row in &rows {
                chain.next(row)?;
                look(row)?;
            }
        }
    }

    /// The newest record, which is not verified.
    pub fn head(&self) -> Result<Head, LedgerError> {
        Ok(self.rows(&Selection::newest())?.last().map_or_else(Head::genesis, Head::from))
    }

    /// Runs without a record of their end, oldest first: moves under way, or left behind by a crash.
    pub fn open_runs(&self) -> Result<Vec<OpenRun>, LedgerError> {
        let mut runs = query::open_runs(&self.rows(&Selection::open_runs())?)?;
        for open in &mut runs {
            open.history = self.history(&open.run.run)?;
        }
        Ok(runs)
    }

    /// All records of a run.
    pub fn history(&self, run: &str) -> Result<Vec<Record>, LedgerError> {
        self.records(&Selection { run: Some(run.to_owned()), ..Selection::default() })
    }

    /// Pairs of QEMU versions between which VMs were moved and verified.
    pub fn version_pairs(&self) -> Result<Vec<VersionPair>, LedgerError> {
        let kinds = vec![EntryKind::Rehearsal, EntryKind::Migration];
        let wanted = Selection { kinds, ..Selection::default() };
        Ok(query::version_pairs(&self.records(&wanted)?))
    }

    /// Rehearsals with an empty copy that were begun in the last days, and may have been left behind, oldest first.
    pub fn rehearsals_begun(&self, since: Timestamp) -> Result<Vec<RehearsalStarted>, LedgerError> {
        let kinds = vec![EntryKind::RehearsalStarted];
        let wanted = Selection { kinds, since: Some(since), ..Selection::default() };
        let begun = |record: Record| match record.entry {
            Entry::RehearsalStarted(started) => Some(started),
            _ => None,
        };
        Ok(self.records(&wanted)?.into_iter().filter_map(begun).collect())
    }

    /// Rehearsals with an empty copy, oldest first.
    pub fn rehearsals(&self) -> Result<Vec<Rehearsal>, LedgerError> {
        let wanted = Selection { kinds: vec![EntryKind::Rehearsal], ..Selection::default() };
        let twin = |record: Record| match record.entry {
            Entry::Rehearsal(rehearsal) => rehearsal.twin,
            _ => None,
        };
        Ok(self.records(&wanted)?.into_iter().filter_map(twin).collect())
    }

    /// Forecasts and measured results of migrations between two hosts (by UUID), oldest first.
    pub fn past_forecasts(
        &self,
        source: &Uuid,
        destination: &Uuid,
    ) -> Result<Vec<PastForecast>, LedgerError> {
        let wanted = Selection { kinds: vec![EntryKind::Migration], ..Selection::default() };
        Ok(query::past_forecasts(&self.records(&wanted)?, source, destination))
    }

    /// History of moves between two hosts and of a VM's dirty rate by the hour, all by UUID.
    pub fn past(&self, vm: &Uuid, source: &Uuid, destination: &Uuid) -> Result<History, LedgerError> {
        let (kinds, of_vm) = (vec![EntryKind::Observation], Some(vm.to_string()));
        let wanted = Selection { kinds, vm: of_vm, ..Selection::default() };
        let past = self.past_forecasts(source, destination)?;
        Ok(History {
            past_migrations: Fact::Known(observation::past_migrations(&past)),
            past_silences: Fact::Known(network::past_silences(&past)),
            observed_hours: Fact::Known(observation::hours(&self.records(&wanted)?, vm)),
            version_pairs: Fact::Known(self.version_pairs()?),
            pair_proven: Fact::default(),
        })
    }

    /// The last trial of a move between two hosts that was made, all by UUID.
    fn last_trial(&self, vm: &Uuid, source: &Uuid, destination: &Uuid) -> Result<Option<Trial>, LedgerError> {
        let kinds = vec![EntryKind::RunStarted, EntryKind::RunEnded];
        let wanted = Selection { kinds, vm: Some(vm.to_string()), ..Selection::default() };
        Ok(trial::last(&self.records(&wanted)?, source, destination))
    }

    /// Adds rehearsals of the networks between two hosts that are not too old, on bridges that are as they were. One that was made for this check is newer.
    fn add_network_rehearsals(
        &self,
        facts: &mut Facts,
        source: &Uuid,
        destination: &Uuid,
    ) -> Result<(), LedgerError> {
        let Fact::Known(path) = &mut facts.path else { return Ok(()) };
        if path.network_rehearsals.known().is_some() {
            return Ok(());
        }
        let since = facts.collected_at.checked_sub(NETWORK_REHEARSAL_COUNTS).ok();
        let wanted = Selection { kinds: vec![EntryKind::NetworkRehearsed], since, ..Selection::default() };
        let mut found = network::rehearsals(&self.records(&wanted)?, source, destination);
        found.retain(|rehearsal| rehearsal.holds_at(&facts.destination));
        if !found.is_empty() {
            path.network_rehearsals = Fact::Known(found);
        }
        Ok(())
    }

    /// Adds the history of earlier moves to the facts of a move, if the facts contain the UUIDs of the VM and both hosts; also a
    /// trial of the same move that was made shortly before.
    pub fn add_history(&self, facts: &mut Facts) -> Result<(), LedgerError> {
        let uuid = |host: &Fact<Host>| host.known().and_then(|host| host.uuid.known().cloned());
        let vm = facts.vm.known().and_then(|vm| vm.uuid.known().cloned());
        if let (Some(vm), Some(source), Some(destination)) =
            (vm, uuid(&facts.source), uuid(&facts.destination))
        {
            self.add_network_rehearsals(facts, &source, &destination)?;
            let mut history = self.past(&vm, &source, &destination)?;
            history.pair_proven = history.proven(facts);
            facts.history = Fact::Known(history);
            if let Some(newest) =
                self.rehearsals()?.into_iter().rfind(|rehearsal| rehearsal.counts_for(facts))
            {
                newest.add_to(facts);
            }
            if let (Fact::Known(None), Some(trial)) =
                (&facts.trial, self.last_trial(&vm, &source, &destination)?)
            {
                trial::add(trial, facts);
            }
        }
        facts.change.in_ledger = true;
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
            self.check_not_expelled(writer)?;
            written = Some(work(writer)?);
            Ok(())
        })?;
        written.ok_or_else(|| LedgerError::Store("the store did not execute the transaction".to_owned()))
    }

    /// Refuses to write for a runner that was expelled.
    fn check_not_expelled(&self, writer: &mut dyn Writer) -> Result<(), LedgerError> {
        let Some(runner) = &self.runner else { return Ok(()) };
        let wanted = Selection {
            kinds: vec![EntryKind::Expulsion],
            run: Some(runner.clone()),
            at_most: Some(1),
            ..Selection::default()
        };
        if writer.select(&wanted)?.is_empty() { Ok(()) } else { Err(LedgerError::Expelled) }
    }

    /// Locks the store. A thread that panicked with the lock left no half transaction behind: the store rolls those back.
    fn lock(&self) -> std::sync::MutexGuard<'_, Box<dyn Store>> {
        self.store.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Row {
    /// Holds the signature of the record against keys.
    pub fn signature(&self, keys: &[PublicKey]) -> SignatureState {
        stamp::Stamp::check(self, keys)
    }
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ledger")
    }
}

#[cfg(any(test, feature = "sample"))]
pub mod test_ledger;
#[cfg(test)]
mod tests;
