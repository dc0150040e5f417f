//! New ledgers for tests, in every store.

#![allow(missing_docs, clippy::unwrap_used, clippy::missing_panics_doc, reason = "for tests")]

#[path = "../../../tests/cluster/mod.rs"]
pub mod cluster;

use jiff::Timestamp;
use vmgate_attest::Digest;

use super::{Entry, Ledger, PostgresStore, Record, SqliteStore, Store, chain};
use crate::ledger_url::LedgerUrl;

impl Record {
    /// A record that is in no ledger.
    pub fn sample(at: Timestamp, entry: Entry) -> Self {
        let (role, body) = (None, serde_json::to_string(&entry).unwrap());
        Self { sequence: 1, at, entry, role, body, digest: Digest::of(b"") }
    }
}

/// A place for a new ledger.
pub struct TestLedger {
    pub place: LedgerUrl,
    _folder: tempfile::TempDir,
}

impl TestLedger {
    pub fn in_file() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { place: folder.path().join("sub/ledger.db").into(), _folder: folder }
    }

    pub fn in_database() -> Self {
        Self::at(cluster::database())
    }

    /// In this empty database.
    pub fn at(url: String) -> Self {
        Ledger::init(url.clone().into(), &[]).unwrap();
        Self { place: url.into(), _folder: tempfile::tempdir().unwrap() }
    }

    pub fn ledger(&self) -> Ledger {
        Ledger::open(self.place.clone()).unwrap()
    }

    /// Changes the ledger as whoever owns the file or the database could.
    pub fn tamper(&self, sql: &str) -> Result<(), String> {
        match &self.place {
            LedgerUrl::File(file) => {
                let database = rusqlite::Connection::open(file).unwrap();
                database.execute_batch(sql).map_err(|error| error.to_string())
            }
            LedgerUrl::Database(url) => {
                cluster::psql(url, &format!("SET search_path = vmgate; {sql}")).map(drop)
            }
        }
    }

    /// Appends whatever this is as an entry.
    pub fn append_raw(&self, entry: &serde_json::Value) {
        let mut store: Box<dyn Store> = match &self.place {
            LedgerUrl::File(file) => Box::new(SqliteStore::open(file).unwrap()),
            LedgerUrl::Database(url) => Box::new(PostgresStore::open(url).unwrap()),
        };
        store
            .write(&mut |writer| chain::append_json(writer, entry.clone(), Timestamp::now(), None).map(drop))
            .unwrap();
    }

    /// Lets records be changed behind its back.
    pub fn unlock(&self) {
        let sql = match &self.place {
            LedgerUrl::File(_) => {
                "DROP TRIGGER record_is_never_changed; DROP TRIGGER record_is_never_removed;"
            }
            LedgerUrl::Database(_) => "DROP TRIGGER record_is_append_only ON record",
        };
        self.tamper(sql).unwrap();
    }
}

/// Runs each of these tests, which take a [`TestLedger`], on a ledger in a file and on one in a database.
#[macro_export]
macro_rules! in_every_store {
    ($($test:ident)*) => {
        mod in_file {
            $(#[test] fn $test() { super::$test(&$crate::test_ledger::TestLedger::in_file()); })*
        }
        mod in_database {
            $(#[test] fn $test() { super::$test(&$crate::test_ledger::TestLedger::in_database()); })*
        }
    };
}
pub use in_every_store;
