//! What goes wrong with the ledger.

use thiserror::Error;

use super::{Broken, Refusal};
use crate::place::LedgerUrl;

/// The ledger could not be read or written, or does not allow what was asked.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// There is no ledger where one is to be read.
    #[error("{place}: there is no ledger; {}", is_made_by(.place))]
    Missing {
        /// Where it was looked for.
        place: LedgerUrl,
    },
    /// It cannot be opened.
    #[error("{place}: the ledger cannot be opened: {why}")]
    Unopened {
        /// Where it is.
        place: LedgerUrl,
        /// Why.
        why: String,
    },
    /// A newer vmgate wrote it.
    #[error(
        "{place}: the ledger has format {found}, and this version of vmgate knows {known}: use a newer vmgate"
    )]
    Newer {
        /// Where it is.
        place: LedgerUrl,
        /// The format it has.
        found: i64,
        /// The newest format that is known here.
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
        "{place}: the ledger cannot be reached: {why}; see that PostgreSQL runs there and lets this machine in"
    )]
    Unreachable {
        /// Where it is.
        place: LedgerUrl,
        /// Why.
        why: String,
    },
    /// The database went away while a record was written.
    #[error(
        "{place}: the ledger went away while a record was written, so that it is not known whether it has it ({why}): look with \
         `vmgate ledger list` when it is back"
    )]
    Unanswered {
        /// Where it is.
        place: LedgerUrl,
        /// What happened.
        why: String,
    },
    /// The role that reads or writes may not.
    #[error(
        "{place}: {why}: as the owner of the ledger, `vmgate ledger init --runner ROLE` lets a role do what it has to"
    )]
    Denied {
        /// Where it is.
        place: LedgerUrl,
        /// What PostgreSQL says.
        why: String,
    },
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
    /// Whether the connection to the database is gone.
    #[cfg(feature = "postgres")]
    pub(super) fn is_lost(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Whether it may be otherwise in a moment.
    pub fn passes(&self) -> bool {
        matches!(self, Self::Locked(_) | Self::Unreachable { .. } | Self::Unanswered { .. })
    }

    pub(super) fn encode(error: &impl ToString) -> Self {
        Self::Encode(error.to_string())
    }
}

/// How a ledger comes to be there.
fn is_made_by(place: &LedgerUrl) -> &'static str {
    match place {
        LedgerUrl::File(_) => "the first check or move with --ledger makes one",
        LedgerUrl::Database(_) => "`vmgate ledger init` as the owner of the database makes one",
    }
}
