//! Installs and updates the hook on this host. The script that libvirt runs is written last, after all files that the
//! script needs; a second installation changes only files that differ.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use vmgate_attest::{Digest, PublicKey};
use vmgate_facts::Uuid;

use super::{
    EnforcementMode, HookActivation, HookConfig, HookPlacement, JournalEntry, JournalEvent, Layout, OnError,
    daemon::{self, Daemon},
    journal,
    keyring::Keyring,
    requests, script, tidy,
    trust::{self, UntrustedFile},
};

const RECORD_LIMIT: u64 = 64 << 10;
/// Largest hook that is read to see if it is vmgate's, bytes.
const SCRIPT_LIMIT: u64 = 1 << 20;

/// Request to install or update the hook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstallRequest {
    /// The host's UUID, as libvirt's capabilities name it: verdicts must name it as their destination.
    pub host_uuid: Uuid,
    /// Placement of the hook beside other hooks.
    pub place: HookPlacement,
    /// Public keys to trust in addition to the existing ones.
    pub keys: Vec<SignerKey>,
    /// Enforcement mode; unchanged if `None`.
    pub mode: Option<EnforcementMode>,
    /// Fallback if no decision is possible; unchanged if `None`.
    pub on_error: Option<OnError>,
    /// Longest time for a decision; unchanged if `None`.
    pub time_limit_seconds: Option<f64>,
    /// True to reload libvirt's daemons, so that they look for hooks again.
    pub reload: bool,
    /// Operator.
    pub by: String,
}

/// A public key to trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignerKey {
    /// File name of the key.
    pub name: String,
    /// The key in PEM.
    pub pem: String,
}

/// Result of an installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallReport {
    /// Files that changed; empty if all was up to date.
    pub changed: Vec<String>,
    /// Activation of the hook in libvirt.
    pub known: HookActivation,
    /// Hooks of other programs, which continue to work.
    pub others: Vec<String>,
}

/// Record of the installation: versions, host and placement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct InstallRecord {
    /// Version of vmgate.
    pub(super) vmgate: String,
    /// UUID of the host at the installation.
    pub(super) host_uuid: Uuid,
    pub(super) place: HookPlacement,
    /// Digest of the installed program.
    pub(super) program: Digest,
    pub(super) installed_at: Timestamp,
    /// Daemon processes of libvirt that know of a hook.
    pub(super) known_by: Vec<Daemon>,
}

/// Reads the record of the installation. An error means that nothing is installed or that the file is not trusted.
pub(super) fn record(layout: &Layout) -> Result<InstallRecord, String> {
    let path = layout.record();
    let bytes = trust::read(&path, RECORD_LIMIT).map_err(|why| why.to_string())?;
    serde_json::from_slice(&bytes).map_err(|why| format!("{}: {why}", path.display()))
}

/// Installs missing files and replaces files that differ.
pub(super) fn install(
    layout: &Layout,
    wanted: &InstallRequest,
    program: &[u8],
) -> Result<InstallReport, String> {
    check(layout, wanted)?;
    let known_by = record(layout).map(|record| record.known_by).unwrap_or_default();
    let mut known_by = daemon::aware_daemons(layout, &known_by);
    let failed = |error: io::Error| format!("the hook is not installed: {error}");
    folders(layout).map_err(failed)?;
    let lock = requests::lock(layout).map_err(failed)?;
    let mut changed = Vec::new();
    let mut put = |path: &Path, content: &[u8], mode: u32| -> Result<(), String> {
        if fs::read(path).is_ok_and(|there| there == content) && trust::read(path, u64::MAX - 1).is_ok() {
            return Ok(());
        }
        trust::write(path, content, mode).map_err(|error| format!("{}: {error}", path.display()))?;
        changed.push(path.display().to_string());
        Ok(())
    };
    put(&layout.program(), program, 0o755)?;
    tidy::tidy(layout, Timestamp::now());
    for key in &wanted.keys {
        put(&layout.keys().join(&key.name), key.pem.as_bytes(), 0o644)?;
    }
    let config = configuration(layout, wanted)?;
    put(&layout.config(), config.as_bytes(), 0o644)?;
    write_record(layout, wanted, program, known_by.clone())?;
    for path in script::put_in_place(layout, wanted.place)? {
        changed.push(path.display().to_string());
    }
    if wanted.reload {
        known_by = daemon::reload(layout)?;
        write_record(layout, wanted, program, known_by.clone())?;
    }
    if !changed.is_empty() {
        let event = JournalEvent::Installed { changed: changed.clone(), by: wanted.by.clone() };
        journal::append(layout, &JournalEntry::now(event), HookConfig::default().log_mebibytes)
            .map_err(|error| format!("{}: {error}", layout.journal().display()))?;
    }
    drop(lock);
    Ok(InstallReport { changed, known: daemon::activation(layout, &known_by), others: others(layout) })
}

/// Refuses an installation that would block all migrations, and key file names that are not allowed.
fn check(layout: &Layout, wanted: &InstallRequest) -> Result<(), String> {
    for key in &wanted.keys {
        PublicKey::from_pem(&key.name, &key.pem).map_err(|why| why.to_string())?;
        let plain = key.name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        let path = Path::new(&key.name);
        if !plain || key.name.starts_with('.') || path.extension().is_none_or(|extension| extension != "pem")
        {
            return Err(format!(
                "{}: the name of a key file must have only letters, digits, `.`, `_` and `-`, must not begin with `.`, and must end in .pem",
                key.name
            ));
        }
    }
    let config = HookConfig::load(layout).unwrap_or_default();
    let mode = wanted.mode.unwrap_or(config.mode);
    let trusts = !wanted.keys.is_empty() || Keyring::load(layout, &config, Timestamp::now()).is_ok();
    if mode == EnforcementMode::Enforce && !trusts {
        return Err(format!(
            "no key is trusted on this host, so all migrations would be refused: give --key FILE (a public key in PEM), put one into \
             {}, or use --mode audit-only",
            layout.keys().display()
        ));
    }
    Ok(())
}

fn folders(layout: &Layout) -> io::Result<()> {
    let program = layout.program();
    for folder in
        [program.parent(), layout.config().parent(), Some(layout.keys().as_path())].into_iter().flatten()
    {
        trust::make_folder(folder, 0o755)?;
    }
    for folder in [layout.state(), layout.verdicts(), layout.spent()] {
        trust::make_folder(&folder, 0o700)?;
    }
    Ok(())
}

/// Text of the configuration file: unchanged unless the file is missing or other settings are requested. Requested
/// settings replace existing ones; a file that cannot be read is an error and not overwritten.
fn configuration(layout: &Layout, wanted: &InstallRequest) -> Result<String, String> {
    let path = layout.config();
    let there = match trust::read(&path, RECORD_LIMIT) {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(why) if UntrustedFile::is_missing(&why) => None,
        Err(why) => return Err(why.to_string()),
    };
    let old = match there {
        Some(_) => {
            HookConfig::load(layout).map_err(|why| format!("{why}; correct this file or move it away"))?
        }
        None => HookConfig::default(),
    };
    let new = HookConfig {
        mode: wanted.mode.unwrap_or(old.mode),
        on_error: wanted.on_error.unwrap_or(old.on_error),
        time_limit_seconds: wanted.time_limit_seconds.unwrap_or(old.time_limit_seconds),
        ..old.clone()
    };
    Ok(there.filter(|_| new == old).unwrap_or_else(|| new.to_text()))
}

fn write_record(
    layout: &Layout,
    wanted: &InstallRequest,
    program: &[u8],
    known_by: Vec<Daemon>,
) -> Result<(), String> {
    let record = InstallRecord {
        vmgate: super::VERSION.to_owned(),
        host_uuid: wanted.host_uuid.clone(),
        place: wanted.place,
        program: Digest::of(program),
        installed_at: Timestamp::now(),
        known_by,
    };
    let text = serde_json::to_vec_pretty(&record).map_err(|error| error.to_string())?;
    trust::write(&layout.record(), &text, 0o644)
        .map_err(|error| format!("{}: {error}", layout.record().display()))
}

/// Paths of hooks for QEMU that are not vmgate's.
pub(super) fn others(layout: &Layout) -> Vec<String> {
    let mut hooks = daemon::executable_hooks(layout);
    hooks.push(layout.displaced_hook());
    hooks.retain(|path| path.exists() && !is_ours(path));
    hooks.iter().map(|path| path.display().to_string()).collect()
}

/// True if vmgate wrote the hook script.
pub(super) fn is_ours(path: &PathBuf) -> bool {
    let small = fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() <= SCRIPT_LIMIT);
    small && fs::read(path).is_ok_and(|text| String::from_utf8_lossy(&text).contains(script::MARK))
}
