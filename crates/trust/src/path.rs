//! The way to a file: every folder and every link on it, each checked before the next is looked at.
//!
//! No part of a checked way can be replaced by another user, so that what is opened by it is what was checked.

use std::{
    ffi::OsString,
    fs::{self, Metadata},
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};

use crate::{
    VARIABLE,
    error::{FileProblem, UntrustedFile},
    private_group,
};

/// Mode bits that let users other than the owner write.
const OTHERS_WRITE: u32 = 0o022;
/// In a folder with this bit only the owner of a file may replace it.
const STICKY: u32 = 0o1000;
/// Limit on the links of one way, as the kernel has one.
const MOST_LINKS: usize = 40;

/// Users and folders that are believed.
pub(crate) struct Believer {
    me: u32,
    vouched: Vec<PathBuf>,
}

/// A checked way.
pub(crate) struct Way {
    /// Path without links.
    pub(crate) real: PathBuf,
    /// True if the operator vouches for the folder, so that nothing was checked.
    pub(crate) vouched_for: bool,
}

impl Believer {
    /// Root, the user of this process, and the folders that its operator vouches for.
    pub(crate) fn of_this_process() -> Self {
        let named = std::env::var_os(VARIABLE).unwrap_or_default();
        let folders = std::env::split_paths(&named).filter(|folder| folder.is_absolute());
        Self {
            me: rustix::process::geteuid().as_raw(),
            vouched: folders.filter_map(|folder| fs::canonicalize(folder).ok()).collect(),
        }
    }

    #[cfg(test)]
    pub(crate) fn of(me: u32, vouched: Vec<PathBuf>) -> Self {
        Self { me, vouched }
    }

    /// Checks every folder and link on the way to a file, but not the file.
    pub(crate) fn way_to(&self, path: &Path) -> Result<Way, UntrustedFile> {
        if let Some(real) = self.vouched_for(path) {
            return Ok(Way { real, vouched_for: true });
        }
        let start = std::path::absolute(path).map_err(|problem| UntrustedFile::of(path, problem))?;
        let (mut real, mut rest, mut links) = (PathBuf::from("/"), Vec::new(), 0);
        push(&mut rest, &start);
        while let Some(step) = rest.pop() {
            match Path::new(&step).components().next() {
                Some(Component::RootDir) => real = PathBuf::from("/"),
                Some(Component::ParentDir) => {
                    real.pop();
                }
                Some(Component::Normal(name)) => {
                    let shared = self.folder(&real)?;
                    let entry = real.join(name);
                    let metadata =
                        fs::symlink_metadata(&entry).map_err(|problem| UntrustedFile::of(&entry, problem))?;
                    if shared {
                        self.belongs(&entry, &metadata)?;
                    }
                    if metadata.is_symlink() {
                        links += 1;
                        if links > MOST_LINKS {
                            return Err(UntrustedFile::of(path, FileProblem::Links));
                        }
                        let target =
                            fs::read_link(&entry).map_err(|problem| UntrustedFile::of(&entry, problem))?;
                        push(&mut rest, &target);
                    } else if rest.is_empty() && !metadata.is_file() && !metadata.is_dir() {
                        // Not opened: with a device that alone may do something.
                        return Err(UntrustedFile::of(path, FileProblem::NotAFile));
                    } else {
                        real = entry;
                    }
                }
                Some(Component::CurDir | Component::Prefix(_)) | None => {}
            }
        }
        Ok(Way { real, vouched_for: false })
    }

    /// Checks a folder whose list of files is to be believed: nobody else can add one either.
    pub(crate) fn folder_of_files(&self, folder: &Path) -> Result<(), UntrustedFile> {
        let way = self.way_to(folder)?;
        if way.vouched_for || !self.folder(&way.real)? {
            return Ok(());
        }
        let mode = fs::metadata(&way.real).map_or(0, |metadata| metadata.mode() & 0o7777);
        Err(UntrustedFile::of(&way.real, FileProblem::Shared(mode)))
    }

    /// Checks owner and mode of a file or folder.
    pub(crate) fn owned(&self, path: &Path, metadata: &Metadata) -> Result<(), UntrustedFile> {
        self.belongs(path, metadata)?;
        let mode = metadata.mode() & 0o7777;
        let by_owner = match mode & OTHERS_WRITE {
            0 => true,
            0o020 => private_group::only_for_owner(path, metadata),
            _ => false,
        };
        if by_owner { Ok(()) } else { Err(UntrustedFile::of(path, FileProblem::Writable(mode))) }
    }

    /// Checks a folder. True if others may add files to it, but not replace those of others.
    fn folder(&self, path: &Path) -> Result<bool, UntrustedFile> {
        let metadata = fs::symlink_metadata(path).map_err(|problem| UntrustedFile::of(path, problem))?;
        if !self.believes(metadata.uid()) {
            let problem = FileProblem::FolderOwner { owner: metadata.uid(), me: self.me };
            return Err(UntrustedFile::of(path, problem));
        }
        if metadata.mode() & STICKY != 0 && metadata.mode() & OTHERS_WRITE != 0 {
            return Ok(true);
        }
        self.owned(path, &metadata).map(|()| false)
    }

    fn belongs(&self, path: &Path, metadata: &Metadata) -> Result<(), UntrustedFile> {
        let owner = metadata.uid();
        if self.believes(owner) {
            return Ok(());
        }
        Err(UntrustedFile::of(path, FileProblem::Owner { owner, me: self.me }))
    }

    fn believes(&self, user: u32) -> bool {
        user == 0 || user == self.me
    }

    fn vouched_for(&self, path: &Path) -> Option<PathBuf> {
        if self.vouched.is_empty() {
            return None;
        }
        let real = fs::canonicalize(path).ok()?;
        self.vouched.iter().any(|folder| real.starts_with(folder)).then_some(real)
    }
}

/// Puts the steps of a path on top of those that are left.
fn push(rest: &mut Vec<OsString>, path: &Path) {
    rest.extend(path.components().rev().map(|step| step.as_os_str().to_owned()));
}
