//! Entries that this version of vmgate cannot read: of a kind that a newer one added, or not as their kind demands.

use std::fmt;

use super::entry::EntryKind;

/// An entry that this version cannot read. Its record stays as it is, and the chain holds over its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownEntry {
    /// Name of the kind.
    pub kind: String,
    /// Description of what cannot be read, for a kind that this version knows.
    pub why: String,
}

impl UnknownEntry {
    /// True if this version does not know the kind at all.
    fn is_newer(&self) -> bool {
        !EntryKind::all().any(|kind| kind.name() == self.kind)
    }
}

impl fmt::Display for UnknownEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_newer() {
            write!(f, "unknown kind `{}`, written by a newer vmgate", self.kind)
        } else {
            write!(f, "a record of kind `{}` that this vmgate cannot read: {}", self.kind, self.why)
        }
    }
}
