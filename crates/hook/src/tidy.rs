//! Removal of what is of no more use: verdicts that expired, and marks long after the verdict that they are about.
//!
//! A mark goes only when the end of its verdict is past by a day, and the end is written down first: should the clock be set
//! back later, every verdict up to that end still counts as used. No time of a file is looked at.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};

use super::{Layout, store, trust, uuid::Uuid};

/// Time that a mark is kept after the end of its verdict, so that small steps of the clock leave no trace.
const MARKS_KEPT: SignedDuration = SignedDuration::from_hours(24);

/// Removes what is of no more use at `now`, and moves verdicts of an older version to where they are looked up. The caller
/// holds the lock. A file that cannot be removed now is removed next time.
pub(super) fn tidy(layout: &Layout, now: Timestamp) {
    move_older(layout);
    for vm in store::vms(layout) {
        let files = store::waiting_for(layout, &vm).unwrap_or_default();
        for file in files.iter().filter(|file| file.until().is_some_and(|until| until <= now)) {
            file.remove();
        }
        // Only an empty folder can be removed.
        let _ = fs::remove_dir(layout.verdicts().join(vm.as_str()));
    }
    forget_marks(layout, now);
}

fn forget_marks(layout: &Layout, now: Timestamp) {
    let end = |mark: &PathBuf| store::end_in_name(mark).or_else(|| store::end_in_content(mark));
    let over = |end: Timestamp| end.saturating_add(MARKS_KEPT).is_ok_and(|kept| kept < now);
    let marks = trust::list(&layout.spent()).unwrap_or_default();
    let old: Vec<(PathBuf, Timestamp)> = marks
        .into_iter()
        .filter_map(|mark| end(&mark).map(|end| (mark, end)))
        .filter(|(_, end)| over(*end))
        .collect();
    let Some(last) = old.iter().map(|(_, end)| *end).max() else { return };
    if remember(layout, last).is_ok() {
        for (mark, _) in old {
            let _ = fs::remove_file(mark);
        }
    }
}

/// Writes down up to which end of a verdict its use is no longer known.
fn remember(layout: &Layout, end: Timestamp) -> io::Result<()> {
    let known = store::forgotten_until(layout);
    // The name of a mark has whole seconds, so the whole second is forgotten.
    let text = end.as_second().saturating_add(1).to_string();
    if known > end { Ok(()) } else { trust::write(&layout.forgotten(), text.as_bytes(), 0o600) }
}

/// Verdicts that an older version stored as `verdicts/UUID.DIGEST.json` move to the folder of their VM.
fn move_older(layout: &Layout) {
    for path in trust::list(&layout.verdicts()).unwrap_or_default() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some((vm, rest)) = name.split_once('.') else { continue };
        let Some(vm) =
            Uuid::parse(vm).filter(|_| Path::new(rest).extension().is_some_and(|ending| ending == "json"))
        else {
            continue;
        };
        let folder = layout.verdicts().join(vm.as_str());
        if trust::make_folder(&folder, 0o700).is_ok() {
            let _ = fs::rename(&path, folder.join(rest));
        }
    }
}
