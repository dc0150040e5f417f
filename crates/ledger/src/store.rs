//! Interface to the ledger's database: rows are kept in order and written under a lock. Everything else (chain,
//! types, queries) is the same for every database.

use jiff::Timestamp;

use super::{LedgerError, entry::EntryKind};

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
    /// The entry as canonical JSON, of which the bytes are hashed.
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
    /// Runs `work` in one transaction that excludes all other writers, and stores its rows on stable
    /// storage before this returns. Nothing is stored if `work` fails. `work` may run again if the connection
    /// was lost meanwhile; its rows are then stored once.
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

    /// Adds a row.
    fn insert(&mut self, row: &Row) -> Result<(), LedgerError>;
}
