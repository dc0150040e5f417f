//! Signed verdicts on the host: unused ones, and used ones, which never let a VM in again.
//!
//! A verdict is identified by the digest of the signed statement, independent of the envelope's layout. It is marked as
//! used by a hard link in the `spent` folder, which the file system creates for only one process.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use vmgate_attest::{Permit, PublicKey, VerifiedVerdict};
use vmgate_facts::{
    Uuid,
    text::{plain, with_causes},
};

use super::{
    Layout,
    decide::{self, IncomingMigration, VerdictMismatch},
    trust,
};

/// Largest verdict file, bytes.
const MOST: u64 = 32 << 20;
/// Retention of files after their last change. Used verdicts are kept so that none is used again if the clock jumps back.
const KEPT: SignedDuration = SignedDuration::from_hours(24 * 90);

/// An unused verdict that lets the VM in.
pub(super) struct MatchingVerdict {
    file: PathBuf,
    pub(super) attested: VerifiedVerdict<Permit>,
}

/// Verdicts for a VM: those that let it in, and reasons against the others.
pub(super) struct SearchResult {
    /// Verdicts that let the VM in, the earliest expiry first.
    pub(super) matching: Vec<MatchingVerdict>,
    /// Reasons why other verdicts do not let the VM in.
    pub(super) mismatches: Vec<String>,
}

/// A verdict that was stored for later use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedVerdict {
    /// Digest of the signed statement.
    pub verdict: String,
    /// Name of the VM.
    pub vm: String,
    /// Expiry of the verdict.
    pub expires_at: Timestamp,
    /// The key that signed it.
    pub key: String,
}

/// Searches all verdicts for those that let the VM in. An error means that the folder is not trusted.
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
                // A verdict without a trusted signature is not read; only its file name tells the VM.
                if named_for(&file, &asked.vm) {
                    found.mismatches.push(why);
                }
                continue;
            }
        };
        if fs::symlink_metadata(spent_name(layout, &attested)).is_ok() {
            if decide::fits(&attested.verdict, asked, now) != Err(VerdictMismatch::OtherVm) {
                found.mismatches.push(
                    "the verdict for this VM was already used; a verdict can be used only once".to_owned(),
                );
            }
            continue;
        }
        match decide::fits(&attested.verdict, asked, now) {
            Ok(()) => found.matching.push(MatchingVerdict { file, attested }),
            Err(VerdictMismatch::OtherVm) => {}
            Err(why) => found.mismatches.push(why.to_string()),
        }
    }
    if found.matching.is_empty() && spent_for(layout, &asked.vm) {
        found.mismatches.push("an earlier verdict for this VM was already used".to_owned());
    }
    found.matching.sort_by_key(|matching| matching.attested.verdict.expires_at);
    Ok(found)
}

/// Marks a verdict as used. `false` means that another process did so first. The mark is on disk before this returns.
pub(super) fn mark_used(layout: &Layout, matching: &MatchingVerdict) -> io::Result<bool> {
    match fs::hard_link(&matching.file, spent_name(layout, &matching.attested)) {
        Ok(()) => {}
        Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {
            return Ok(false);
        }
        Err(error) => return Err(error),
    }
    trust::sync_folder(&layout.spent())?;
    // Only the link in the `spent` folder counts: a file that stays here as well cannot be used again.
    let _ = fs::remove_file(&matching.file);
    trust::sync_folder(&layout.verdicts())?;
    Ok(true)
}

/// Stores a signed verdict if it can be used on this host. The error is a text for the operator.
pub(super) fn receive(
    layout: &Layout,
    envelope: &[u8],
    host: &Uuid,
    keys: &[PublicKey],
    now: Timestamp,
) -> Result<ReceivedVerdict, String> {
    let attested: VerifiedVerdict<Permit> =
        vmgate_attest::verify(envelope, keys).map_err(|why| with_causes(&why))?;
    let verdict = &attested.verdict;
    let Some(vm) = &verdict.moved.vm.uuid else {
        return Err(
            "the verdict has no UUID of the VM, so it cannot be matched with an incoming VM".to_owned()
        );
    };
    decide::destined(verdict, host, now).map_err(|why| why.to_string())?;
    if fs::symlink_metadata(spent_name(layout, &attested)).is_ok() {
        return Err("this verdict was already used and can be used only once; check again for a new verdict"
            .to_owned());
    }
    let name = format!("{vm}.{}.json", attested.statement.hex());
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

/// Removes old verdicts, used or not, long after they expired.
pub(super) fn tidy(layout: &Layout, now: Timestamp) {
    for folder in [layout.verdicts(), layout.spent()] {
        for file in trust::list(&folder).unwrap_or_default() {
            let changed = fs::symlink_metadata(&file).ok().map(|metadata| metadata.mtime());
            let changed = changed.and_then(|seconds| Timestamp::from_second(seconds).ok());
            if changed.is_some_and(|changed| now.duration_since(changed) > KEPT) {
                // A file that cannot be removed now is removed next time.
                let _ = fs::remove_file(&file);
            }
        }
    }
}

/// Number of unused verdicts.
pub(super) fn waiting(layout: &Layout) -> usize {
    trust::list(&layout.verdicts()).unwrap_or_default().len()
}

fn open(file: &Path, keys: &[PublicKey]) -> Result<VerifiedVerdict<Permit>, String> {
    let bytes = trust::read(file, MOST).map_err(|why| why.to_string())?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    vmgate_attest::verify(&bytes, keys).map_err(|why| format!("{}: {}", plain(&name), with_causes(&why)))
}

/// Its name begins with the VM's UUID, so that a spent one tells whom it let in without being read.
fn spent_name(layout: &Layout, attested: &VerifiedVerdict<Permit>) -> PathBuf {
    let vm = attested.verdict.moved.vm.uuid.as_ref().map(Uuid::as_str).unwrap_or_default();
    layout.spent().join(format!("{vm}.{}.json", attested.statement.hex()))
}

fn spent_for(layout: &Layout, vm: &Uuid) -> bool {
    trust::list(&layout.spent()).unwrap_or_default().iter().any(|file| named_for(file, vm))
}

fn named_for(file: &Path, vm: &Uuid) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').next().and_then(|uuid| uuid.parse::<Uuid>().ok()).as_ref() == Some(vm)
}
