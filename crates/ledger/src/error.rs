//! Errors of the ledger.

use thiserror::Error;

use super::{BrokenChain, Refusal};
use crate::ledger_url::LedgerUrl;

/// The ledger could not be read or written, or does not allow what was asked.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// No ledger at this place.
    #[error("{place}: there is no ledger; {}", creation_hint(.place))]
    Missing {
        /// Location of the missing ledger.
        place: LedgerUrl,
    },
    /// The ledger cannot be opened.
    #[error("{place}: the ledger cannot be opened: {why}")]
    Unopened {
        /// Location of the ledger.
        place: LedgerUrl,
        /// Why.
        why: String,
    },
    /// A newer version of vmgate wrote the ledger.
    #[error(
        "{place}: the ledger has format {found}, and this version of vmgate knows {known}: use a newer vmgate"
    )]
    Newer {
        /// Location of the ledger.
        place: LedgerUrl,
        /// The format it has.
        found: i64,
        /// Newest format that this version knows.
        known: i64,
    },
    /// There is no room for another record. Nothing was written.
    #[error("{0}: the disk under the ledger is full, so nothing was written: free some space there")]
    DiskFull(LedgerUrl),
    /// Others kept the ledger locked for too long.
    #[error("{0}: another process keeps the ledger locked; try again")]
    Locked(LedgerUrl),
    /// The database cannot be reached, or went away. Nothing was written.
    #[error(
        "{place}: the ledger cannot be reached: {why}; check that PostgreSQL runs there and accepts this machine"
    )]
    Unreachable {
        /// Location of the ledger.
        place: LedgerUrl,
        /// Why.
        why: String,
    },
    /// The connection to the database was lost while a record was written.
    #[error(
        "{place}: the connection to the ledger was lost while a record was written, so the record may be missing ({why}): run \
         `vmgate ledger list` when the ledger can be reached again"
    )]
    Unconfirmed {
        /// Location of the ledger.
        place: LedgerUrl,
        /// Description of the failure.
        why: String,
    },
    /// The database role lacks a privilege.
    #[error(
        "{place}: {why}: run `vmgate ledger init --runner ROLE` as the owner of the ledger to give a role its privileges"
    )]
    Denied {
        /// Location of the ledger.
        place: LedgerUrl,
        /// Message of PostgreSQL.
        why: String,
    },
    /// The database failed.
    #[error("the ledger failed: {0}")]
    Store(String),
    /// The chain is broken: somebody changed the ledger, or the disk did.
    #[error("the ledger was changed after it was written: {0}")]
    Broken(BrokenChain),
    /// The entry cannot be written.
    #[error("the entry cannot be written as JSON: {0}")]
    Encode(String),
    /// The runner that writes was expelled.
    #[error(
        "this runner sent no heartbeat for too long and was expelled: another runner takes its moves over"
    )]
    Expelled,
    /// Another move blocks this one.
    #[error(transparent)]
    Refused(Box<Refusal>),
}

impl LedgerError {
    /// True if the connection to the database is lost.
    pub(super) fn is_disconnected(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// True if another attempt may succeed in a moment.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Locked(_) | Self::Unreachable { .. } | Self::Unconfirmed { .. })
    }

    pub(super) fn encode(error: &impl ToString) -> Self {
        Self::Encode(error.to_string())
    }
}

/// Command that creates a ledger at this place.
fn creation_hint(place: &LedgerUrl) -> &'static str {
    match place {
        LedgerUrl::File(_) => "the first check or move with --ledger makes one",
        LedgerUrl::Database(_) => "`vmgate ledger init` as the owner of the database makes one",
    }
}
