//! New ledgers for tests, in every store.

#![allow(missing_docs, clippy::unwrap_used, clippy::missing_panics_doc, reason = "for tests")]

#[path = "../../../tests/cluster/mod.rs"]
pub mod cluster;

use super::Ledger;
use crate::place::Place;

/// A place for a new ledger.
pub struct Fresh {
    pub place: Place,
    _folder: tempfile::TempDir,
}

impl Fresh {
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
    pub fn behind_its_back(&self, sql: &str) -> Result<(), String> {
        match &self.place {
            Place::File(file) => {
                let database = rusqlite::Connection::open(file).unwrap();
                database.execute_batch(sql).map_err(|error| error.to_string())
            }
            Place::Database(url) => cluster::psql(url, &format!("SET search_path = vmgate; {sql}")).map(drop),
        }
    }

    /// Lets records be changed behind its back.
    pub fn unlock(&self) {
        let sql = match &self.place {
            Place::File(_) => "DROP TRIGGER record_is_never_changed; DROP TRIGGER record_is_never_removed;",
            Place::Database(_) => "DROP TRIGGER record_is_append_only ON record",
        };
        self.behind_its_back(sql).unwrap();
    }
}

/// Runs each of these tests, which take a [`Fresh`], on a ledger in a file and on one in a database.
#[macro_export]
macro_rules! in_every_store {
    ($($test:ident)*) => {
        mod in_file {
            $(#[test] fn $test() { super::$test(&$crate::fresh::Fresh::in_file()); })*
        }
        mod in_database {
            $(#[test] fn $test() { super::$test(&$crate::fresh::Fresh::in_database()); })*
        }
    };
}
pub use in_every_store;
