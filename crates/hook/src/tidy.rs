//! Removal of what is of no more use: verdicts that expired, and marks long after the verdict that they are about.
//!
//! A mark goes only when the end of its verdict is past by a day, and the end is written down first: should the clock be set
//! back later, every verdict up to that end still counts as used. No time of a file is looked at.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};

use super::{Layout, store, trust};
use vmgate_facts::Uuid;

/// Time that a mark is kept after the end of its verdict, so that small steps of the clock leave no trace.
const MARKS_KEPT: SignedDuration = SignedDuration::from_hours(24);

/// Removes what is of no more use at `now`, and moves verdicts of an older version to where they are looked up. The caller
/// holds the lock. A file that cannot be removed now is removed next time.
pub(super) fn tidy(layout: &Layout, now: Timestamp) {
    move_older(layout);
    for vm in store::vms(layout) {
        for file in
            store::names_for(layout, &vm).filter(|file| file.until().is_some_and(|until| until <= now))
        {
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

#[cfg(test)]
mod tests {
    use vmgate_attest::VerifiedVerdict;

    use super::*;
    use crate::store::{OnHost, Spent};

    const VM: &str = "5e7c9b3e-0000-4000-8000-00000000000a";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn verdict(expires_at: &str) -> OnHost {
        let text = format!(
            r#"{{"schema":"vmgate/verdict/v1","evaluated_at":"2026-11-23T10:00:00Z","expires_at":"{expires_at}","strict":false,
            "move":{{"vm":{{"uuid":"{VM}"}},"destination":{{}}}},"decision":{{"answer":"GO","because":"all-clear"}},"digests":{{}}}}"#
        );
        let statement = vmgate_attest::Digest::of(text.as_bytes());
        VerifiedVerdict { verdict: serde_json::from_str(&text).unwrap(), key_id: String::new(), statement }
    }

    fn host() -> (tempfile::TempDir, Layout, Uuid) {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::under(root.path());
        trust::make_folder(&layout.spent(), 0o700).unwrap();
        (root, layout, Uuid::parse(VM).unwrap())
    }

    #[test]
    fn a_clock_that_jumps_forward_and_back_lets_no_verdict_serve_twice() {
        let (_root, layout, vm) = host();
        let used = verdict("2026-11-23T11:00:00.5Z");
        assert!(store::mark(&layout, &vm, &used, Spent::Used).unwrap());
        tidy(&layout, at("2036-01-01T00:00:00Z"));
        assert_eq!(trust::list(&layout.spent()).unwrap().len(), 0, "its mark is gone");
        // The clock is right again, and the verdict not expired.
        assert_eq!(store::spent(&layout, &vm, &used), Some(Spent::Forgotten));
        assert!(!store::mark(&layout, &vm, &used, Spent::Used).unwrap());
        let newer = verdict("2026-11-23T11:00:02Z");
        assert_eq!(store::spent(&layout, &vm, &newer), None, "a newer verdict serves");
        tidy(&layout, at("2026-11-23T10:30:00Z"));
        assert_eq!(store::spent(&layout, &vm, &used), Some(Spent::Forgotten));
    }

    #[test]
    fn a_mark_is_kept_for_a_day_after_its_verdict_whatever_the_clock_did_before() {
        let (_root, layout, vm) = host();
        let used = verdict("2026-11-23T11:00:00Z");
        assert!(store::mark(&layout, &vm, &used, Spent::Used).unwrap());
        for now in ["1970-01-01T00:00:00Z", "2026-11-23T10:30:00Z", "2026-11-24T10:59:59Z"] {
            tidy(&layout, at(now));
            assert_eq!(store::spent(&layout, &vm, &used), Some(Spent::Used), "{now}");
        }
    }

    #[test]
    fn what_was_forgotten_and_cannot_be_read_may_be_anything() {
        let (_root, layout, vm) = host();
        std::fs::write(layout.forgotten(), "yesterday").unwrap();
        assert_eq!(store::spent(&layout, &vm, &verdict("2099-11-23T11:00:00Z")), Some(Spent::Forgotten));
    }
}
