//! Trusted files: only root may be able to write the file or to replace it by another one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;
use thiserror::Error;

/// Mode bits that let users other than the owner write.
const OTHERS_WRITE: u32 = 0o022;
/// In a folder with this bit only its owner may replace a file.
const STICKY: u32 = 0o1000;

/// A file that is not trusted or cannot be read.
#[derive(Debug, Error)]
#[error("{}: {problem}", path.display())]
pub(super) struct UntrustedFile {
    path: PathBuf,
    problem: FileProblem,
}

#[derive(Debug, Error)]
enum FileProblem {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the owner is user {0}, not root; use chown root")]
    Owner(u32),
    #[error("other users can write it (mode {0:o}); use chmod go-w")]
    Writable(u32),
    #[error("not a regular file")]
    NotAFile,
    #[error("more than {0} bytes")]
    TooLarge(u64),
}

impl UntrustedFile {
    fn of(path: &Path, problem: impl Into<FileProblem>) -> Self {
        Self { path: path.to_owned(), problem: problem.into() }
    }

    /// True if the file does not exist.
    pub(super) fn is_missing(&self) -> bool {
        matches!(&self.problem, FileProblem::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// The content of a file of at most `most` bytes that only root could have written. A link is not followed, and a
/// pipe does not make it wait.
pub(super) fn read(path: &Path, most: u64) -> Result<Vec<u8>, UntrustedFile> {
    let of = |problem: io::Error| UntrustedFile::of(path, problem);
    folders_above(path)?;
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path).map_err(of)?;
    let metadata = file.metadata().map_err(of)?;
    if !metadata.is_file() {
        return Err(UntrustedFile::of(path, FileProblem::NotAFile));
    }
    owned(path, &metadata)?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(of)?;
    if bytes.len() as u64 > most {
        return Err(UntrustedFile::of(path, FileProblem::TooLarge(most)));
    }
    Ok(bytes)
}

/// The files of a folder that only root can change, by name. Folders in it are left out.
pub(super) fn list(folder: &Path) -> Result<Vec<PathBuf>, UntrustedFile> {
    let of = |problem: io::Error| UntrustedFile::of(folder, problem);
    folders_above(&folder.join("any"))?;
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(of)? {
        let entry = entry.map_err(of)?;
        if !entry.file_type().map_err(of)?.is_dir() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// True if a program is executable. An error means that others than root could have written or replaced it.
pub(super) fn executable(path: &Path) -> Result<bool, UntrustedFile> {
    folders_above(path)?;
    let metadata = fs::metadata(path).map_err(|problem| UntrustedFile::of(path, problem))?;
    owned(path, &metadata)?;
    Ok(metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Writes a file whole or not at all, on disk before this returns, with these permissions.
pub(super) fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut draft = NamedTempFile::with_prefix_in(".vmgate-", folder)?;
    draft.write_all(content)?;
    draft.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    draft.as_file().sync_all()?;
    draft.persist(path).map_err(|error| error.error)?;
    sync_folder(folder)
}

/// Creates a folder and its parents, with these permissions if it is new.
pub(super) fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Syncs a folder to disk: files that were created in it or removed from it.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Checks the folders above a path: each belongs to root, and no other user can replace a file in it.
fn folders_above(path: &Path) -> Result<(), UntrustedFile> {
    for folder in path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()) {
        let metadata = fs::metadata(folder).map_err(|problem| UntrustedFile::of(folder, problem))?;
        if metadata.mode() & STICKY == 0 {
            owned(folder, &metadata)?;
        }
    }
    Ok(())
}

fn owned(path: &Path, metadata: &fs::Metadata) -> Result<(), UntrustedFile> {
    // The owner of this process's folder in /proc is the user that it runs as.
    let me = fs::metadata("/proc/self").map_or(0, |own| own.uid());
    if metadata.uid() != 0 && metadata.uid() != me {
        return Err(UntrustedFile::of(path, FileProblem::Owner(metadata.uid())));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & OTHERS_WRITE != 0 {
        return Err(UntrustedFile::of(path, FileProblem::Writable(mode)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_file_that_others_could_have_written_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key.pem");
        write(&file, b"key", 0o644).unwrap();
        assert_eq!(read(&file, 10).unwrap(), b"key");
        assert!(read(&file, 2).unwrap_err().to_string().contains("more than 2 bytes"));
        for mode in [0o664, 0o646, 0o666] {
            set(&file, mode);
            assert!(read(&file, 10).unwrap_err().to_string().contains("chmod go-w"), "{mode:o}");
        }
        set(&file, 0o600);
        set(folder.path(), 0o777);
        assert!(read(&file, 10).unwrap_err().to_string().contains("other users can write it (mode 777)"));
        assert!(list(folder.path()).is_err());
        set(folder.path(), 0o755);
        assert_eq!(list(folder.path()).unwrap(), std::slice::from_ref(&file));
    }

    #[test]
    fn a_link_or_a_pipe_is_not_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        write(&real, b"x", 0o600).unwrap();
        symlink(&real, &link).unwrap();
        assert!(read(&link, 10).is_err());
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg("-m").arg("600").arg(&pipe).status().unwrap();
        assert!(made.success());
        assert!(read(&pipe, 10).unwrap_err().to_string().contains("not a regular file"));
        assert!(read(&folder.path().join("none"), 10).unwrap_err().is_missing());
    }
}
