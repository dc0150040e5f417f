//! Authors of the ledger's records: the role that the database saw, the key that signed, and the name that an entry gives itself.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

use vmgate_attest::PublicKey;
use vmgate_facts::text::plain;
use vmgate_ledger::{Entry, LedgerError, Record, Row, SignatureState};

/// Most groups of records, or records, that one line or list names.
const NAMED: usize = 20;

/// Authors of all records, as far as they are known.
#[derive(Debug, Default)]
pub(super) struct Survey {
    by_role: BTreeMap<String, Vec<u64>>,
    without_role: Vec<u64>,
    signed: BTreeMap<usize, Vec<u64>>,
    other_keys: BTreeMap<String, Vec<u64>>,
    unsigned: Vec<u64>,
    bad: Vec<String>,
    unknown: Vec<u64>,
    claims: Vec<String>,
}

impl Survey {
    /// Adds a record.
    pub(super) fn see(&mut self, row: &Row, keys: &[PublicKey]) -> Result<(), LedgerError> {
        let record = Record::try_from(row)?;
        let sequence = record.sequence;
        if let Some(role) = &record.role {
            self.by_role.entry(plain(role)).or_default().push(sequence);
            self.claims.extend(claim(&record, role));
        } else {
            self.without_role.push(sequence);
        }
        if matches!(record.entry, Entry::Unknown(_)) {
            self.unknown.push(sequence);
        }
        match row.signature(keys) {
            SignatureState::Unsigned => self.unsigned.push(sequence),
            SignatureState::SignedBy(key) => self.signed.entry(key).or_default().push(sequence),
            SignatureState::OtherKey(id) => self.other_keys.entry(id).or_default().push(sequence),
            SignatureState::Bad(why) => {
                let role = record
                    .role
                    .as_deref()
                    .map_or(String::new(), |role| format!(", written by role {}", plain(role)));
                self.bad.push(format!("record {sequence}{role}: {why}"));
            }
        }
        Ok(())
    }

    /// Records whose signature does not hold, in words.
    pub(super) fn bad(&self) -> Option<String> {
        (!self.bad.is_empty()).then(|| format!("signatures of the ledger do not hold:\n{}", list(&self.bad)))
    }

    /// The survey as lines of text. Signatures are told if keys were given.
    pub(super) fn text(&self, keys: &[PathBuf]) -> String {
        let mut text = String::new();
        for (role, records) in &self.by_role {
            let _ = writeln!(text, "written by role {role}: {}", ranges(records));
        }
        if !self.by_role.is_empty() && !self.without_role.is_empty() {
            let records = ranges(&self.without_role);
            let _ = writeln!(
                text,
                "written without a role, by an older vmgate or by the ledger's owner: {records}"
            );
        }
        if !keys.is_empty() {
            for (index, file) in keys.iter().enumerate() {
                let records =
                    self.signed.get(&index).map_or_else(|| "none".to_owned(), |records| ranges(records));
                let _ = writeln!(text, "signed by {}: {records}", file.display());
            }
            for (id, records) in &self.other_keys {
                let _ =
                    writeln!(text, "signature not checked, its key {id} was not given: {}", ranges(records));
            }
            if !self.unsigned.is_empty() {
                let _ = writeln!(text, "not signed: {}", ranges(&self.unsigned));
            }
        }
        if !self.unknown.is_empty() {
            let _ = writeln!(text, "kept, but not understood by this vmgate: {}", ranges(&self.unknown));
        }
        if !self.claims.is_empty() {
            let _ = writeln!(text, "authors that records give themselves, beside the role that wrote them:");
            text.push_str(&list(&self.claims));
        }
        text
    }
}

/// The author that an entry names, if the role that wrote it has another name.
fn claim(record: &Record, role: &str) -> Option<String> {
    let by = match &record.entry {
        // A runner names itself.
        Entry::Expulsion(_) => return None,
        entry => entry.claimed_author()?,
    };
    let is_role = by == role || by.split_once('@').is_some_and(|(user, _)| user == role);
    let (sequence, kind) = (record.sequence, record.entry.kind_name());
    (!is_role)
        .then(|| format!("record {sequence}, {kind}: by {}, written by role {}", plain(by), plain(role)))
}

fn list(lines: &[String]) -> String {
    let mut text = String::new();
    for line in lines.iter().take(NAMED) {
        let _ = writeln!(text, "  {line}");
    }
    if let Some(more) = lines.len().checked_sub(NAMED).filter(|more| *more > 0) {
        let _ = writeln!(text, "  and {more} more");
    }
    text
}

/// Rising numbers as ranges: `1-4, 7`.
fn ranges(numbers: &[u64]) -> String {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => ranges.push((*number, *number)),
        }
    }
    let words = ranges
        .iter()
        .take(NAMED)
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") });
    let words = words.collect::<Vec<_>>().join(", ");
    let more = if ranges.len() > NAMED { ", …" } else { "" };
    let records = if numbers.len() == 1 { "record" } else { "records" };
    format!("{} {records} ({words}{more})", numbers.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_told_as_ranges() {
        assert_eq!(ranges(&[3]), "1 record (3)");
        assert_eq!(ranges(&[1, 2, 3, 4, 7, 9, 10]), "7 records (1-4, 7, 9-10)");
        let many: Vec<u64> = (0..50).map(|number| number * 2).collect();
        assert!(ranges(&many).ends_with("38, …)"));
    }
}
