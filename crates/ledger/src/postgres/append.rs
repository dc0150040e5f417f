//! Appending by the database's function: decide on what was read, append, and decide again if others were faster.

use std::{
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio_postgres::SimpleQueryMessage;

use super::{BEGIN, Connection, PATIENCE, PAUSE, PostgresStore, within};
use crate::{Head, LedgerError, Row, Selection, Writer, chain, sql::number, stamp::Stamp, store::Draft};

/// Runs `work` until nothing came between what it read and what it appended.
pub(super) fn transaction(
    store: &mut PostgresStore,
    work: &mut dyn FnMut(&mut dyn Writer) -> Result<(), LedgerError>,
) -> Result<(), LedgerError> {
    let until = Instant::now() + PATIENCE;
    let mut attempts = 0;
    loop {
        let mut writer = InTransaction { store, until, head: None, reads: false };
        let done = work(&mut writer);
        writer.end();
        let Err(error) = done else { return Ok(()) };
        let pause = match &error {
            // Those who were slower do not all come back at the same moment.
            LedgerError::Overtaken { .. } => random_pause(attempts),
            error if error.is_disconnected() => PAUSE,
            _ => return Err(error),
        };
        if Instant::now() + pause > until {
            return Err(error);
        }
        attempts += 1;
        thread::sleep(pause);
    }
}

/// Up to 1 ms after the first attempt, and up to 32 ms after many.
fn random_pause(attempts: u32) -> Duration {
    let mut random = [0; 2];
    // Without randomness the pause is the longest.
    let part = getrandom::fill(&mut random).map_or(u16::MAX, |()| u16::from_le_bytes(random));
    Duration::from_millis(1 << attempts.min(5)) * u32::from(part) / u32::from(u16::MAX)
}

struct InTransaction<'a> {
    store: &'a mut PostgresStore,
    until: Instant,
    /// Number of the newest record at the time of the first read: what is appended then rests on no newer one.
    head: Option<Head>,
    /// True while a transaction for reading is open.
    reads: bool,
}

impl InTransaction<'_> {
    /// Fixes what is read, at the first read.
    fn begin(&mut self) -> Result<Head, LedgerError> {
        if let Some(head) = &self.head {
            return Ok(head.clone());
        }
        self.reads = true;
        let rows = self.answer(|connection| {
            connection.run(BEGIN)?;
            connection.select(&Selection::newest())
        })?;
        Ok(self.head.insert(rows.last().map_or_else(Head::genesis, Head::from)).clone())
    }

    /// Ends the reading. An answer is not needed: a transaction that did not end is not used again.
    fn end(&mut self) {
        if self.reads && self.answer(|connection| connection.run("ROLLBACK")).is_err() {
            self.store.client = None;
        }
        self.reads = false;
    }

    /// One attempt: a lost connection ends a transaction.
    fn answer<T>(
        &mut self,
        ask: impl FnOnce(&Connection) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let answer = self.store.connection(self.until).and_then(|connection| match ask(&connection) {
            Err(LedgerError::Locked(_)) => {
                connection.run("ROLLBACK")?;
                Err(connection.blocked(false))
            }
            answer => answer,
        });
        if answer.as_ref().is_err_and(LedgerError::is_disconnected) {
            self.store.client = None;
        }
        answer
    }
}

impl Writer for InTransaction<'_> {
    fn select(&mut self, selection: &Selection) -> Result<Vec<Row>, LedgerError> {
        self.begin()?;
        self.answer(|connection| connection.select(selection))
    }

    fn head(&mut self) -> Result<Head, LedgerError> {
        self.begin()
    }

    fn append(&mut self, draft: &Draft) -> Result<Row, LedgerError> {
        self.end();
        let place = self.store.place.clone();
        let call = Call::new(draft, self.head.as_ref())?;
        let mut was_sent = false;
        let answer = self.store.retry(self.until, |connection| {
            // A connection that was lost since it was used last is noticed before the record is sent.
            connection.run("")?;
            was_sent = true;
            connection.call(&call.statement)
        });
        match answer {
            Ok(Some(answer)) => answer.row(draft, &place),
            Ok(None) => {
                let newest = self.answer(|connection| connection.select(&Selection::newest()))?;
                let last = newest.first().and_then(|row| Stamp::of(&row.body).role).unwrap_or_default();
                Err(LedgerError::Overtaken { place, last, seconds: PATIENCE.as_secs() })
            }
            Err(LedgerError::Unreachable { place, why }) if was_sent => {
                Err(LedgerError::Unconfirmed { place, why })
            }
            Err(error) => Err(error),
        }
    }
}

/// Call of the function that appends. However often it is sent, the record is written once.
struct Call {
    statement: String,
}

impl Call {
    fn new(draft: &Draft, head: Option<&Head>) -> Result<Self, LedgerError> {
        let mut token = [0; 16];
        getrandom::fill(&mut token).map_err(|error| LedgerError::Store(error.to_string()))?;
        let token = u128::from_be_bytes(token);
        let head = head.map_or_else(|| "NULL".to_owned(), |head| number(head.sequence).to_string());
        let statement =
            format!("SELECT * FROM vmgate.append({}, '{token:032x}', {head})", literal(&draft.body));
        Ok(Self { statement })
    }
}

/// A text as `quote_literal` of PostgreSQL writes it: the function compares.
pub(super) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// Answer of the function: what it stamped.
struct Answer {
    sequence: u64,
    at: Timestamp,
    role: String,
    previous: String,
    digest: String,
}

impl Connection<'_> {
    /// Calls the function by a simple query, which is committed when it is answered; none if others were faster.
    fn call(&self, statement: &str) -> Result<Option<Answer>, LedgerError> {
        let messages = within(self.runtime, self.place, self.until, self.client.simple_query(statement))?;
        let row = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let strange =
            || LedgerError::Store(format!("{}: the answer to a new record cannot be read", self.place));
        let row = row.ok_or_else(strange)?;
        let text = |column| row.try_get(column).ok().flatten();
        let Some(sequence) = text(0) else { return Ok(None) };
        let answer = || {
            Some(Answer {
                sequence: sequence.parse().ok()?,
                at: text(1)?.parse().ok()?,
                role: text(2)?.to_owned(),
                previous: text(3)?.to_owned(),
                digest: text(4)?.to_owned(),
            })
        };
        answer().map(Some).ok_or_else(strange)
    }
}

impl Answer {
    /// The row as it must be stored now: its digest is computed here too.
    fn row(self, draft: &Draft, place: &crate::LedgerUrl) -> Result<Row, LedgerError> {
        let Self { sequence, at, role, previous, digest } = self;
        let altered =
            |why: &str| LedgerError::Altered { place: place.clone(), sequence, why: why.to_owned() };
        let role = serde_json::to_string(&role).map_err(|error| LedgerError::encode(&error))?;
        let body = format!("{{\"role\":{role},{}", draft.body.strip_prefix('{').unwrap_or(&draft.body));
        if chain::digest(&previous, sequence, at, &body).hex() != digest {
            return Err(altered("the digests differ"));
        }
        let Draft { kind, run, vm, .. } = draft.clone();
        Ok(Row { sequence, at, kind, run, vm, body, previous, digest })
    }
}
