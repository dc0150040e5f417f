//! Hash chain of the ledger: canonical JSON, hashed with the digest of the previous record.

use std::fmt;

use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use vmgate_attest::{Digest, PrivateKey};

use super::{Entry, LedgerError, Record, Row, UnknownEntry, Writer, stamp::Stamp, store::Draft};

/// Digest of the previous record, in the first record.
pub(super) const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Newest record of a chain. A copy of it elsewhere shows later if records were removed at the end of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Number of the record; 0 for an empty ledger.
    pub sequence: u64,
    /// Digest of the record, in hexadecimal.
    pub digest: String,
}

impl Head {
    /// Head of a ledger without records.
    pub(super) fn genesis() -> Self {
        Self { sequence: 0, digest: GENESIS.to_owned() }
    }
}

impl From<&Row> for Head {
    fn from(row: &Row) -> Self {
        Self { sequence: row.sequence, digest: row.digest.clone() }
    }
}

/// `NUMBER:DIGEST`.
impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.sequence, self.digest)
    }
}

/// Break of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenChain {
    /// The first record that does not fit.
    pub sequence: u64,
    /// Description of the error.
    pub why: String,
}

impl fmt::Display for BrokenChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {}: {}", self.sequence, self.why)
    }
}

/// Appends an entry to the chain, signed if there is a key.
pub(super) fn append(
    writer: &mut dyn Writer,
    entry: &Entry,
    at: Timestamp,
    key: Option<&PrivateKey>,
) -> Result<Record, LedgerError> {
    let value = serde_json::to_value(entry).map_err(|error| LedgerError::encode(&error))?;
    append_json(writer, value, at, key)
}

/// The same for an entry of any version.
pub(super) fn append_json(
    writer: &mut dyn Writer,
    value: Value,
    at: Timestamp,
    key: Option<&PrivateKey>,
) -> Result<Record, LedgerError> {
    let Columns { kind, run, vm } = Columns::of(&value);
    let mut body = canonical(value)?;
    if let Some(key) = key {
        body = Stamp::sign(&body, &writer.head()?, key);
    }
    let kind = kind.ok_or_else(|| LedgerError::encode(&"it has no kind"))?;
    let row = writer.append(&Draft { at, kind, run, vm, body })?;
    Record::try_from(&row)
}

/// The row of an entry that follows a head.
pub(super) fn follow(head: &Head, draft: &Draft) -> Row {
    let Draft { at, kind, run, vm, body } = draft.clone();
    let sequence = head.sequence + 1;
    let previous = head.digest.clone();
    let digest = digest(&previous, sequence, at, &body).hex();
    Row { sequence, at, kind, run, vm, body, previous, digest }
}

/// Hashes a record. No part can run into the next: the digest has a fixed length, number and time end with a line
/// break that neither can hold. A database computes the same (postgres/append.sql).
pub(super) fn digest(previous: &str, sequence: u64, at: Timestamp, body: &str) -> Digest {
    let mut hash = Sha256::new();
    hash.update(format!("{previous}\n{sequence}\n{at}\n").as_bytes());
    hash.update(body.as_bytes());
    Digest::from_bytes(hash.finalize().into())
}

/// JSON without white space and with sorted names. A verification hashes the stored bytes, so that no version
/// of vmgate has to write numbers exactly as another one did.
fn canonical(value: Value) -> Result<String, LedgerError> {
    serde_json::to_string(&sorted(value)).map_err(|error| LedgerError::encode(&error))
}

/// The value with sorted names. PostgreSQL has no NUL in texts, so it becomes the sign for what cannot be shown.
fn sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.into_iter().map(|(name, value)| (name, sorted(value))).collect();
            fields.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(fields.into_iter().collect())
        }
        Value::String(text) if text.contains('\0') => Value::String(text.replace('\0', "\u{fffd}")),
        other => other,
    }
}

/// Search terms of an entry of any kind, by the names that all kinds use, those of newer versions too. A database
/// reads the same out of an entry (postgres/append.sql).
#[derive(Debug, PartialEq, Eq)]
struct Columns {
    kind: Option<String>,
    /// Id of the run; for a campaign event the campaign, for an expulsion the runner.
    run: Option<String>,
    /// UUID of the VM.
    vm: Option<String>,
}

impl Columns {
    fn of(entry: &Value) -> Self {
        let text = |pointer: &str| entry.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let kind = text("/kind");
        let run = match kind.as_deref() {
            Some("campaign") => "/campaign",
            Some("expulsion") => "/runner",
            _ => "/run",
        };
        let vm = match entry.get("vm") {
            Some(Value::String(_)) => "/vm",
            Some(Value::Object(_)) => "/vm/uuid",
            _ => "/move/vm/uuid",
        };
        Self { run: text(run), vm: text(vm), kind }
    }
}

impl TryFrom<&Row> for Record {
    type Error = LedgerError;

    fn try_from(row: &Row) -> Result<Self, LedgerError> {
        let digest = format!("sha256:{}", row.digest).parse();
        let broken = |error: vmgate_attest::InvalidDigest| {
            LedgerError::Broken(BrokenChain { sequence: row.sequence, why: error.to_string() })
        };
        let entry = serde_json::from_str(&row.body).unwrap_or_else(|error| {
            Entry::Unknown(UnknownEntry { kind: row.kind.clone(), why: error.to_string() })
        });
        let role = Stamp::of(&row.body).role;
        Ok(Self {
            sequence: row.sequence,
            at: row.at,
            entry,
            role,
            body: row.body.clone(),
            digest: digest.map_err(broken)?,
        })
    }
}

/// Verification of a chain, record by record.
#[derive(Debug)]
pub(super) struct Verification {
    head: Head,
}

impl Verification {
    pub(super) fn new() -> Self {
        Self { head: Head::genesis() }
    }

    /// The last record that was checked.
    pub(super) fn head(&self) -> &Head {
        &self.head
    }

    /// Checks the next record.
    pub(super) fn next(&mut self, row: &Row) -> Result<(), LedgerError> {
        let broken =
            |sequence, why: &str| Err(LedgerError::Broken(BrokenChain { sequence, why: why.to_owned() }));
        if row.sequence != self.head.sequence + 1 {
            let why = format!("the record is missing; the next one is record {}", row.sequence);
            return broken(self.head.sequence + 1, &why);
        }
        if row.previous != self.head.digest {
            return broken(row.sequence, "the record does not follow from the one before it");
        }
        if digest(&row.previous, row.sequence, row.at, &row.body).hex() != row.digest {
            return broken(row.sequence, "the content is not the content that was written");
        }
        // A database accepts what no reader here does, such as a thousand brackets: such a text has no columns to agree with.
        if let Ok(value) = serde_json::from_str::<Value>(&row.body) {
            let columns = Columns { kind: Some(row.kind.clone()), run: row.run.clone(), vm: row.vm.clone() };
            if Columns::of(&value) != columns {
                return broken(row.sequence, "the columns do not agree with the content");
            }
        }
        self.head = Head::from(row);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_the_names_that_all_kinds_use() {
        let columns = |json: Value| {
            let Columns { kind, run, vm } = Columns::of(&json);
            [kind, run, vm].map(Option::unwrap_or_default)
        };
        let uuid = serde_json::json!({"name": "web1", "uuid": "u"});
        for (json, expected) in [
            (serde_json::json!({"kind": "transition", "run": "r", "vm": "u"}), ["transition", "r", "u"]),
            (serde_json::json!({"kind": "verdict", "move": {"vm": uuid}}), ["verdict", "", "u"]),
            (
                serde_json::json!({"kind": "newer", "run": "r", "vm": uuid, "campaign": "c"}),
                ["newer", "r", "u"],
            ),
            (serde_json::json!({"kind": "campaign", "campaign": "c", "runner": "x"}), ["campaign", "c", ""]),
            (
                serde_json::json!({"kind": "expulsion", "campaign": "c", "runner": "x"}),
                ["expulsion", "x", ""],
            ),
            (serde_json::json!({"kind": 7, "run": [], "vm": {"uuid": 7}}), ["", "", ""]),
        ] {
            assert_eq!(columns(json), expected);
        }
    }
}
