//! Removes the hook from the host this runs on. Keys, settings, verdicts and the log stay, unless all is to go.

use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::{JournalEntry, JournalEvent, HookConfig, Layout, install, journal, run, script};

/// What was removed and what is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovalReport {
    /// Files that are gone or are as they were before.
    pub changed: Vec<String>,
    /// Somebody else's hooks, which go on working.
    pub others: Vec<String>,
}

/// Removes the scripts first, so that libvirt never calls a program that is gone. With `purge`, settings, keys and
/// verdicts go too; the log stays in any case.
pub(super) fn remove(layout: &Layout, purge: bool, by: &str) -> Result<RemovalReport, String> {
    let lock = run::lock(layout).ok();
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
