//! The log on the host: every decision and every change of what is enforced, one line of JSON each.
//!
//! A line is on disk before the decision takes effect. At a size the file is put aside; four older ones are kept.

use std::{
    fs::{self, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Layout, EnforcementMode, trust};

/// How many files that were put aside are kept.
const KEPT_FILES: u32 = 4;
/// Most lines about overrides that are told.
const OVERRIDES: usize = 500;
/// Longest line that is read back.
const LINE: usize = 64 << 10;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// The host's clock.
    pub at: Timestamp,
    /// The version of vmgate that wrote it.
    pub vmgate: String,
    /// What happened.
    #[serde(flatten)]
    pub event: JournalEvent,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum JournalEvent {
    /// A migration wanted to come in.
    Decision {
        /// The VM's name, as libvirt called it.
        vm: String,
        /// Its UUID; absent where it could not be read.
        uuid: Option<String>,
        /// Whether it was let in.
        let_in: bool,
        /// Why.
        because: DecisionReason,
        /// The same in words.
        reason: String,
        /// The verdict that served or was looked at: the digest of what was signed.
        verdict: Option<String>,
        /// The id of the key that signed it.
        key: Option<String>,
        /// What the host enforces; absent where that could not be read.
        mode: Option<EnforcementMode>,
        /// How long the decision took.
        took_milliseconds: u64,
    },
    /// A signed verdict was brought.
    Received {
        /// The VM's name in the verdict.
        vm: String,
        /// The digest of what was signed.
        verdict: String,
        /// Until when it lets the VM in.
        expires_at: Timestamp,
        /// Who brought it.
        by: String,
    },
    /// The emergency override was set.
    OverrideSet {
        /// Only this VM, by UUID; absent for all.
        uuid: Option<String>,
        /// Why.
        reason: String,
        /// Who answers for it.
        by: String,
        /// When it ends by itself.
        until: Timestamp,
    },
    /// The emergency override was taken back.
    OverrideWithdrawn {
        /// Who did so.
        by: String,
    },
    /// The hook was installed or updated.
    Installed {
        /// What changed.
        changed: Vec<String>,
        /// Who did so.
        by: String,
    },
    /// The hook was removed.
    Removed {
        /// Who did so.
        by: String,
    },
}

/// Why a migration was let in or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecisionReason {
    /// A signed verdict served.
    Verdict,
    /// There was none that fits.
    NoVerdict,
    /// The emergency override stood.
    Override,
    /// Nothing could be decided, and `on-error` said what happens.
    Error,
}

impl JournalEntry {
    /// An entry of now.
    pub(super) fn now(event: JournalEvent) -> Self {
        Self { at: Timestamp::now(), vmgate: super::VERSION.to_owned(), event }
    }
}

/// Adds a line. The caller holds the lock, so that nobody else puts the file aside meanwhile.
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

/// The last lines about overrides that were set or let a VM in, oldest first.
pub(super) fn overrides(layout: &Layout) -> Vec<JournalEntry> {
    let mut found = last(layout, usize::MAX);
    found.retain(|entry| {
        matches!(
            entry.event,
            JournalEvent::OverrideSet { .. } | JournalEvent::Decision { because: DecisionReason::Override, let_in: true, .. }
        )
    });
    found.split_off(found.len().saturating_sub(OVERRIDES))
}

/// The last lines, oldest first. A line of another version that cannot be read is left out.
pub(super) fn last(layout: &Layout, count: usize) -> Vec<JournalEntry> {
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
        let entry = |number: usize| JournalEntry::now(JournalEvent::OverrideWithdrawn { by: format!("{number} {reason}") });
        for number in 0..200 {
            append(&layout, &entry(number), 1).unwrap();
        }
        let last = last(&layout, 40);
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
            uuid: Some("u".into()),
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
            uuid: Some("u".into()),
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
