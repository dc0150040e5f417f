//! Trusted files: what decides what vmgate runs, demands or signs with is believed only from files that nobody else can
//! write or replace, as sudo, git and ssh do it.
//!
//! A file is believed if root or the user of this process owns it and no other user can write it, and if the same holds for
//! every folder on the way to it, and for every folder on the way of every link. The owner's private group may write (the
//! default on many systems, umask 002). In a sticky folder such as /tmp others can add files, but not replace the owner's.
//! The user behind `sudo` (`SUDO_UID`) is not believed: a line of sudoers may permit one command of vmgate only, and a
//! vmgate.yaml in that user's folder would make every command of it. [`VARIABLE`] is the way out.
//!
//! Documents that are only looked at (change files, facts, verdicts, reports) are data and need no such check.
#![forbid(unsafe_code)]

mod error;
mod path;
mod private_group;
mod write;

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::Read,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use error::FileProblem;
pub use error::UntrustedFile;
use path::Believer;
pub use write::{make_folder, sync_folder, write};

/// Environment variable with folders, separated by `:`, whose files are believed whoever owns and can write them.
pub const VARIABLE: &str = "VMGATE_TRUST";

/// Permission bits of group and others.
const OTHERS: u32 = 0o077;

/// The content of a file of at most `most` bytes that nobody else could have written.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>, UntrustedFile> {
    let (file, _) = open(path, &Believer::of_this_process(), Readers::Anybody)?;
    content(file, path, most)
}

/// As [`read`], for a private key, a token or a password: nobody else can read the file either.
pub fn read_secret(path: &Path, most: u64) -> Result<Vec<u8>, UntrustedFile> {
    let (file, _) = open(path, &Believer::of_this_process(), Readers::Owner)?;
    content(file, path, most)
}

/// The files of a folder in which nobody else can add, replace or remove one, by name. Folders in it are left out.
pub fn list(folder: &Path) -> Result<Vec<PathBuf>, UntrustedFile> {
    check_folder(folder)?;
    let of = |problem: std::io::Error| UntrustedFile::of(folder, problem);
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

/// Checks that nobody else can add, replace or remove a file in a folder.
pub fn check_folder(folder: &Path) -> Result<(), UntrustedFile> {
    Believer::of_this_process().folder_of_files(folder)
}

/// True if a program is executable. An error means that others could have written or replaced it.
pub fn executable(path: &Path) -> Result<bool, UntrustedFile> {
    let (_, metadata) = open(path, &Believer::of_this_process(), Readers::Anybody)?;
    Ok(metadata.mode() & 0o111 != 0)
}

/// Users who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readers {
    Anybody,
    Owner,
}

/// A regular file, opened, and the metadata of that same open file. A pipe does not make this wait.
fn open(path: &Path, believer: &Believer, readers: Readers) -> Result<(File, Metadata), UntrustedFile> {
    let of = |problem: std::io::Error| UntrustedFile::of(path, problem);
    let way = believer.way_to(path)?;
    let not_followed = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(not_followed).open(&way.real).map_err(of)?;
    let metadata = file.metadata().map_err(of)?;
    if !metadata.is_file() {
        return Err(UntrustedFile::of(path, FileProblem::NotAFile));
    }
    let mode = metadata.mode() & 0o7777;
    if readers == Readers::Owner && mode & OTHERS != 0 {
        return Err(UntrustedFile::of(path, FileProblem::NotSecret(mode)));
    }
    if !way.vouched_for {
        believer.owned(&way.real, &metadata)?;
    }
    Ok((file, metadata))
}

fn content(file: File, path: &Path, most: u64) -> Result<Vec<u8>, UntrustedFile> {
    let mut bytes = Vec::new();
    let read = file.take(most.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|problem| UntrustedFile::of(path, problem))?;
    if bytes.len() as u64 > most {
        return Err(UntrustedFile::of(path, FileProblem::TooLarge(most)));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
