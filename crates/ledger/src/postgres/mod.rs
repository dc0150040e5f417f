//! The ledger in PostgreSQL, for runners on several machines.
//!
//! A record is appended by a function of the database (append.sql), which alone may write: it stamps role, time, number and digest.
//! A decision names the newest record that it rests on, and the function refuses it if there is a newer one by then; so no
//! lock is held while a client thinks, and a client that hangs holds up nobody. Every wait has a limit, and whoever holds a lock
//! for longer is named. If the connection is lost, a read is repeated; so is a write, which the function knows by its token.

mod address;
mod append;

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

use super::{LedgerError, Row, Selection, Store, Writer, sql::Value};
use crate::{error::Blocker, ledger_url::LedgerUrl};

/// The format of the tables, in `vmgate.format`.
const FORMAT: i64 = 2;

/// The tables of format 1.
const SCHEMA: &str = include_str!("schema.sql");

/// From format 1 to format 2.
const UPGRADE: &str = include_str!("format-2.sql");

/// The function that appends, and the rights of those who could write by themselves.
const APPEND: &str = include_str!("append.sql");

/// Longest wait for the server, with all attempts: long enough for a restart.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Longest wait for a lock, as the statements below and append.sql set it.
const LOCK_SECONDS: u64 = 8;

/// Timeouts of the server, shorter than those of this side. A commit is on the disk before it counts, as the server is
/// configured or stricter. The function reads what was committed last, whatever the role's settings say.
const SESSION: &str = "
SET search_path = vmgate;
SET lock_timeout = '8s';
SET statement_timeout = '9s';
SET idle_in_transaction_session_timeout = '2s';
SET default_transaction_isolation = 'read committed';
SET default_transaction_read_only = off;
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
";

/// Begins a transaction whose reads agree with each other.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Processes of others that hold locks on the ledger's tables, as strong ones or all.
const BLOCKERS: &str = "
SELECT DISTINCT l.pid, coalesce(a.usename::text, '?') FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.relation IN (SELECT oid FROM pg_class WHERE relnamespace = 'vmgate'::regnamespace) AND l.granted
  AND l.pid <> pg_backend_pid() AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') OR $1)
ORDER BY 1";

type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// A ledger in a database.
pub struct PostgresStore {
    place: LedgerUrl,
    address: Address,
    runtime: Runtime,
    client: Option<Client>,
}

impl PostgresStore {
    /// Opens a ledger that `init` created. One of the format before is only read.
    pub fn open(url: &str) -> Result<Self, LedgerError> {
        let mut store = Self::at(url)?;
        match store.connection(Instant::now() + PATIENCE)?.format()? {
            Some(1..=FORMAT) => Ok(store),
            Some(found) => Err(LedgerError::Newer { place: store.place, found, known: FORMAT }),
            None => Err(LedgerError::Missing { place: store.place }),
        }
    }

    /// Creates the ledger if there is none, brings one of an older format up to date, and lets these roles read it and append
    /// to it, but change nothing.
    pub fn init(url: &str, runners: &[String]) -> Result<(), LedgerError> {
        let mut store = Self::at(url)?;
        let connection = store.connection(Instant::now() + PATIENCE)?;
        let done = connection.set_up(runners);
        if matches!(done, Err(LedgerError::Locked(_))) {
            connection.run("ROLLBACK")?;
            return Err(connection.blocked(true));
        }
        done
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

    /// Repeats an attempt until it succeeds, fails with a permanent error, or the time is over.
    fn retry<T>(
        &mut self,
        until: Instant,
        mut attempt: impl FnMut(&Connection) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        loop {
            let error = match self.connection(until).and_then(|connection| attempt(&connection)) {
                Ok(done) => return Ok(done),
                Err(LedgerError::Locked(_)) => return Err(self.connection(until)?.blocked(false)),
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
        append::transaction(self, work)
    }

    fn select(&mut self, selection: &Selection) -> Result<Vec<Row>, LedgerError> {
        self.retry(Instant::now() + PATIENCE, |connection| connection.select(selection))
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

    /// True if this role owns the ledger.
    fn is_owner(&self) -> Result<bool, LedgerError> {
        let owned =
            "SELECT 1 FROM pg_class WHERE oid = 'vmgate.record'::regclass AND pg_has_role(relowner, 'USAGE')";
        Ok(!self.query(owned, &[])?.is_empty())
    }

    /// Checks that this role owns the ledger: a grant by another role has no effect, and PostgreSQL only warns.
    fn require_owner(&self) -> Result<(), LedgerError> {
        if self.is_owner()? {
            return Ok(());
        }
        let why = "this role does not own the ledger".to_owned();
        Err(LedgerError::Denied { place: self.place.clone(), why })
    }

    /// Checks that a runner's role is bound by the rights of the tables. A role that is not there is PostgreSQL's to refuse.
    fn require_less_than_owner(&self, role: &str) -> Result<(), LedgerError> {
        let above =
            "SELECT 1 FROM pg_roles r, pg_class c WHERE r.rolname = $1 AND c.oid = 'vmgate.record'::regclass
            AND (r.rolsuper OR pg_has_role(r.oid, c.relowner, 'MEMBER'))";
        if self.query(above, &[(&role, Type::TEXT)])?.is_empty() {
            return Ok(());
        }
        let why = format!(
            "role {role} is a superuser, or owns the ledger, so no right would bind it: give the runner a role of its own"
        );
        Err(LedgerError::Unopened { place: self.place.clone(), why })
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

    /// Names those who hold locks for too long. `any` counts readers too, for which a change of the tables waits.
    fn blocked(&self, any: bool) -> LedgerError {
        let rows = self.query(BLOCKERS, &[(&any, Type::BOOL)]).unwrap_or_default();
        let blocker = |row: &tokio_postgres::Row| {
            Some(Blocker { pid: row.try_get(0).ok()?, role: row.try_get(1).ok()? })
        };
        let by = rows.iter().filter_map(blocker).collect();
        LedgerError::Blocked { place: self.place.clone(), by, seconds: LOCK_SECONDS }
    }

    /// Makes the tables what this version expects, in one transaction.
    fn set_up(&self, runners: &[String]) -> Result<(), LedgerError> {
        self.require_utf8()?;
        self.run("BEGIN")?;
        let found = self.format()?;
        match found {
            None => self.run(&[SCHEMA, UPGRADE].concat())?,
            Some(1) => {
                self.require_owner()?;
                self.run(UPGRADE)?;
            }
            Some(FORMAT) => {}
            Some(found) => {
                return Err(LedgerError::Newer { place: self.place.clone(), found, known: FORMAT });
            }
        }
        if self.is_owner()? {
            self.run(APPEND)?;
        }
        if !runners.is_empty() {
            self.require_owner()?;
        }
        for role in runners {
            self.require_less_than_owner(role)?;
            let role = format!("\"{}\"", role.replace('"', "\"\""));
            self.run(&format!(
                "GRANT USAGE ON SCHEMA vmgate TO {role};
                 GRANT SELECT ON vmgate.format, vmgate.record TO {role};
                 GRANT EXECUTE ON FUNCTION vmgate.append(text, text, bigint) TO {role};"
            ))?;
        }
        self.run("COMMIT")
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
        // Only `append` is called, and it came with format 2.
        &SqlState::UNDEFINED_FUNCTION => LedgerError::Older { place, found: 1, known: FORMAT },
        &SqlState::DISK_FULL => LedgerError::DiskFull(place),
        &(SqlState::T_R_SERIALIZATION_FAILURE
        | SqlState::T_R_DEADLOCK_DETECTED
        | SqlState::UNIQUE_VIOLATION
        | SqlState::LOCK_NOT_AVAILABLE
        | SqlState::QUERY_CANCELED) => LedgerError::Locked(place),
        &(SqlState::TOO_MANY_CONNECTIONS | SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT) => {
            LedgerError::Unreachable { place, why }
        }
        other => match other.code().get(..2) {
            Some("08" | "57") => LedgerError::Unreachable { place, why },
            Some("28" | "3D") => LedgerError::Unopened { place, why },
            _ => LedgerError::Store(format!("{place}: {why}")),
        },
    }
}

#[cfg(test)]
mod tests;
