//! New ledgers for tests, in every store.

#[cfg(feature = "postgres")]
#[path = "../../tests/cluster/mod.rs"]
pub(crate) mod cluster;

use super::Ledger;
use crate::place::LedgerUrl;

/// A place for a new ledger.
pub(crate) struct TestLedger {
    pub(crate) place: LedgerUrl,
    _folder: tempfile::TempDir,
}

impl TestLedger {
    pub(crate) fn in_file() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { place: folder.path().join("sub/ledger.db").into(), _folder: folder }
    }

    #[cfg(feature = "postgres")]
    pub(crate) fn in_database() -> Self {
        Self::at(cluster::database())
    }

    /// A new ledger in this empty database.
    #[cfg(feature = "postgres")]
    pub(crate) fn at(url: String) -> Self {
        Ledger::init(url.clone().into(), &[]).unwrap();
        Self { place: url.into(), _folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn ledger(&self) -> Ledger {
        Ledger::open(self.place.clone()).unwrap()
    }

    /// Runs SQL on the ledger directly, as the owner of the file or the database could.
    pub(crate) fn tamper(&self, sql: &str) -> Result<(), String> {
        match &self.place {
            LedgerUrl::File(file) => {
                let database = rusqlite::Connection::open(file).unwrap();
                database.execute_batch(sql).map_err(|error| error.to_string())
            }
            #[cfg(feature = "postgres")]
            LedgerUrl::Database(url) => {
                cluster::psql(url, &format!("SET search_path = vmgate; {sql}")).map(drop)
            }
            #[cfg(not(feature = "postgres"))]
            LedgerUrl::Database(_) => unreachable!(),
        }
    }

    /// Drops the triggers that protect the records.
    pub(crate) fn unlock(&self) {
        let sql = match &self.place {
            LedgerUrl::File(_) => {
                "DROP TRIGGER record_is_never_changed; DROP TRIGGER record_is_never_removed;"
            }
            LedgerUrl::Database(_) => "DROP TRIGGER record_is_append_only ON record",
        };
        self.tamper(sql).unwrap();
    }
}

/// Runs each of these tests, which take a [`TestLedger`], with a ledger in a file and with one in a database.
macro_rules! in_every_store {
    ($($test:ident)*) => {
        mod in_file {
            $(#[test] fn $test() { super::$test(&crate::ledger::test_ledger::TestLedger::in_file()); })*
        }
        #[cfg(feature = "postgres")]
        mod in_database {
            $(#[test] fn $test() { super::$test(&crate::ledger::test_ledger::TestLedger::in_database()); })*
        }
    };
}
pub(crate) use in_every_store;
