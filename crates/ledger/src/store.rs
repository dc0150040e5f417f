//! What a database has to do for the ledger: keep rows, in order, and write under a lock. Everything else (chain,
//! types, queries) is above it and the same for every database.

use jiff::Timestamp;

use super::{LedgerError, entry::Kind};

/// A record as it is stored. Kind, run and VM repeat what the body says, so that they can be searched for;
/// `verify` holds them against it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its number, from 1, without gaps.
    pub sequence: u64,
    /// When it was written.
    pub at: Timestamp,
    /// What kind of entry it holds.
    pub kind: String,
    /// The run that it belongs to.
    pub run: Option<String>,
    /// UUID of the VM that it is about.
    pub vm: Option<String>,
    /// The entry as canonical JSON; the bytes are what is hashed.
    pub body: String,
    /// Digest of the record before it, in hexadecimal; zeros for the first.
    pub previous: String,
    /// Its own digest, in hexadecimal.
    pub digest: String,
}

/// Which rows are asked for: all that are given must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only this number.
    pub sequence: Option<u64>,
    /// Only numbers above this.
    pub after: u64,
    /// Only these kinds; all where there is none.
    pub kinds: Vec<Kind>,
    /// Only this run.
    pub run: Option<String>,
    /// Only this VM, by UUID.
    pub vm: Option<String>,
    /// Only from this time on.
    pub since: Option<Timestamp>,
    /// Only runs' first records, and only of runs that have not ended.
    pub unended: bool,
    /// No more than this many.
    pub at_most: Option<u32>,
    /// The newest of them instead of the oldest; they come oldest first all the same.
    pub newest: bool,
}

impl Selection {
    /// The newest record of all.
    pub fn newest() -> Self {
        Self { at_most: Some(1), newest: true, ..Self::default() }
    }

    /// First records of the runs that have not ended.
    pub fn open_runs() -> Self {
        Self { kinds: vec![Kind::RunStarted], unended: true, ..Self::default() }
    }
}

/// A database with the ledger in it.
pub trait Store: Send {
    /// Runs `work` in one transaction that no other writer can come between, and keeps what it wrote on stable
    /// storage before this returns. Nothing is kept where `work` fails. It may be run again, where a database went
    /// away in between; what it wrote is then kept once.
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
