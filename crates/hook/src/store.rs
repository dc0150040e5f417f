//! Signed verdicts on the host, by the UUID of their VM, and marks of those that never serve again.
//!
//! `verdicts/UUID/DIGEST.SECONDS.json` waits for its VM; the seconds tell until when. A NO-GO ends in `.no-go.json`. Only the newest verdict on a VM waits:
//! a GO replaces an older GO, and a NO-GO cancels it and keeps its place, so that no older GO comes back. `DIGEST` is that of
//! the signed statement, whatever the layout of the envelope.
//!
//! A verdict serves once: whoever creates its mark in `spent` first may use it, or withdraw it. The name of a mark holds the
//! end of the verdict, and no time of a file is looked at. Decisions take no lock; changes are made under the lock of the
//! caller.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::value::StrDeserializer};
use vmgate_attest::{Decision, Digest, Permit, PublicKey, VerifiedVerdict};
use vmgate_facts::{
    Uuid,
    text::{plain, with_causes},
};

use super::{
    Layout,
    trust::{self, UntrustedFile},
};

/// Largest verdict file, bytes.
const MOST: u64 = 32 << 20;
/// Largest number of files of one VM that a decision opens; more than one are there only if somebody put them there by hand.
const MOST_OF_A_VM: usize = 8;

/// Part of the name of a file that holds a NO-GO.
const NO_GO: &str = "no-go";

/// A file that waits for a VM, by its name alone.
pub(super) struct WaitingFile {
    /// Digest of the statement; none for a file that vmgate did not name.
    digest: Option<Digest>,
    /// Time until which the file is of use.
    until: Option<Timestamp>,
    /// True for a NO-GO, by the name; for counting only.
    pub(super) no_go: bool,
    path: PathBuf,
}

/// A verdict on the host with a valid signature.
pub(super) type OnHost = VerifiedVerdict<Permit>;

/// Reason why a verdict never serves again, as its mark says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Spent {
    /// It let its VM in.
    Used,
    /// An operator withdrew it.
    Withdrawn,
    /// A newer NO-GO cancelled it.
    Cancelled,
    /// The host no longer knows which verdicts with this end were used.
    Forgotten,
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl Spent {
    fn parse(word: &str) -> Option<Self> {
        Self::deserialize(StrDeserializer::<serde::de::value::Error>::new(word)).ok()
    }

    /// Text that follows "the verdict for this VM".
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Used => "was already used; a verdict can be used only once",
            Self::Withdrawn => "was withdrawn",
            Self::Cancelled => "was cancelled by a newer NO-GO",
            Self::Forgotten => {
                "ends before verdicts whose use this host has forgotten, as its clock was once ahead; check again, and send the \
                 new verdict"
            }
        }
    }
}

/// A verdict that was stored for later use, or that cancelled others.
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
    /// True for a NO-GO, which lets nobody in.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_go: bool,
    /// Digests of the waiting verdicts that this NO-GO cancelled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cancelled: Vec<String>,
}

/// Files that wait for a VM. An error means that others than root could have put them there.
pub(super) fn waiting_for(layout: &Layout, vm: &Uuid) -> Result<Vec<WaitingFile>, UntrustedFile> {
    let folder = folder_of(layout, vm);
    match trust::list(&folder) {
        Ok(files) => Ok(files.into_iter().filter_map(WaitingFile::at).take(MOST_OF_A_VM).collect()),
        Err(why) if why.is_missing() => Ok(Vec::new()),
        Err(why) => Err(why),
    }
}

/// The same by their names, whoever put them there: for removing them and for counting.
pub(super) fn names_for(layout: &Layout, vm: &Uuid) -> impl Iterator<Item = WaitingFile> {
    let entries = fs::read_dir(folder_of(layout, vm)).into_iter().flatten().flatten();
    entries.filter_map(|entry| WaitingFile::at(entry.path()))
}

impl WaitingFile {
    /// A file by its name; none if it is no verdict.
    fn at(path: PathBuf) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_suffix(".json")?;
        let mut parts = name.split('.');
        let digest = parts.next().and_then(|hex| format!("sha256:{hex}").parse().ok());
        let until = parts.next().and_then(seconds);
        let no_go = parts.next() == Some(NO_GO);
        Some(Self { digest, until, no_go, path })
    }

    /// The verdict, if a trusted key signed it. The error is for people.
    pub(super) fn open(&self, keys: &[PublicKey]) -> Result<OnHost, String> {
        let bytes = self.bytes().map_err(|why| why.to_string())?;
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        vmgate_attest::verify(&bytes, keys).map_err(|why| format!("{}: {}", plain(&name), with_causes(&why)))
    }

    /// The envelope, whoever signed it.
    pub(super) fn bytes(&self) -> Result<Vec<u8>, UntrustedFile> {
        trust::read(&self.path, MOST)
    }

    /// Removes the file. One that cannot be removed is no danger: only its mark and its end decide.
    pub(super) fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Mark of a verdict that never serves again, if it has one.
pub(super) fn spent(layout: &Layout, vm: &Uuid, verdict: &OnHost) -> Option<Spent> {
    let mark = mark_of(layout, vm, verdict);
    if fs::symlink_metadata(&mark).is_ok() {
        return Some(
            fs::read_to_string(&mark).ok().and_then(|text| Spent::parse(text.trim())).unwrap_or(Spent::Used),
        );
    }
    if fs::symlink_metadata(older_mark_of(layout, vm, verdict)).is_ok() {
        return Some(Spent::Used);
    }
    (verdict.verdict.expires_at <= forgotten_until(layout)).then_some(Spent::Forgotten)
}

/// Marks a verdict, on disk before this returns. `false` means that somebody did so before.
pub(super) fn mark(layout: &Layout, vm: &Uuid, verdict: &OnHost, because: Spent) -> io::Result<bool> {
    if spent(layout, vm, verdict).is_some() {
        return Ok(false);
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut mark = match options.open(mark_of(layout, vm, verdict)) {
        Ok(mark) => mark,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(error),
    };
    // The name alone counts. The word is for messages, and a full disk has no room for it.
    let _ = writeln!(mark, "{because}");
    mark.sync_all()?;
    trust::sync_folder(&layout.spent())?;
    Ok(true)
}

/// True if an earlier verdict on the VM was used here. For messages only.
pub(super) fn used_before(layout: &Layout, vm: &Uuid) -> bool {
    let names = trust::list(&layout.spent()).unwrap_or_default();
    names.iter().any(|mark| {
        let name = mark.file_name().unwrap_or_default().to_string_lossy();
        name.strip_prefix(vm.as_str()).is_some_and(|rest| rest.starts_with('.'))
    })
}

/// Stores a verified verdict that may be used on this host, in place of older ones. The error is for people.
pub(super) fn receive(
    layout: &Layout,
    vm: &Uuid,
    received: &OnHost,
    envelope: &[u8],
    keys: &[PublicKey],
    until: Timestamp,
) -> Result<ReceivedVerdict, String> {
    if let Some(spent) = spent(layout, vm, received) {
        return Err(format!("the verdict for this VM {}", spent.words()));
    }
    let no_go = is_no_go(received);
    let there = waiting_for(layout, vm).map_err(|why| why.to_string())?;
    let mut older = Vec::new();
    for file in there {
        // What no trusted key signed is of no use to anybody.
        let Ok(verdict) = file.open(keys) else { continue };
        let newer =
            (verdict.verdict.evaluated_at, is_no_go(&verdict)) > (received.verdict.evaluated_at, no_go);
        if newer && verdict.statement != received.statement {
            return Err(format!(
                "this host has a newer verdict on this VM: {}, evaluated at {}, while this one was evaluated at {}; check again",
                verdict.verdict.decision.word(),
                verdict.verdict.evaluated_at,
                received.verdict.evaluated_at
            ));
        }
        older.push((file, verdict));
    }
    let hex = received.statement.hex();
    let folder = folder_of(layout, vm);
    let kind = if no_go { format!(".{NO_GO}") } else { String::new() };
    let path = folder.join(format!("{hex}.{}{kind}.json", until.as_second()));
    let failed = |error: io::Error| format!("{}: cannot be written: {error}", path.display());
    trust::make_folder(&folder, 0o700).map_err(failed)?;
    trust::write(&path, envelope, 0o600).map_err(failed)?;
    let mut cancelled = Vec::new();
    for (file, verdict) in older.into_iter().filter(|(file, _)| file.path != path) {
        if no_go && !is_no_go(&verdict) && mark(layout, vm, &verdict, Spent::Cancelled).map_err(failed)? {
            cancelled.push(verdict.statement.to_string());
        }
        file.remove();
    }
    Ok(ReceivedVerdict {
        verdict: received.statement.to_string(),
        vm: plain(received.verdict.moved.vm.label()),
        expires_at: received.verdict.expires_at,
        key: received.key_id.clone(),
        no_go,
        cancelled,
    })
}

/// Withdraws waiting verdicts, by the digest of one or by their VM's UUID or name, and returns the digests of those that
/// were not used before. They cannot be sent again.
pub(super) fn withdraw(
    layout: &Layout,
    digest: Option<Digest>,
    vm: Option<&str>,
    keys: &[PublicKey],
) -> Result<Vec<String>, String> {
    let uuid = vm.and_then(Uuid::parse);
    let vms = match &uuid {
        Some(uuid) => vec![uuid.clone()],
        None => vms(layout),
    };
    let mut withdrawn = Vec::new();
    for uuid in vms {
        let files = waiting_for(layout, &uuid).map_err(|why| why.to_string())?;
        for file in files.into_iter().filter(|file| digest.is_none() || file.digest == digest) {
            let Ok(verdict) = file.open(keys) else { continue };
            let named = uuid_or_name(vm, &uuid, &verdict.verdict);
            if is_no_go(&verdict) || !named {
                continue;
            }
            let marked = mark(layout, &uuid, &verdict, Spent::Withdrawn)
                .map_err(|error| format!("{}: {error}", layout.spent().display()))?;
            if marked {
                withdrawn.push(verdict.statement.to_string());
            }
            file.remove();
        }
    }
    Ok(withdrawn)
}

fn uuid_or_name(wanted: Option<&str>, uuid: &Uuid, verdict: &Permit) -> bool {
    wanted.is_none_or(|wanted| {
        Uuid::parse(wanted).as_ref() == Some(uuid) || verdict.moved.vm.name.as_deref() == Some(wanted)
    })
}

/// UUIDs of the VMs that something waits for, sorted.
pub(super) fn vms(layout: &Layout) -> Vec<Uuid> {
    let entries = fs::read_dir(layout.verdicts()).into_iter().flatten().flatten();
    let mut vms: Vec<Uuid> =
        entries.filter_map(|entry| Uuid::parse(entry.file_name().to_str().unwrap_or_default())).collect();
    vms.sort();
    vms
}

/// True for a verdict that permits nothing and is kept only to keep older ones away.
pub(super) fn is_no_go(verdict: &OnHost) -> bool {
    matches!(verdict.verdict.decision, Decision::NoGo(_))
}

fn folder_of(layout: &Layout, vm: &Uuid) -> PathBuf {
    layout.verdicts().join(vm.as_str())
}

fn mark_of(layout: &Layout, vm: &Uuid, verdict: &OnHost) -> PathBuf {
    let end = verdict.verdict.expires_at.as_second();
    layout.spent().join(format!("{vm}.{}.{end}.json", verdict.statement.hex()))
}

/// Mark of a version that did not write the verdict's end into its name.
fn older_mark_of(layout: &Layout, vm: &Uuid, verdict: &OnHost) -> PathBuf {
    layout.spent().join(format!("{vm}.{}.json", verdict.statement.hex()))
}

/// End of all verdicts whose marks were removed: a verdict that ends no later counts as used, whatever the clock says.
pub(super) fn forgotten_until(layout: &Layout) -> Timestamp {
    match trust::read(&layout.forgotten(), 64) {
        Ok(text) => {
            std::str::from_utf8(&text).ok().and_then(|text| seconds(text.trim())).unwrap_or(Timestamp::MAX)
        }
        Err(why) if why.is_missing() => Timestamp::MIN,
        // What cannot be read may be anything.
        Err(_) => Timestamp::MAX,
    }
}

pub(super) fn seconds(text: &str) -> Option<Timestamp> {
    text.parse().ok().and_then(|seconds| Timestamp::from_second(seconds).ok())
}

/// End in a file's name, its last part but the ending.
pub(super) fn end_in_name(path: &Path) -> Option<Timestamp> {
    path.file_name()?.to_str()?.strip_suffix(".json")?.rsplit('.').next().and_then(seconds)
}

impl WaitingFile {
    /// Time until which the file is of use, from its name or else from its content.
    pub(super) fn until(&self) -> Option<Timestamp> {
        self.until.or_else(|| end_in_content(&self.path))
    }
}

/// End of the verdict in a file of an older version, whose name does not tell it. No signature is checked: what is removed
/// by it is of no more use.
pub(super) fn end_in_content(path: &Path) -> Option<Timestamp> {
    let bytes = trust::read(path, MOST).ok()?;
    vmgate_attest::read_unverified::<Permit>(&bytes).ok().map(|permit| permit.expires_at)
}
