//! Errors of the ledger.

use thiserror::Error;
use vmgate_facts::text::ShownCommand;

use super::{BrokenChain, Refusal};
use crate::ledger_url::LedgerUrl;

/// The ledger could not be read or written, or does not allow what was asked.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum LedgerError {
    /// No ledger at this place.
    #[error("{place}: there is no ledger; {}", creation_hint(.place))]
    Missing { place: LedgerUrl },
    /// The ledger cannot be opened.
    #[error(
        "{place}: the ledger cannot be opened: {why}. Check the place and its permissions, or name another one with --ledger"
    )]
    Unopened { place: LedgerUrl, why: String },
    /// A newer version of vmgate wrote the ledger.
    #[error(
        "{place}: the ledger has format {found}, and this version of vmgate knows {known}: use a newer vmgate"
    )]
    Newer { place: LedgerUrl, found: i64, known: i64 },
    /// The ledger has an older format, which this version reads and does not write.
    #[error(
        "{place}: the ledger has format {found}, in which a runner could write records as it liked, and this version of vmgate \
         writes format {known}: run `vmgate ledger init` with this version once, as the owner of the ledger. Older versions \
         cannot use it from then on"
    )]
    Older { place: LedgerUrl, found: i64, known: i64 },
    /// There is no room for another record. Nothing was written.
    #[error("{0}: the disk under the ledger is full, so nothing was written: free some space there")]
    DiskFull(LedgerUrl),
    /// Others kept the ledger locked for too long.
    #[error("{0}: another process keeps the ledger locked; try again")]
    Locked(LedgerUrl),
    /// Somebody keeps the database's tables locked.
    #[error(
        "{place}: {} the ledger locked for more than {seconds} s, so nothing was written. If it does not end by itself, a \
         superuser of the database ends it: {}", holding(.by), ending(.by)
    )]
    Blocked { place: LedgerUrl, by: Vec<Blocker>, seconds: u64 },
    /// Others wrote again and again between what was read and what was to be written on it.
    #[error(
        "{place}: others write to the ledger so often (role {last} was the last) that nothing could be decided on it for \
         {seconds} s, and nothing was written: `vmgate ledger list` shows what they write"
    )]
    Overtaken { place: LedgerUrl, last: String, seconds: u64 },
    /// The database confirmed something else than what was to be written.
    #[error(
        "{place}: the database confirmed record {sequence} with another content than it was given: {why}"
    )]
    Altered { place: LedgerUrl, sequence: u64, why: String },
    /// The database cannot be reached, or went away. Nothing was written.
    #[error(
        "{place}: the ledger cannot be reached: {why}; check that PostgreSQL runs there and accepts this machine"
    )]
    Unreachable { place: LedgerUrl, why: String },
    /// The connection to the database was lost while a record was written.
    #[error(
        "{place}: the connection to the ledger was lost while a record was written, so the record may be missing ({why}): run \
         `vmgate ledger list` when the ledger can be reached again"
    )]
    Unconfirmed { place: LedgerUrl, why: String },
    /// The database role lacks a privilege.
    #[error(
        "{place}: {why}: run `vmgate ledger init --runner ROLE` as the owner of the ledger to give a role its privileges"
    )]
    Denied { place: LedgerUrl, why: String },
    /// The database failed.
    #[error("the ledger failed: {0}")]
    Store(String),
    /// The chain is broken: somebody changed the ledger, or the disk did.
    #[error("the ledger was changed after it was written: {0}")]
    Broken(BrokenChain),
    /// A record is another one than it once was.
    #[error(
        "record {sequence} has another digest than before: the ledger was rewritten, or it is another ledger"
    )]
    Rewritten { sequence: u64 },
    /// Records at the end are missing.
    #[error(
        "the ledger ends at record {last}, but it once had record {once}: records at the end were removed"
    )]
    CutOff { last: u64, once: u64 },
    /// The entry cannot be written.
    #[error("the entry cannot be written as JSON: {0}")]
    Encode(String),
    /// The runner that writes was expelled.
    #[error(
        "this runner sent no heartbeat for too long and was expelled: another runner takes its moves over"
    )]
    Expelled,
    /// A run that this version cannot read reserves the VM.
    #[error(
        "{vm} is reserved by record {sequence} of the ledger, which this version of vmgate cannot read: use the version that \
         wrote it (`{}`), or wait for the end of that run",
        ShownCommand::new("vmgate ledger show").value(sequence)
    )]
    UnreadRun { vm: String, sequence: u64 },
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
        matches!(
            self,
            Self::Locked(_)
                | Self::Blocked { .. }
                | Self::Overtaken { .. }
                | Self::Unreachable { .. }
                | Self::Unconfirmed { .. }
        )
    }

    pub(super) fn encode(error: &impl ToString) -> Self {
        Self::Encode(error.to_string())
    }
}

/// Process of the database that holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// Process id on the database's machine.
    pub pid: i32,
    /// Role that is logged in.
    pub role: String,
}

fn holding(by: &[Blocker]) -> String {
    let names: Vec<_> = by.iter().map(|one| format!("process {} of role {}", one.pid, one.role)).collect();
    match names.as_slice() {
        [] => "somebody kept".to_owned(),
        [one] => format!("{one} keeps"),
        several => format!("{} keep", several.join(", ")),
    }
}

fn ending(by: &[Blocker]) -> String {
    let calls: Vec<_> = by.iter().map(|one| format!("SELECT pg_terminate_backend({});", one.pid)).collect();
    if calls.is_empty() { "pg_locks names it".to_owned() } else { calls.join(" ") }
}

/// Command that creates a ledger at this place.
fn creation_hint(place: &LedgerUrl) -> &'static str {
    match place {
        LedgerUrl::File(_) => "the first check or move with --ledger makes one",
        LedgerUrl::Database(_) => "`vmgate ledger init` as the owner of the database makes one",
    }
}
