//! Log of the hook on the host: every decision and every change of the enforcement, one line of JSON each.
//!
//! A line is on disk before the decision takes effect. It is written by one call to the end of the file, so that lines of
//! processes that write at the same time stay whole without a lock. A file that reaches the size limit is rotated; four older
//! files are kept. Where the file takes no line, the system log does.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::{
        fs::{MetadataExt, OpenOptionsExt},
        net::UnixDatagram,
    },
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{EnforcementMode, Layout, trust};
use vmgate_facts::Uuid;

/// Number of rotated files that are kept.
const KEPT_FILES: u32 = 4;
/// Most lines on overrides that are returned.
const OVERRIDES: usize = 500;
/// Longest line that is read, bytes. Texts in a line are far shorter.
const LINE: usize = 64 << 10;
/// Longest name or reason in a line, bytes.
const LONGEST_TEXT: usize = 8 << 10;
/// Priority of a line for the system log: facility authpriv, severity notice.
const PRIORITY: u8 = (10 << 3) | 5;

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
        /// Digests of the waiting verdicts that it cancelled, as it is a NO-GO.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        cancelled: Vec<String>,
        /// Operator.
        by: String,
    },
    /// Waiting verdicts were withdrawn.
    VerdictsWithdrawn {
        /// Digests of their signed statements.
        verdicts: Vec<String>,
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
    /// An event that only newer versions know.
    #[serde(other)]
    Other,
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

/// Place of a line that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Written {
    /// The hook's own log.
    Log,
    /// The system log, because the hook's own log could not be written for this reason.
    SystemLog(String),
    /// Nowhere, for this reason.
    Nowhere(String),
}

/// Writes a line to the log, else to the system log; ends within about `patience`, since the disk may hang.
pub(super) fn write_down(
    layout: &Layout,
    entry: &JournalEntry,
    most_mebibytes: u64,
    patience: Duration,
) -> Written {
    let line = match line_of(entry) {
        Ok(line) => line,
        Err(error) => return Written::Nowhere(error.to_string()),
    };
    let (sender, receiver) = mpsc::channel();
    let (its_layout, its_line) = (layout.clone(), line.clone());
    let writer = thread::Builder::new().name("log".into()).spawn(move || {
        let _ = sender.send(append_line(&its_layout, &its_line, most_mebibytes));
    });
    let written = match writer.map(|_| receiver.recv_timeout(patience)) {
        Ok(Ok(written)) => written.map_err(|error| error.to_string()),
        Ok(Err(_)) => Err("the disk does not answer".to_owned()),
        // A thread less is no reason to lose a line.
        Err(_) => append_line(layout, &line, most_mebibytes).map_err(|error| error.to_string()),
    };
    let Err(why) = written else { return Written::Log };
    match to_system_log(layout, &line) {
        Ok(()) => Written::SystemLog(why),
        Err(error) => Written::Nowhere(format!("{why}; the system log does not take it either: {error}")),
    }
}

/// Appends a line, on disk before this returns.
pub(super) fn append(layout: &Layout, entry: &JournalEntry, most_mebibytes: u64) -> io::Result<()> {
    append_line(layout, &line_of(entry)?, most_mebibytes)
}

/// An entry as one line without its end.
fn line_of(entry: &JournalEntry) -> io::Result<Vec<u8>> {
    let mut value = serde_json::to_value(entry)?;
    for text in value.as_object_mut().into_iter().flat_map(|fields| fields.values_mut()) {
        if let serde_json::Value::String(text) = text
            && text.len() > LONGEST_TEXT
        {
            text.truncate(text.floor_char_boundary(LONGEST_TEXT));
            text.push('…');
        }
    }
    Ok(serde_json::to_vec(&value)?)
}

fn append_line(layout: &Layout, line: &[u8], most_mebibytes: u64) -> io::Result<()> {
    let path = layout.journal();
    trust::make_folder(path.parent().unwrap_or(Path::new("/")), 0o750)?;
    let mut file = open(&path)?;
    if file.metadata()?.len() >= most_mebibytes << 20 && file.try_lock().is_ok() {
        // Another process may have put the file aside while this one opened it.
        let opened = file.metadata()?.ino();
        if fs::metadata(&path).is_ok_and(|there| there.ino() == opened) {
            rotate(&path)?;
        }
        file = open(&path)?;
    }
    let mut whole = Vec::with_capacity(line.len() + 2);
    if ends_amid_a_line(&mut file)? {
        whole.push(b'\n');
    }
    whole.extend_from_slice(line);
    whole.push(b'\n');
    let written = file.write(&whole)?;
    if written < whole.len() {
        return Err(io::Error::new(io::ErrorKind::StorageFull, "no space left for a whole line"));
    }
    file.sync_data()
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o640).custom_flags(libc::O_NOFOLLOW);
    options.open(path)
}

/// True if a full disk or a crash cut the last line off.
fn ends_amid_a_line(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

fn to_system_log(layout: &Layout, line: &[u8]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    let mut message = format!("<{PRIORITY}>vmgate-hook: ").into_bytes();
    message.extend_from_slice(line);
    socket.send_to(&message, layout.system_log()).map(|_| ())
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
        let reason = "x".repeat(8_000);
        let entry = |number: usize| {
            JournalEntry::now(JournalEvent::OverrideWithdrawn { by: format!("{number} {reason}") })
        };
        for number in 0..1000 {
            append(&layout, &entry(number), 1).unwrap();
        }
        let last = last_entries(&layout, 200);
        assert_eq!(last.len(), 200, "over the border between two files");
        assert!(matches!(&last[199].event, JournalEvent::OverrideWithdrawn { by } if by.starts_with("999 ")));
        let folder = layout.journal().parent().unwrap().to_owned();
        let mut sizes: Vec<u64> =
            fs::read_dir(folder).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).collect();
        sizes.sort_unstable();
        assert_eq!(sizes.len(), 1 + KEPT_FILES as usize, "older ones are gone");
        assert!(sizes.iter().all(|size| *size < (1 << 20) + 50_000), "{sizes:?}");
    }

    #[test]
    fn lines_of_many_writers_stay_whole_while_the_file_is_put_aside() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::under(root.path());
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let layout = &layout;
                scope.spawn(move || {
                    for number in 0..60 {
                        let by = format!("{writer} {number} {}", "x".repeat(7_000));
                        append(layout, &JournalEntry::now(JournalEvent::OverrideWithdrawn { by }), 1)
                            .unwrap();
                    }
                });
            }
        });
        assert!(PathBuf::from(format!("{}.1", layout.journal().display())).exists());
        assert_eq!(last_entries(&layout, usize::MAX).len(), 8 * 60);
    }

    #[test]
    fn a_line_after_one_that_was_cut_off_is_whole() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::under(root.path());
        let entry = JournalEntry::now(JournalEvent::OverrideWithdrawn { by: "ops".into() });
        append(&layout, &entry, 1).unwrap();
        let text = fs::read_to_string(layout.journal()).unwrap();
        fs::write(layout.journal(), format!("{text}{{\"at\":")).unwrap();
        append(&layout, &entry, 1).unwrap();
        assert_eq!(last_entries(&layout, 10), [entry.clone(), entry]);
    }

    #[test]
    fn an_event_of_a_newer_version_is_read() {
        let line = r#"{"at":"2026-11-23T10:00:00Z","vmgate":"9","event":"transferred","to":"x"}"#;
        assert_eq!(serde_json::from_str::<JournalEntry>(line).unwrap().event, JournalEvent::Other);
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
