//! Interface to the ledger's database: rows are kept in order and written under a lock. Everything else (chain,
//! types, queries) is the same for every database.

use jiff::Timestamp;

use super::{Head, LedgerError, entry::EntryKind};

/// An entry to be appended. The store gives it its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Time of writing by the clock of this machine; a database takes its own.
    pub at: Timestamp,
    /// Kind of the entry.
    pub kind: String,
    /// Id of the run.
    pub run: Option<String>,
    /// UUID of the VM.
    pub vm: Option<String>,
    /// The entry as canonical JSON, with the writer's signature if it is signed.
    pub body: String,
}

/// A record as stored. Kind, run and VM repeat fields of the body, so that they can be searched for;
/// `verify` compares them with the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Number of the record, from 1, without gaps.
    pub sequence: u64,
    /// Time of writing.
    pub at: Timestamp,
    /// Kind of the entry.
    pub kind: String,
    /// Id of the run.
    pub run: Option<String>,
    /// UUID of the VM.
    pub vm: Option<String>,
    /// The entry as JSON with its stamp, of which the bytes are hashed.
    pub body: String,
    /// Digest of the previous record, in hexadecimal; zeros for the first.
    pub previous: String,
    /// Digest of this record, in hexadecimal.
    pub digest: String,
}

/// Selection of rows, which must fulfil all given conditions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only the record with this number.
    pub sequence: Option<u64>,
    /// Only records with a number above this.
    pub after: u64,
    /// Only these kinds; all if empty.
    pub kinds: Vec<EntryKind>,
    /// Only this run.
    pub run: Option<String>,
    /// Only this VM, by UUID.
    pub vm: Option<String>,
    /// Only from this time on.
    pub since: Option<Timestamp>,
    /// Only records of runs that have not ended.
    pub unended: bool,
    /// Largest number of rows.
    pub at_most: Option<u32>,
    /// With `at_most`, the newest rows instead of the oldest; the order is oldest first all the same.
    pub newest: bool,
}

impl Selection {
    /// The newest record of all.
    pub fn newest() -> Self {
        Self { at_most: Some(1), newest: true, ..Self::default() }
    }

    /// First records of the runs that have not ended.
    pub fn open_runs() -> Self {
        Self { kinds: vec![EntryKind::RunStarted], unended: true, ..Self::default() }
    }
}

/// A database with the ledger in it.
pub trait Store: Send {
    /// Runs `work`, which reads and then appends one record at most, as if it ran alone: no other record comes between what it
    /// reads and what it appends. The record is on stable storage before this returns, and nothing is stored if `work` fails.
    /// `work` may run again, if others wrote meanwhile or the connection was lost; its record is then stored once.
    fn write(
        &mut self,
        work: &mut dyn FnMut(&mut dyn Writer) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError>;

    /// The rows of a selection, oldest first.
    fn select(&mut self, selection: &Selection) -> Result<Vec<Row>, LedgerError>;
}

/// The ledger within a transaction.
pub trait Writer {
    /// The rows of a selection, oldest first.
    fn select(&mut self, selection: &Selection) -> Result<Vec<Row>, LedgerError>;

    /// The newest record.
    fn head(&mut self) -> Result<Head, LedgerError>;

    /// Appends a record.
    fn append(&mut self, draft: &Draft) -> Result<Row, LedgerError>;
}
