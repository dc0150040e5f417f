//! What goes wrong with the ledger.

use std::path::PathBuf;

use thiserror::Error;

use super::{Broken, Refusal};

/// The ledger could not be read or written, or does not allow what was asked.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// There is no ledger where one is to be read.
    #[error("{}: there is no ledger; the first check or move with --ledger makes one", .0.display())]
    Missing(PathBuf),
    /// The file cannot be opened.
    #[error("{}: the ledger cannot be opened: {why}", path.display())]
    Unopened {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A newer vmgate wrote it.
    #[error("{}: the ledger has format {found}, and this version of vmgate knows {known}: use a newer vmgate", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The format it has.
        found: i64,
        /// The newest format that is known here.
        known: i64,
    },
    /// There is no room for another record. Nothing was written.
    #[error("{}: the disk under the ledger is full, so nothing was written: free some space there", .0.display())]
    DiskFull(PathBuf),
    /// Another process kept the ledger locked for too long.
    #[error("{}: another process keeps the ledger locked; try again", .0.display())]
    Locked(PathBuf),
    /// The database failed.
    #[error("the ledger failed: {0}")]
    Store(String),
    /// The chain is broken: somebody changed the ledger, or the disk did.
    #[error("the ledger is not as it was written: {0}")]
    Broken(Broken),
    /// The entry cannot be written.
    #[error("the entry cannot be written as JSON: {0}")]
    Encode(String),
    /// The runner that writes has lost its lease.
    #[error(
        "this runner was not heard of for too long, and another one has taken its moves over: it can act no more"
    )]
    Expelled,
    /// Another move stands in the way.
    #[error(transparent)]
    Refused(Box<Refusal>),
}

impl LedgerError {
    pub(super) fn encode(error: &impl ToString) -> Self {
        Self::Encode(error.to_string())
    }
}
