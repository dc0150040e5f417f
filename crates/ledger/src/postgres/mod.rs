//! The ledger in PostgreSQL, for runners on several machines.
//!
//! A writer locks the empty table `turn` before the snapshot of its transaction, so that it decides on all earlier records.
//! The lock is for speed: without it, a transaction with an older snapshot could not append either, since its record
//! number would be taken already. Every wait has a limit. If the connection is lost, a read is repeated; a write is
//! first searched for under the lock, which an unfinished transaction still holds.

mod address;

use std::{
    thread,
    time::{Duration, Instant},
};

use address::Address;
use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};
use tokio_postgres::{
    Client, Error,
    error::SqlState,
    types::{ToSql, Type},
};
use vmgate_facts::text::with_causes;

use super::{
    LedgerError, Row, Selection, Store, Writer,
    sql::{COLUMNS, Value, number},
};
use crate::ledger_url::LedgerUrl;

/// The format of the tables, in `vmgate.format`.
const FORMAT: i64 = 1;

const SCHEMA: &str = include_str!("schema.sql");

/// Longest wait for the server, with all attempts: long enough for a restart.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Timeouts of the server, shorter than those of this side. A client that hangs in a transaction loses it, so that others can
/// write. A commit is on the disk before it counts, as the server is configured or stricter.
const SESSION: &str = "
SET search_path = vmgate;
SET lock_timeout = '8s';
SET statement_timeout = '9s';
SET idle_in_transaction_session_timeout = '2s';
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
";

/// Begins a transaction, with the lock before the snapshot: a transaction that waited for it sees the records of the one before.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ; LOCK TABLE turn IN EXCLUSIVE MODE";

type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// A ledger in a database.
pub struct PostgresStore {
    place: LedgerUrl,
    address: Address,
    runtime: Runtime,
    client: Option<Client>,
}

impl PostgresStore {
    /// Opens a ledger that `init` created.
    pub fn open(url: &str) -> Result<Self, LedgerError> {
        let mut store = Self::at(url)?;
        match store.connection(Instant::now() + PATIENCE)?.format()? {
            Some(FORMAT) => Ok(store),
            Some(found) => Err(LedgerError::Newer { place: store.place, found, known: FORMAT }),
            None => Err(LedgerError::Missing { place: store.place }),
        }
    }

    /// Creates the ledger if there is none, and lets these roles read it and append to it, but change nothing.
    pub fn init(url: &str, runners: &[String]) -> Result<(), LedgerError> {
        let mut store = Self::at(url)?;
        let place = store.place.clone();
        let connection = store.connection(Instant::now() + PATIENCE)?;
        connection.require_utf8()?;
        connection.run("BEGIN")?;
        match connection.format()? {
            Some(FORMAT) => {}
            Some(found) => return Err(LedgerError::Newer { place, found, known: FORMAT }),
            None => connection.run(SCHEMA)?,
        }
        if !runners.is_empty() {
            connection.require_owner()?;
        }
        for role in runners {
            let role = format!("\"{}\"", role.replace('"', "\"\""));
            connection.run(&format!(
                "GRANT USAGE ON SCHEMA vmgate TO {role};
                 GRANT SELECT ON vmgate.format TO {role};
                 GRANT SELECT, INSERT ON vmgate.record TO {role};
                 GRANT UPDATE ON vmgate.turn TO {role};"
            ))?;
        }
        connection.run("COMMIT")
    }

    fn at(url: &str) -> Result<Self, LedgerError> {
        let place = LedgerUrl::from(url);
        let unopened = |why| LedgerError::Unopened { place: place.clone(), why };
        let address = Address::parse(url).map_err(unopened)?;
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| unopened(error.to_string()))?;
        Ok(Self { place, address, runtime, client: None })
    }

    /// The open connection; opens one if there is none.
    fn connection(&mut self, until: Instant) -> Result<Connection<'_>, LedgerError> {
        let Self { place, address, runtime, client } = self;
        let open = match client.take().filter(|client| !client.is_closed()) {
            Some(open) => open,
            None => within(runtime, place, until, async {
                let (client, connection) = address.config.connect(address.tls.clone()).await?;
                tokio::spawn(connection);
                client.batch_execute(SESSION).await?;
                Ok(client)
            })?,
        };
        Ok(Connection { client: client.insert(open), runtime, place, until })
    }

    /// Repeats an attempt until it succeeds, fails with a permanent error, or [`PATIENCE`] has passed.
    fn retry<T>(
        &mut self,
        mut attempt: impl FnMut(&Connection) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let until = Instant::now() + PATIENCE;
        loop {
            let error = match self.connection(until).and_then(|connection| attempt(&connection)) {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if error.is_disconnected() {
                self.client = None;
            }
            if !error.is_temporary() || Instant::now() + PAUSE > until {
                return Err(error);
            }
            thread::sleep(PAUSE);
        }
    }
}

impl Store for PostgresStore {
    fn write(
        &mut self,
        work: &mut dyn FnMut(&mut dyn Writer) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        let mut unconfirmed = None;
        let written = self.retry(|connection| {
            let done = connection.write(work, &mut unconfirmed);
            if done.as_ref().is_err_and(|error| !error.is_disconnected()) {
                connection.run("ROLLBACK")?;
            }
            done
        });
        match written {
            Err(LedgerError::Unreachable { place, why }) if unconfirmed.is_some() => {
                Err(LedgerError::Unconfirmed { place, why })
            }
            written => written,
        }
    }

    fn select(&mut self, selection: &Selection) -> Result<Vec<Row>, LedgerError> {
        self.retry(|connection| connection.select(selection))
    }
}

/// A connection, with the deadline for its answers.
struct Connection<'a> {
    client: &'a Client,
    runtime: &'a Runtime,
    place: &'a LedgerUrl,
    until: Instant,
}

impl Connection<'_> {
    fn run(&self, statements: &str) -> Result<(), LedgerError> {
        within(self.runtime, self.place, self.until, self.client.batch_execute(statements))
    }

    fn query(&self, query: &str, values: &[Parameter]) -> Result<Vec<tokio_postgres::Row>, LedgerError> {
        within(self.runtime, self.place, self.until, self.client.query_typed(query, values))
    }

    /// Format of the ledger; `None` if the database has no ledger.
    fn format(&self) -> Result<Option<i64>, LedgerError> {
        let is_there = self.query("SELECT 1 FROM pg_namespace WHERE nspname = 'vmgate'", &[])?;
        if is_there.is_empty() {
            return Ok(None);
        }
        let rows = self.query("SELECT version FROM vmgate.format", &[])?;
        rows.first().map(|row| row.try_get(0)).transpose().map_err(|error| classify(self.place, &error))
    }

    /// Checks that this role owns the ledger: a grant by another role has no effect, and PostgreSQL only warns.
    fn require_owner(&self) -> Result<(), LedgerError> {
        let owned =
            "SELECT 1 FROM pg_class WHERE oid = 'vmgate.record'::regclass AND pg_has_role(relowner, 'USAGE')";
        if !self.query(owned, &[])?.is_empty() {
            return Ok(());
        }
        let why = "this role does not own the ledger".to_owned();
        Err(LedgerError::Denied { place: self.place.clone(), why })
    }

    /// Checks that the database is in UTF-8: other encodings cannot hold every name.
    fn require_utf8(&self) -> Result<(), LedgerError> {
        let rows = self.query("SELECT 1 WHERE current_setting('server_encoding') = 'UTF8'", &[])?;
        if !rows.is_empty() {
            return Ok(());
        }
        let why = "the encoding of the database is not UTF-8: create it with ENCODING 'UTF8'".to_owned();
        Err(LedgerError::Unopened { place: self.place.clone(), why })
    }

    fn select(&self, selection: &Selection) -> Result<Vec<Row>, LedgerError> {
        let (query, values) = selection.sql();
        let values: Vec<_> = values.iter().map(Value::parameter).collect();
        self.query(&query, &values)?.iter().map(|stored| row(self.place, stored)).collect()
    }

    /// Runs one transaction. `unconfirmed` is the digest of a record whose commit was sent and not confirmed.
    fn write(
        &self,
        work: &mut dyn FnMut(&mut dyn Writer) -> Result<(), LedgerError>,
        unconfirmed: &mut Option<String>,
    ) -> Result<(), LedgerError> {
        self.run(BEGIN)?;
        if let Some(digest) = unconfirmed {
            let kept = self.query("SELECT 1 FROM record WHERE digest = $1", &[(digest, Type::TEXT)])?;
            if !kept.is_empty() {
                return self.run("ROLLBACK");
            }
            *unconfirmed = None;
        }
        let mut writer = InTransaction { connection: self, digest: None };
        work(&mut writer)?;
        *unconfirmed = writer.digest;
        self.run("COMMIT")
    }
}

struct InTransaction<'a> {
    connection: &'a Connection<'a>,
    /// Digest of the record that was added last.
    digest: Option<String>,
}

impl Writer for InTransaction<'_> {
    fn select(&mut self, selection: &Selection) -> Result<Vec<Row>, LedgerError> {
        self.connection.select(selection)
    }

    fn insert(&mut self, row: &Row) -> Result<(), LedgerError> {
        let insert = format!("INSERT INTO record ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)");
        let (sequence, at) = (number(row.sequence), row.at.to_string());
        let values: [Parameter; 8] = [
            (&sequence, Type::INT8),
            (&at, Type::TEXT),
            (&row.kind, Type::TEXT),
            (&row.run, Type::TEXT),
            (&row.vm, Type::TEXT),
            (&row.body, Type::TEXT),
            (&row.previous, Type::TEXT),
            (&row.digest, Type::TEXT),
        ];
        self.connection.query(&insert, &values)?;
        self.digest = Some(row.digest.clone());
        Ok(())
    }
}

impl Value {
    fn parameter(&self) -> Parameter<'_> {
        match self {
            Self::Number(number) => (number, Type::INT8),
            Self::Text(text) => (text, Type::TEXT),
        }
    }
}

fn row(place: &LedgerUrl, row: &tokio_postgres::Row) -> Result<Row, LedgerError> {
    let broken = |why: String| LedgerError::Store(format!("{place}: {why}"));
    let text = |column| row.try_get::<_, String>(column).map_err(|error| broken(with_causes(&error)));
    let maybe =
        |column| row.try_get::<_, Option<String>>(column).map_err(|error| broken(with_causes(&error)));
    let sequence: i64 = row.try_get(0).map_err(|error| broken(with_causes(&error)))?;
    Ok(Row {
        sequence: u64::try_from(sequence).map_err(|error| broken(error.to_string()))?,
        at: text(1)?.parse().map_err(|error: jiff::Error| broken(error.to_string()))?,
        kind: text(2)?,
        run: maybe(3)?,
        vm: maybe(4)?,
        body: text(5)?,
        previous: text(6)?,
        digest: text(7)?,
    })
}

/// Waits for an answer until the deadline at most.
fn within<T>(
    runtime: &Runtime,
    place: &LedgerUrl,
    until: Instant,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, LedgerError> {
    let left = until.saturating_duration_since(Instant::now());
    match runtime.block_on(async { timeout(left, answer).await }) {
        Ok(answer) => answer.map_err(|error| classify(place, &error)),
        Err(_) => Err(LedgerError::Unreachable {
            place: place.clone(),
            why: format!("the server gave no answer for {} s", PATIENCE.as_secs()),
        }),
    }
}

/// Converts a failure of PostgreSQL.
fn classify(place: &LedgerUrl, error: &Error) -> LedgerError {
    let place = place.clone();
    let Some(said) = error.as_db_error() else {
        return LedgerError::Unreachable { place, why: with_causes(error) };
    };
    let why = said.message().to_owned();
    match said.code() {
        &SqlState::INSUFFICIENT_PRIVILEGE => LedgerError::Denied { place, why },
        &SqlState::UNDEFINED_TABLE => LedgerError::Missing { place },
        &SqlState::DISK_FULL => LedgerError::DiskFull(place),
        &(SqlState::T_R_SERIALIZATION_FAILURE
        | SqlState::T_R_DEADLOCK_DETECTED
        | SqlState::UNIQUE_VIOLATION
        | SqlState::LOCK_NOT_AVAILABLE) => LedgerError::Locked(place),
        &(SqlState::TOO_MANY_CONNECTIONS | SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT) => {
            LedgerError::Unreachable { place, why }
        }
        other => match other.code().get(..2) {
            Some("08") => LedgerError::Unreachable { place, why },
            Some("28" | "3D") => LedgerError::Unopened { place, why },
            Some("57") if *other != SqlState::QUERY_CANCELED => LedgerError::Unreachable { place, why },
            _ => LedgerError::Store(format!("{place}: {why}")),
        },
    }
}

#[cfg(test)]
mod tests;
