//! Trusted keys of a host: one public key in PEM per file.

use std::path::PathBuf;

use vmgate_attest::PublicKey;

use super::{
    Layout,
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

/// The trusted keys. Without one no decision is possible; the error text gives the reason.
pub(super) fn trusted(layout: &Layout) -> Result<Vec<PublicKey>, String> {
    let files = key_files(layout).map_err(|why| why.to_string())?;
    let (keys, problems): (Vec<_>, Vec<_>) = files.into_iter().map(|file| file.key).partition(Result::is_ok);
    let keys: Vec<PublicKey> = keys.into_iter().flatten().collect();
    if keys.is_empty() {
        let mut text = format!("there is no trusted key in {}", layout.keys().display());
        for problem in problems.into_iter().filter_map(Result::err) {
            text = format!("{text}; {problem}");
        }
        return Err(text);
    }
    Ok(keys)
}
