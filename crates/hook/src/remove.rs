//! Removes the hook from this host. Keys, settings and verdicts stay unless `purge` is set; the log always stays.

use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::{HookConfig, JournalEntry, JournalEvent, Layout, install, journal, requests, script};

/// Result of a removal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovalReport {
    /// Files that were removed or restored.
    pub changed: Vec<String>,
    /// Hooks of other programs, which continue to work.
    pub others: Vec<String>,
}

/// Removes the hook, scripts first, so that libvirt never calls a removed program. With `purge`, settings, keys and
/// verdicts are removed too; the log always stays.
pub(super) fn remove(layout: &Layout, purge: bool, by: &str) -> Result<RemovalReport, String> {
    let lock = requests::lock(layout).ok();
    let mut changed = script::clear_folder(layout)?;
    changed.extend(script::clear_chained(layout)?);
    let mut files = vec![layout.program(), layout.record()];
    if purge {
        files.extend([layout.config(), layout.override_file()]);
    }
    for file in files {
        match fs::remove_file(&file) {
            Ok(()) => changed.push(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{}: {error}", file.display())),
        }
    }
    if purge {
        for folder in [layout.keys(), layout.verdicts()] {
            match fs::remove_dir_all(&folder) {
                Ok(()) => changed.push(folder),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(format!("{}: {error}", folder.display())),
            }
        }
    }
    if !changed.is_empty() {
        let event = JournalEvent::Removed { by: by.to_owned() };
        journal::append(layout, &JournalEntry::now(event), HookConfig::default().log_mebibytes)
            .map_err(|error| format!("{}: {error}", layout.journal().display()))?;
    }
    drop(lock);
    let changed = changed.iter().map(|path| path.display().to_string()).collect();
    Ok(RemovalReport { changed, others: install::others(layout) })
}
