//! The verdicts on the host: those that wait, and those that have served and never do so again.
//!
//! A verdict is known by the digest of what was signed, however its envelope is written. To serve it is to name it in
//! the folder of the spent ones, which the file system does for one process alone.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    Layout,
    decide::{self, IncomingMigration, VerdictMismatch},
    trust,
};
use crate::{
    collect::text::plain,
    error::with_causes,
    verdict::attest::{self, VerifiedVerdict, PublicKey},
};

/// A larger file is no verdict.
const MOST: u64 = 32 << 20;
/// How long after their last change files are kept: spent ones so that a clock that jumps back makes none serve again.
const KEPT: SignedDuration = SignedDuration::from_hours(24 * 90);

/// A verdict that lets the VM in, and waits.
pub(super) struct MatchingVerdict {
    file: PathBuf,
    pub(super) attested: VerifiedVerdict,
}

/// What was found for a VM.
pub(super) struct SearchResult {
    /// Those that let it in, the one that expires first in front.
    pub(super) matching: Vec<MatchingVerdict>,
    /// Why others do not.
    pub(super) mismatches: Vec<String>,
}

/// A verdict that was brought and now waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedVerdict {
    /// Digest of what was signed.
    pub verdict: String,
    /// The VM that it lets in.
    pub vm: String,
    /// Until when.
    pub expires_at: Timestamp,
    /// The key that signed it.
    pub key: String,
}

/// Looks through all verdicts for those that let the VM in. The error says that the folder cannot be believed.
pub(super) fn search(
    layout: &Layout,
    asked: &IncomingMigration,
    keys: &[PublicKey],
    now: Timestamp,
) -> Result<SearchResult, String> {
    let mut found = SearchResult { matching: Vec::new(), mismatches: Vec::new() };
    for file in trust::list(&layout.verdicts()).map_err(|why| why.to_string())? {
        if file.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let attested = match open(&file, keys) {
            Ok(attested) => attested,
            Err(why) => {
                // What nobody trusted signed is not looked into; only its name says whom it is meant for.
                if named_for(&file, &asked.vm) {
                    found.mismatches.push(why);
                }
                continue;
            }
        };
        if fs::symlink_metadata(spent_name(layout, &attested)).is_ok() {
            if decide::check(&attested.verdict, asked, now) != Err(VerdictMismatch::OtherVm) {
                found.mismatches.push("the verdict for it has served once already".to_owned());
            }
            continue;
        }
        match decide::check(&attested.verdict, asked, now) {
            Ok(()) => found.matching.push(MatchingVerdict { file, attested }),
            Err(VerdictMismatch::OtherVm) => {}
            Err(why) => found.mismatches.push(why.to_string()),
        }
    }
    if found.matching.is_empty() && spent_for(layout, &asked.vm) {
        found.mismatches.push("one that was for it has served already".to_owned());
    }
    found.matching.sort_by_key(|matching| matching.attested.verdict.expires_at);
    Ok(found)
}

/// Takes a verdict out of service. `false` says that another process did so first. It is on disk before this returns.
pub(super) fn mark_used(layout: &Layout, matching: &MatchingVerdict) -> io::Result<bool> {
    match fs::hard_link(&matching.file, spent_name(layout, &matching.attested)) {
        Ok(()) => {}
        Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {
            return Ok(false);
        }
        Err(error) => return Err(error),
    }
    trust::sync_folder(&layout.spent())?;
    // The name in the folder of the spent ones is what counts: one that stays here as well does not serve again.
    let _ = fs::remove_file(&matching.file);
    trust::sync_folder(&layout.verdicts())?;
    Ok(true)
}

/// Takes in a signed verdict that somebody brought, if it can ever be of use here. The error is for that person.
pub(super) fn receive(
    layout: &Layout,
    envelope: &[u8],
    host: &str,
    keys: &[PublicKey],
    now: Timestamp,
) -> Result<ReceivedVerdict, String> {
    let attested = attest::verify(envelope, keys).map_err(|why| with_causes(&why))?;
    let verdict = &attested.verdict;
    let Some(vm) = verdict.moved.vm.uuid.as_deref() else {
        return Err("the verdict does not name the VM's UUID, so nothing can be held against it".to_owned());
    };
    decide::check_destination(verdict, host, now).map_err(|why| why.to_string())?;
    if fs::symlink_metadata(spent_name(layout, &attested)).is_ok() {
        return Err("this verdict has served already, and serves once; check again".to_owned());
    }
    let name = format!("{}.{}.json", plain_name(vm), attested.statement.hex());
    let file = layout.verdicts().join(name);
    trust::write(&file, envelope, 0o600)
        .map_err(|error| format!("{}: cannot be written: {error}", file.display()))?;
    Ok(ReceivedVerdict {
        verdict: attested.statement.to_string(),
        vm: plain(verdict.moved.vm.label()),
        expires_at: verdict.expires_at,
        key: attested.key_id.clone(),
    })
}

/// Removes verdicts that can no longer be of use, and forgets spent ones long after they expired.
pub(super) fn tidy(layout: &Layout, now: Timestamp) {
    for folder in [layout.verdicts(), layout.spent()] {
        for file in trust::list(&folder).unwrap_or_default() {
            let changed = fs::symlink_metadata(&file).ok().map(|metadata| metadata.mtime());
            let changed = changed.and_then(|seconds| Timestamp::from_second(seconds).ok());
            if changed.is_some_and(|changed| now.duration_since(changed) > KEPT) {
                // Removed next time, where it could not be now.
                let _ = fs::remove_file(&file);
            }
        }
    }
}

/// How many wait.
pub(super) fn waiting(layout: &Layout) -> usize {
    trust::list(&layout.verdicts()).unwrap_or_default().len()
}

fn open(file: &Path, keys: &[PublicKey]) -> Result<VerifiedVerdict, String> {
    let bytes = trust::read(file, MOST).map_err(|why| why.to_string())?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    attest::verify(&bytes, keys).map_err(|why| format!("{}: {}", plain(&name), with_causes(&why)))
}

/// Its name begins with the VM's UUID, so that a spent one tells whom it let in without being read.
fn spent_name(layout: &Layout, attested: &VerifiedVerdict) -> PathBuf {
    let vm = attested.verdict.moved.vm.uuid.as_deref().unwrap_or_default();
    layout.spent().join(format!("{}.{}.json", plain_name(vm), attested.statement.hex()))
}

fn spent_for(layout: &Layout, vm: &str) -> bool {
    trust::list(&layout.spent()).unwrap_or_default().iter().any(|file| named_for(file, vm))
}

fn named_for(file: &Path, vm: &str) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').next().is_some_and(|uuid| decide::same_uuid(uuid, vm))
}

/// A UUID as a part of a file's name: a signed text is still a text from elsewhere.
fn plain_name(uuid: &str) -> String {
    uuid.chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .take(64)
        .collect::<String>()
        .to_ascii_lowercase()
}
