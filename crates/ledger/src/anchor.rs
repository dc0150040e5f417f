//! Anchors: copies of the ledger's head outside of it, by which a later reader finds what was rewritten or cut off.
//!
//! A file of anchors has a line for each: `NUMBER:DIGEST TIME`. It is only appended to, and belongs where those who write the
//! ledger cannot write.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::Write as _,
    path::Path,
    str::FromStr,
};

use jiff::Timestamp;
use thiserror::Error;

use super::{Head, Ledger, LedgerError};

/// Copy of the ledger's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// The newest record at that time.
    pub head: Head,
    /// Time by the clock of the machine that made the copy.
    pub at: Timestamp,
}

/// A file of anchors that cannot be used. The texts follow the file's name.
#[derive(Debug, Error)]
pub enum AnchorError {
    /// The file cannot be read.
    #[error("the anchors cannot be read: {0}")]
    Unread(String),
    /// The file cannot be written.
    #[error("the anchor cannot be written: {0}")]
    Unwritten(String),
    /// A line is not an anchor.
    #[error(
        "line {0} is not an anchor (NUMBER:DIGEST TIME): restore the file from a copy, or correct the line"
    )]
    Line(usize),
    /// The file has no anchor.
    #[error("the file has no anchor: `vmgate ledger anchor` writes one")]
    Empty,
}

/// Reads all anchors of a file, which must have one at least.
pub fn read_anchors(path: &Path) -> Result<Vec<Anchor>, AnchorError> {
    let text = fs::read_to_string(path).map_err(|error| AnchorError::Unread(error.to_string()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let anchors: Vec<Anchor> = lines
        .map(|(number, line)| line.trim().parse().map_err(|_| AnchorError::Line(number + 1)))
        .collect::<Result<_, _>>()?;
    if anchors.is_empty() { Err(AnchorError::Empty) } else { Ok(anchors) }
}

/// Adds an anchor to a file, which is on the disk when this returns.
pub fn append_anchor(path: &Path, anchor: &Anchor) -> Result<(), AnchorError> {
    let write = || {
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        file.write_all(format!("{anchor}\n").as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error: std::io::Error| AnchorError::Unwritten(error.to_string()))
}

impl Ledger {
    /// Checks that the ledger still has the record that was once its head, and that nothing before it has changed since.
    /// The chain itself is what [`Ledger::verify`] checks.
    pub fn check_head(&self, once: &Head) -> Result<(), LedgerError> {
        match self.record(once.sequence)? {
            Some(record) if record.digest.hex() == once.digest => Ok(()),
            Some(_) => Err(LedgerError::Rewritten { sequence: once.sequence }),
            None => Err(LedgerError::CutOff { last: self.head()?.sequence, once: once.sequence }),
        }
    }
}

impl FromStr for Head {
    type Err = NotAHead;

    fn from_str(text: &str) -> Result<Self, NotAHead> {
        let (sequence, digest) = text.split_once(':').ok_or(NotAHead)?;
        let sequence = sequence.parse().map_err(|_| NotAHead)?;
        if sequence == 0 { Err(NotAHead) } else { Ok(Self { sequence, digest: digest.to_owned() }) }
    }
}

/// A text that is not the head of a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("give NUMBER:DIGEST, as `vmgate ledger verify` prints it")]
pub struct NotAHead;

impl FromStr for Anchor {
    type Err = NotAHead;

    fn from_str(text: &str) -> Result<Self, NotAHead> {
        let (head, at) = text.split_once(' ').ok_or(NotAHead)?;
        Ok(Self { head: head.parse()?, at: at.parse().map_err(|_| NotAHead)? })
    }
}

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.head, self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_are_read_as_they_were_written_and_a_damaged_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("anchors");
        assert!(matches!(read_anchors(&file), Err(AnchorError::Unread(_))));
        fs::write(&file, "\n").unwrap();
        assert!(matches!(read_anchors(&file), Err(AnchorError::Empty)));
        let anchor = |sequence| Anchor {
            head: Head { sequence, digest: "ab".repeat(32) },
            at: "2026-11-29T06:00:00.5Z".parse().unwrap(),
        };
        for sequence in [1, 7] {
            append_anchor(&file, &anchor(sequence)).unwrap();
        }
        assert_eq!(read_anchors(&file).unwrap(), [anchor(1), anchor(7)]);
        for wrong in ["7", "x:ab 2026-11-29T06:00:00Z", "0:ab 2026-11-29T06:00:00Z", "7:ab yesterday"] {
            fs::write(&file, format!("{}\n{wrong}\n", anchor(1))).unwrap();
            assert!(matches!(read_anchors(&file), Err(AnchorError::Line(2))), "{wrong}");
        }
    }
}
