//! Hash chain of the ledger: canonical JSON, hashed with the digest of the previous record.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use vmgate_attest::Digest;

use super::{Entry, LedgerError, Record, Row, Selection, Writer};

/// Digest of the previous record, in the first record.
const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Newest record of a chain. A copy of it elsewhere shows later if records were removed at the end of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Number of the record; 0 for an empty ledger.
    pub sequence: u64,
    /// Digest of the record, in hexadecimal.
    pub digest: String,
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

/// Appends an entry to the chain.
pub(super) fn append(writer: &mut dyn Writer, entry: &Entry, at: Timestamp) -> Result<Record, LedgerError> {
    let newest = writer.select(&Selection::newest())?.pop();
    let (before, previous) = newest.map_or_else(|| (0, GENESIS.to_owned()), |row| (row.sequence, row.digest));
    let body = canonical(entry)?;
    let sequence = before + 1;
    let digest = digest(&previous, sequence, at, &body);
    let row = Row {
        sequence,
        at,
        kind: entry.kind().name().to_owned(),
        run: entry.run().map(str::to_owned),
        vm: entry.vm().map(str::to_owned),
        body,
        previous,
        digest: digest.hex(),
    };
    writer.insert(&row)?;
    Ok(Record { sequence, at, entry: entry.clone(), digest })
}

/// Hashes a record. No part can run into the next: the digest has a fixed length, number and time end with a line
/// break that neither can hold.
fn digest(previous: &str, sequence: u64, at: Timestamp, body: &str) -> Digest {
    let mut hash = Sha256::new();
    hash.update(format!("{previous}\n{sequence}\n{at}\n").as_bytes());
    hash.update(body.as_bytes());
    Digest::from_bytes(hash.finalize().into())
}

/// JSON without white space and with sorted names. A verification hashes the stored bytes, so that no version
/// of vmgate has to write numbers exactly as another one did.
fn canonical(entry: &impl Serialize) -> Result<String, LedgerError> {
    let value = serde_json::to_value(entry).map_err(|error| LedgerError::encode(&error))?;
    serde_json::to_string(&sorted(value)).map_err(|error| LedgerError::encode(&error))
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.into_iter().map(|(name, value)| (name, sorted(value))).collect();
            fields.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(fields.into_iter().collect())
        }
        other => other,
    }
}

impl TryFrom<&Row> for Record {
    type Error = LedgerError;

    fn try_from(row: &Row) -> Result<Self, LedgerError> {
        let broken = |why: String| LedgerError::Broken(BrokenChain { sequence: row.sequence, why });
        let digest = format!("sha256:{}", row.digest).parse();
        Ok(Self {
            sequence: row.sequence,
            at: row.at,
            entry: serde_json::from_str(&row.body)
                .map_err(|error| broken(format!("it is none that this version writes: {error}")))?,
            digest: digest.map_err(|error: vmgate_attest::InvalidDigest| broken(error.to_string()))?,
        })
    }
}

/// Verification of a chain, record by record.
#[derive(Debug, Default)]
pub(super) struct Verification {
    head: Option<Head>,
}

impl Verification {
    /// The last record that was checked.
    pub(super) fn head(&self) -> Head {
        self.head.clone().unwrap_or_else(|| Head { sequence: 0, digest: GENESIS.to_owned() })
    }

    /// Checks the next record.
    pub(super) fn next(&mut self, row: &Row) -> Result<(), LedgerError> {
        let head = self.head();
        let broken = |sequence, why: String| Err(LedgerError::Broken(BrokenChain { sequence, why }));
        if row.sequence != head.sequence + 1 {
            let missing = head.sequence + 1;
            return broken(
                missing,
                format!("the record is missing; the next one is record {}", row.sequence),
            );
        }
        if row.previous != head.digest {
            return broken(row.sequence, "the record does not follow from the one before it".to_owned());
        }
        if digest(&row.previous, row.sequence, row.at, &row.body).hex() != row.digest {
            return broken(row.sequence, "the content is not the content that was written".to_owned());
        }
        let entry = Record::try_from(row)?.entry;
        if (entry.kind().name(), entry.run(), entry.vm())
            != (row.kind.as_str(), row.run.as_deref(), row.vm.as_deref())
        {
            return broken(row.sequence, "the columns do not agree with the content".to_owned());
        }
        self.head = Some(Head { sequence: row.sequence, digest: row.digest.clone() });
        Ok(())
    }
}
