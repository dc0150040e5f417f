//! Log of the hook on the host: every decision and every change of the enforcement, one line of JSON each.
//!
//! A line is on disk before the decision takes effect. A file that reaches the size limit is rotated; four older files
//! are kept.

use std::{
    fs::{self, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{EnforcementMode, Layout, trust};
use vmgate_facts::Uuid;

/// Number of rotated files that are kept.
const KEPT_FILES: u32 = 4;
/// Most lines on overrides that are returned.
const OVERRIDES: usize = 500;
/// Longest line that is read, bytes.
const LINE: usize = 64 << 10;

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// Time by the host's clock.
    pub at: Timestamp,
    /// Version of vmgate that wrote the line.
    pub vmgate: String,
    /// The event.
    #[serde(flatten)]
    pub event: JournalEvent,
}

/// An event in the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum JournalEvent {
    /// Decision on an incoming migration.
    Decision {
        /// Name of the VM, from libvirt.
        vm: String,
        /// UUID of the VM; absent if it could not be read.
        #[serde(default, deserialize_with = "Uuid::or_absent")]
        uuid: Option<Uuid>,
        /// True if the migration was let in.
        let_in: bool,
        /// Kind of the reason.
        because: DecisionReason,
        /// The reason in words.
        reason: String,
        /// Digest of the signed statement of the verdict that was used or checked.
        verdict: Option<String>,
        /// Id of the key that signed the verdict.
        key: Option<String>,
        /// Enforcement mode of the host; absent if it could not be read.
        mode: Option<EnforcementMode>,
        /// Duration of the decision.
        took_milliseconds: u64,
    },
    /// A signed verdict was stored.
    Received {
        /// The VM's name in the verdict.
        vm: String,
        /// Digest of the signed statement.
        verdict: String,
        /// Expiry of the verdict.
        expires_at: Timestamp,
        /// Operator.
        by: String,
    },
    /// The emergency override was set.
    OverrideSet {
        /// UUID of the only VM; absent for all VMs.
        #[serde(default, deserialize_with = "Uuid::or_absent")]
        uuid: Option<Uuid>,
        /// Reason of the override.
        reason: String,
        /// Person responsible for the override.
        by: String,
        /// End of the override.
        until: Timestamp,
    },
    /// The emergency override was withdrawn.
    OverrideWithdrawn {
        /// Operator.
        by: String,
    },
    /// The hook was installed or updated.
    Installed {
        /// Files that changed.
        changed: Vec<String>,
        /// Operator.
        by: String,
    },
    /// The hook was removed.
    Removed {
        /// Operator.
        by: String,
    },
}

/// Kind of reason why a migration was let in or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecisionReason {
    /// A signed verdict was used.
    Verdict,
    /// No signed verdict matches.
    NoVerdict,
    /// The emergency override was active.
    Override,
    /// No decision was possible; `on-error` applied.
    Error,
}

impl JournalEntry {
    /// An entry with the current time.
    pub(super) fn now(event: JournalEvent) -> Self {
        Self { at: Timestamp::now(), vmgate: super::VERSION.to_owned(), event }
    }
}

/// Appends a line. The caller holds the lock, so that no other process rotates the file meanwhile.
pub(super) fn append(layout: &Layout, entry: &JournalEntry, most_mebibytes: u64) -> io::Result<()> {
    let path = layout.journal();
    let folder = path.parent().unwrap_or(Path::new("/"));
    trust::make_folder(folder, 0o750)?;
    if fs::metadata(&path).is_ok_and(|metadata| metadata.len() >= most_mebibytes << 20) {
        rotate(&path)?;
    }
    let mut line = serde_json::to_vec(entry)?;
    line.push(b'\n');
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o640).custom_flags(libc::O_NOFOLLOW);
    let mut file = options.open(&path)?;
    file.write_all(&line)?;
    file.sync_data()
}

fn rotate(path: &Path) -> io::Result<()> {
    let aside = |number: u32| PathBuf::from(format!("{}.{number}", path.display()));
    for number in (1..KEPT_FILES).rev() {
        match fs::rename(aside(number), aside(number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(path, aside(1))
}

/// The last lines on overrides that were set or let a VM in, oldest first.
pub(super) fn overrides(layout: &Layout) -> Vec<JournalEntry> {
    let mut found = last_entries(layout, usize::MAX);
    found.retain(|entry| {
        matches!(
            entry.event,
            JournalEvent::OverrideSet { .. }
                | JournalEvent::Decision { because: DecisionReason::Override, let_in: true, .. }
        )
    });
    found.split_off(found.len().saturating_sub(OVERRIDES))
}

/// The last lines, oldest first. A line of another version that cannot be read is left out.
pub(super) fn last_entries(layout: &Layout, count: usize) -> Vec<JournalEntry> {
    let path = layout.journal();
    let mut entries = entries_of(&path);
    for number in 1..=KEPT_FILES {
        if entries.len() >= count {
            break;
        }
        let mut older = entries_of(&PathBuf::from(format!("{}.{number}", path.display())));
        older.append(&mut entries);
        entries = older;
    }
    entries.split_off(entries.len().saturating_sub(count))
}

/// Reads entries from a host whose vmgate may be newer, and leaves out events that this version does not know.
pub(super) fn known_entries<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<JournalEntry>, D::Error> {
    let entries = Vec::<Value>::deserialize(deserializer)?;
    Ok(entries.into_iter().filter_map(|entry| serde_json::from_value(entry).ok()).collect())
}

fn entries_of(path: &Path) -> Vec<JournalEntry> {
    let Ok(file) = fs::File::open(path) else { return Vec::new() };
    let lines = BufReader::new(file).split(b'\n').map_while(Result::ok);
    lines.filter(|line| line.len() <= LINE).filter_map(|line| serde_json::from_slice(&line).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kept_and_the_file_is_put_aside_at_its_size() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::under(root.path());
        let reason = "x".repeat(40_000);
        let entry = |number: usize| {
            JournalEntry::now(JournalEvent::OverrideWithdrawn { by: format!("{number} {reason}") })
        };
        for number in 0..200 {
            append(&layout, &entry(number), 1).unwrap();
        }
        let last = last_entries(&layout, 40);
        assert_eq!(last.len(), 40, "over the border between two files");
        assert!(matches!(&last[39].event, JournalEvent::OverrideWithdrawn { by } if by.starts_with("199 ")));
        let folder = layout.journal().parent().unwrap().to_owned();
        let mut sizes: Vec<u64> =
            fs::read_dir(folder).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).collect();
        sizes.sort_unstable();
        assert_eq!(sizes.len(), 1 + KEPT_FILES as usize, "older ones are gone");
        assert!(sizes.iter().all(|size| *size < (1 << 20) + 50_000), "{sizes:?}");
    }

    #[test]
    fn overrides_are_told_whatever_came_after_them() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::under(root.path());
        let decision = |because, let_in| JournalEvent::Decision {
            vm: "web1".into(),
            uuid: Some("5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11".parse().unwrap()),
            let_in,
            because,
            reason: "r".into(),
            verdict: None,
            key: None,
            mode: Some(EnforcementMode::Enforce),
            took_milliseconds: 3,
        };
        let set = JournalEvent::OverrideSet {
            uuid: None,
            reason: "fire".into(),
            by: "ops".into(),
            until: Timestamp::UNIX_EPOCH,
        };
        let used = decision(DecisionReason::Override, true);
        for event in [set.clone(), used.clone(), decision(DecisionReason::Override, false)] {
            append(&layout, &JournalEntry::now(event), 1).unwrap();
        }
        for _ in 0..20 {
            append(&layout, &JournalEntry::now(decision(DecisionReason::NoVerdict, false)), 1).unwrap();
        }
        let told: Vec<JournalEvent> = overrides(&layout).into_iter().map(|entry| entry.event).collect();
        assert_eq!(told, [set, used]);
    }

    #[test]
    fn a_line_is_flat_and_names_its_event() {
        let decision = JournalEvent::Decision {
            vm: "web1".into(),
            uuid: Some("5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11".parse().unwrap()),
            let_in: false,
            because: DecisionReason::NoVerdict,
            reason: "none".into(),
            verdict: None,
            key: None,
            mode: Some(EnforcementMode::Enforce),
            took_milliseconds: 3,
        };
        let line = serde_json::to_value(JournalEntry::now(decision.clone())).unwrap();
        assert_eq!((&line["event"], &line["because"]), (&"decision".into(), &"no-verdict".into()));
        assert_eq!(serde_json::from_value::<JournalEntry>(line).unwrap().event, decision);
    }
}
