//! Writing of trusted files: whole or not at all, and on disk before it counts.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Limit on the drafts that crashes left behind in a folder.
const MOST_DRAFTS: u32 = 10_000;

/// Writes a file whole or not at all, on disk before this returns, with these permissions.
pub fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let (mut file, draft) = draft_in(folder)?;
    let mut finish = || {
        file.write_all(content)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    if let Err(error) = finish() {
        let _ = fs::remove_file(&draft); // the error that counts is the one before
        return Err(error);
    }
    sync_folder(folder)
}

/// A new file of a name that nobody uses.
fn draft_in(folder: &Path) -> io::Result<(File, PathBuf)> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    for number in 0..MOST_DRAFTS {
        let path = folder.join(format!(".vmgate-{}-{number}", std::process::id()));
        match options.open(&path) {
            Ok(file) => return Ok((file, path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("too many files whose names begin with .vmgate- in the folder: remove them"))
}

/// Creates a folder and its parents, with these permissions if it is new.
pub fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Syncs a folder to disk: files that were created in it or removed from it.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
