//! The ledger in one SQLite file. Write-ahead log, so that readers never wait for a writer; every commit is on the
//! disk before it counts; triggers refuse whatever would change or remove a record.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rusqlite::{
    Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior, params_from_iter, types::Value,
};

use super::{
    Head, LedgerError, Row, Selection, Store, Writer, chain, owner_only,
    sql::{self, COLUMNS, number},
    store::Draft,
};

/// The format of the tables, in `user_version`.
const FORMAT: i64 = 1;

/// `vmgl`, so that `file` and vmgate can tell a ledger from another database.
const APPLICATION: i64 = 0x766d_676c;

/// Longest wait for another process's transaction, which takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Space reserved on the ledger's disk while the ledger is open, and released when the disk is full: a run that began can
/// still be ended properly.
const RESERVE_BYTES: usize = 256 << 10;

const SCHEMA: &str = "
CREATE TABLE record (
  sequence INTEGER PRIMARY KEY,
  at       TEXT NOT NULL,
  kind     TEXT NOT NULL,
  run      TEXT,
  vm       TEXT,
  body     TEXT NOT NULL,
  previous TEXT NOT NULL UNIQUE,
  digest   TEXT NOT NULL UNIQUE
) STRICT;
CREATE INDEX record_kind ON record (kind, sequence);
CREATE INDEX record_run ON record (run, kind) WHERE run IS NOT NULL;
CREATE INDEX record_vm ON record (vm, sequence) WHERE vm IS NOT NULL;
CREATE TRIGGER record_is_never_changed BEFORE UPDATE ON record
  BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER record_is_never_removed BEFORE DELETE ON record
  BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
";

/// A ledger in a file.
pub struct SqliteStore {
    path: PathBuf,
    connection: Connection,
    reserve: Option<File>,
}

impl SqliteStore {
    /// Opens the file, or creates it if it does not exist.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        owner_only::create(path).map_err(|error| unopened(path, &error))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let begin = Instant::now();
        loop {
            match Self::connect(path, flags).and_then(Self::set_up) {
                // While one process switches a new file to the write-ahead log, SQLite refuses the others at once.
                Err(LedgerError::Locked(_)) if begin.elapsed() < PATIENCE => {
                    thread::sleep(Duration::from_millis(10));
                }
                opened => {
                    let store = opened?;
                    owner_only::narrow(path).map_err(|why| unopened(path, &why))?;
                    return Ok(Self { reserve: reserve(path), ..store });
                }
            }
        }
    }

    /// Opens an existing file for reading.
    pub fn open_existing(path: &Path) -> Result<Self, LedgerError> {
        if !path.exists() {
            return Err(LedgerError::Missing { place: path.into() });
        }
        // A reader writes to the write-ahead log too. The second try is for users who may only read the file, which
        // works while nobody writes to it.
        let store = Self::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
            .or_else(|_| Self::connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY))?;
        match store.format()? {
            FORMAT => {
                if let Err(why) = owner_only::narrow(path) {
                    tracing::warn!("{why}");
                }
                Ok(store)
            }
            0 => Err(unopened(path, &"the file is not a ledger of vmgate")),
            found => Err(store.newer(found)),
        }
    }

    fn connect(path: &Path, flags: OpenFlags) -> Result<Self, LedgerError> {
        let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .map_err(|error| unopened(path, &error))?;
        let store = Self { path: path.to_owned(), connection, reserve: None };
        let result = store
            .connection
            .busy_timeout(PATIENCE)
            .and_then(|()| store.connection.pragma_update(None, "synchronous", "FULL"))
            // Nothing in a ledger file that somebody sent may call functions.
            .and_then(|()| store.connection.pragma_update(None, "trusted_schema", false));
        result.map_err(|error| opening(path, &error))?;
        Ok(store)
    }

    fn set_up(mut self) -> Result<Self, LedgerError> {
        let path = self.path.clone();
        let said = |error: rusqlite::Error| failed(&path, &error);
        let mode: String = self
            .connection
            .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
            .map_err(|error| opening(&path, &error))?;
        if mode != "wal" {
            let why = format!("the disk supports no write-ahead log (journal mode {mode}): use a local disk");
            return Err(unopened(&path, &why));
        }
        // Several processes may find the file empty at once: one of them creates the tables.
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(said)?;
        let format: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(said)?;
        match format {
            FORMAT => {
                drop(transaction);
                return Ok(self);
            }
            0 => {}
            found => return Err(LedgerError::Newer { place: path.into(), found, known: FORMAT }),
        }
        let tables: i64 = transaction
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(said)?;
        if tables > 0 {
            return Err(unopened(&path, &"the file is a database of another program"));
        }
        transaction.execute_batch(SCHEMA).map_err(said)?;
        transaction.pragma_update(None, "user_version", FORMAT).map_err(said)?;
        transaction.pragma_update(None, "application_id", APPLICATION).map_err(said)?;
        transaction.commit().map_err(said)?;
        Ok(self)
    }

    fn format(&self) -> Result<i64, LedgerError> {
        let version = self.connection.query_row("PRAGMA user_version", [], |row| row.get(0));
        version.map_err(|error| opening(&self.path, &error))
    }

    fn newer(&self, found: i64) -> LedgerError {
        LedgerError::Newer { place: self.path.as_path().into(), found, known: FORMAT }
    }

    fn failed(&self, error: &rusqlite::Error) -> LedgerError {
        failed(&self.path, error)
    }

    fn write_once(
        &mut self,
        work: &mut dyn FnMut(&mut dyn Writer) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        let path = &self.path;
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|error| failed(path, &error))?;
        work(&mut InTransaction { transaction: &transaction, path })?;
        transaction.commit().map_err(|error| failed(path, &error))
    }
}

impl Store for SqliteStore {
    fn write(
        &mut self,
        work: &mut dyn FnMut(&mut dyn Writer) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        match self.write_once(work) {
            Err(LedgerError::DiskFull(_)) if self.reserve.take().is_some() => self.write_once(work),
            done => done,
        }
    }

    fn select(&mut self, selection: &Selection) -> Result<Vec<Row>, LedgerError> {
        select(&self.connection, selection).map_err(|error| self.failed(&error))
    }
}

struct InTransaction<'a> {
    transaction: &'a Transaction<'a>,
    path: &'a Path,
}

impl Writer for InTransaction<'_> {
    fn select(&mut self, selection: &Selection) -> Result<Vec<Row>, LedgerError> {
        select(self.transaction, selection).map_err(|error| failed(self.path, &error))
    }

    fn head(&mut self) -> Result<Head, LedgerError> {
        Ok(self.select(&Selection::newest())?.last().map_or_else(Head::genesis, Head::from))
    }

    fn append(&mut self, draft: &Draft) -> Result<Row, LedgerError> {
        let row = chain::follow(&self.head()?, draft);
        let insert = format!("INSERT INTO record ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
        let values = (
            number(row.sequence),
            row.at.to_string(),
            &row.kind,
            &row.run,
            &row.vm,
            &row.body,
            &row.previous,
            &row.digest,
        );
        self.transaction.execute(&insert, values).map_err(|error| failed(self.path, &error))?;
        Ok(row)
    }
}

fn select(connection: &Connection, selection: &Selection) -> Result<Vec<Row>, rusqlite::Error> {
    let (query, values) = selection.sql();
    let values = values.into_iter().map(|value| match value {
        sql::Value::Number(number) => Value::from(number),
        sql::Value::Text(text) => Value::from(text),
    });
    connection.prepare(&query)?.query_map(params_from_iter(values), row)?.collect()
}

fn row(row: &rusqlite::Row) -> rusqlite::Result<Row> {
    let sequence: i64 = row.get(0)?;
    let at: String = row.get(1)?;
    let broken = |column, error: Box<dyn std::error::Error + Send + Sync>| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error)
    };
    Ok(Row {
        sequence: u64::try_from(sequence).map_err(|error| broken(0, error.into()))?,
        at: at.parse().map_err(|error: jiff::Error| broken(1, error.into()))?,
        kind: row.get(2)?,
        run: row.get(3)?,
        vm: row.get(4)?,
        body: row.get(5)?,
        previous: row.get(6)?,
        digest: row.get(7)?,
    })
}

fn unopened(path: &Path, why: &impl ToString) -> LedgerError {
    LedgerError::Unopened { place: path.into(), why: why.to_string() }
}

/// Converts an SQLite error while the file is being opened.
fn opening(path: &Path, error: &rusqlite::Error) -> LedgerError {
    match failed(path, error) {
        LedgerError::Store(_) => unopened(path, error),
        other => other,
    }
}

/// Converts an SQLite error. A full disk is reported as such or, in the log's shared memory, as an I/O error.
fn failed(path: &Path, error: &rusqlite::Error) -> LedgerError {
    const IOERR_SHMSIZE: i32 = 0x0a | (0x13 << 8);
    match error.sqlite_error() {
        Some(inner) if inner.code == ErrorCode::DiskFull || inner.extended_code == IOERR_SHMSIZE => {
            LedgerError::DiskFull(path.into())
        }
        Some(inner) if matches!(inner.code, ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            LedgerError::Locked(path.into())
        }
        _ => LedgerError::Store(format!("{}: {error}", path.display())),
    }
}

/// Unnamed file that reserves space on the ledger's disk; `None` if the disk has not even that much. A process
/// that is killed frees it.
fn reserve(path: &Path) -> Option<File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::tempfile_in(folder).ok()?;
    file.write_all(&vec![1; RESERVE_BYTES]).ok()?;
    file.sync_all().ok()?;
    Some(file)
}
