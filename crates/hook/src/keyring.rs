//! Trusted keys of a host: one public key in PEM per file, with the limits that hook.yaml sets to it.

use std::path::PathBuf;

use jiff::Timestamp;
use vmgate_attest::{Permit, PublicKey};

use super::{
    HookConfig, Layout,
    key_rule::KeyRule,
    trust::{self, UntrustedFile},
};

/// Largest key file, bytes.
const MOST: u64 = 16 << 10;

/// A file of the key folder.
pub(super) struct KeyFile {
    pub(super) path: PathBuf,
    /// The key, or the reason why it is not trusted.
    pub(super) key: Result<PublicKey, String>,
}

impl KeyFile {
    /// Name of the file, as hook.yaml names it.
    pub(super) fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// All files that end in `.pem`. An error means that the folder itself is not trusted.
pub(super) fn key_files(layout: &Layout) -> Result<Vec<KeyFile>, UntrustedFile> {
    let files = trust::list(&layout.keys())?;
    let keys = files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "pem"));
    Ok(keys
        .map(|path| {
            let key = trust::read(&path, MOST).map_err(|why| why.to_string()).and_then(|bytes| {
                PublicKey::from_pem(&path.display().to_string(), &String::from_utf8_lossy(&bytes))
                    .map_err(|why| why.to_string())
            });
            KeyFile { path, key }
        })
        .collect())
}

/// Keys that may sign verdicts on a host, with their limits.
pub(super) struct Keyring {
    keys: Vec<(String, PublicKey, KeyRule)>,
    /// Keys in the folder that hook.yaml does not believe, with the reason.
    refused: Vec<(PublicKey, String)>,
}

impl Keyring {
    /// The trusted keys at `now`. Without one no decision is possible; the error text gives the reason.
    pub(super) fn load(layout: &Layout, config: &HookConfig, now: Timestamp) -> Result<Self, String> {
        let files = key_files(layout).map_err(|why| why.to_string())?;
        let mut ring = Self { keys: Vec::new(), refused: Vec::new() };
        let mut problems = Vec::new();
        for file in files {
            let name = file.name();
            match file.key {
                Err(problem) => problems.push(problem),
                Ok(key) => match config.rule_of(&name, &key.id(), now) {
                    Ok(rule) => ring.keys.push((name, key, rule)),
                    Err(why) => {
                        problems.push(why.clone());
                        ring.refused.push((key, why));
                    }
                },
            }
        }
        if ring.keys.is_empty() {
            let mut text = format!("there is no trusted key in {}", layout.keys().display());
            for problem in problems {
                text = format!("{text}; {problem}");
            }
            return Err(text);
        }
        Ok(ring)
    }

    /// The keys themselves.
    pub(super) fn public(&self) -> Vec<PublicKey> {
        self.keys.iter().map(|(_, key, _)| key.clone()).collect()
    }

    /// Reason why no key of this host signed an envelope, where a key that hook.yaml refuses did.
    pub(super) fn signed_by_refused(&self, envelope: &[u8]) -> Option<String> {
        self.refused.iter().find_map(|(key, why)| {
            let signed = vmgate_attest::verify::<Permit>(envelope, std::slice::from_ref(key)).is_ok();
            signed.then(|| why.clone())
        })
    }

    /// Reason why a key may not sign for a move.
    pub(super) fn forbids(&self, key_id: &str, permit: &Permit, incoming: Option<&str>) -> Option<String> {
        let Some((name, _, rule)) = self.keys.iter().find(|(_, key, _)| key.id() == key_id) else {
            return Some(format!("the key {key_id} is not trusted on this host"));
        };
        rule.forbids(permit, incoming).map(|why| format!("the key {name} may not sign this verdict: {why}"))
    }
}
