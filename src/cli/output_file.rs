//! Files that commands write: a regular or absent file is replaced in one step, everything else is written in place.
//!
//! Symbolic links are followed here, one after the other, and not by the kernel, so that the file behind them is replaced
//! and not the link, and nobody's link in a folder like /tmp is followed by somebody else, whatever the machine's
//! fs.protected_symlinks says.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self, File, Metadata, OpenOptions, Permissions},
    io::{self, Write},
    os::{
        fd::AsFd as _,
        unix::{
            fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
            net::UnixStream,
        },
    },
    path::{Component, Path, PathBuf},
};

use rustix::fs::OFlags;
use tempfile::NamedTempFile;
use thiserror::Error;

/// Most symbolic links on the way to a file, as in Linux.
const MOST_LINKS: usize = 40;
/// Permissions of a new file, before the umask.
const NEW_FILE: u32 = 0o666;

/// Reason that a path cannot be written.
#[derive(Debug, Error)]
pub(super) enum Unwritable {
    #[error("the path is a folder")]
    Folder,
    #[error("it is a block device, and vmgate does not overwrite disks")]
    Disk,
    #[error("more than {MOST_LINKS} symbolic links lead to it")]
    TooManyLinks,
    #[error(
        "{0} belongs to another user and is in a folder that every user can write to: it could lead to any file. Remove it, \
         or write to a folder of your own"
    )]
    Planted(PathBuf),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// File that is open for writing.
pub(super) enum OutputFile {
    /// Draft beside a regular or absent file, which it replaces at the end.
    Draft { target: PathBuf, draft: NamedTempFile },
    /// Device, pipe, socket, or a descriptor that this process was given.
    InPlace(Box<dyn Write>),
}

impl OutputFile {
    /// Opens a path. A pipe waits for its reader.
    pub(super) fn open(path: &Path) -> Result<Self, Unwritable> {
        let (target, found) = resolve(path)?;
        if let Some(number) = descriptor(&target) {
            return in_place_of(number, &target);
        }
        let Some(found) = found else { return Self::draft(target, None) };
        let kind = found.file_type();
        if kind.is_dir() {
            Err(Unwritable::Folder)
        } else if kind.is_block_device() {
            Err(Unwritable::Disk)
        } else if kind.is_socket() {
            Ok(Self::InPlace(Box::new(UnixStream::connect(&target)?)))
        } else if kind.is_file() {
            // Replacing needs only the folder's permission: a file that is protected against writing stays.
            open_found(&target, &found)?;
            Self::draft(target, Some(&found))
        } else {
            Ok(Self::InPlace(Box::new(open_found(&target, &found)?)))
        }
    }

    fn draft(target: PathBuf, replaced: Option<&Metadata>) -> Result<Self, Unwritable> {
        let folder = target.parent().unwrap_or(Path::new("/"));
        let mut builder = tempfile::Builder::new();
        let draft =
            builder.prefix(".vmgate-").permissions(Permissions::from_mode(NEW_FILE)).tempfile_in(folder)?;
        if let Some(replaced) = replaced {
            // Only root may give a file away. For others it becomes the writer's, and the permissions of the old group end.
            let same_owner = fchown(draft.as_file(), Some(replaced.uid()), Some(replaced.gid())).is_ok();
            let kept = if same_owner { 0o777 } else { 0o707 };
            draft.as_file().set_permissions(Permissions::from_mode(replaced.mode() & kept))?;
        }
        Ok(Self::Draft { target, draft })
    }

    /// Ends the writing: a draft takes its place. What a pipe's reader did not want is not an error.
    pub(super) fn finish(mut self) -> io::Result<()> {
        match pipe_may_close(self.flush()) {
            Err(error) => Err(error),
            Ok(()) => match self {
                Self::InPlace(_) => Ok(()),
                Self::Draft { target, draft } => {
                    draft.as_file().sync_all()?; // a full disk may be noticed only now
                    draft.persist(target).map_err(|error| error.error)?;
                    Ok(())
                }
            },
        }
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Draft { draft, .. } => draft.write(bytes),
            Self::InPlace(sink) => sink.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Draft { draft, .. } => draft.flush(),
            Self::InPlace(sink) => sink.flush(),
        }
    }
}

/// Opens what was found at a path; an error if something else has taken its place since.
fn open_found(path: &Path, found: &Metadata) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
    let now = file.metadata()?;
    if (now.dev(), now.ino()) == (found.dev(), found.ino()) {
        Ok(file)
    } else {
        Err(io::Error::other("another file has just taken its place"))
    }
}

/// A closed pipe is not an error: its reader has read enough.
pub(super) fn pipe_may_close(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// The path behind all symbolic links, and what is there now. Links of the kernel to open files are not followed.
fn resolve(path: &Path) -> Result<(PathBuf, Option<Metadata>), Unwritable> {
    let mut rest: VecDeque<OsString> = components(&std::path::absolute(path)?);
    let mut at = PathBuf::from("/");
    let mut links = 0;
    let mut found = Some(fs::symlink_metadata(&at)?);
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            at.pop();
            found = Some(fs::symlink_metadata(&at)?);
            continue;
        }
        let folder = fs::symlink_metadata(&at)?;
        let next = at.join(&name);
        found = match fs::symlink_metadata(&next) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound && rest.is_empty() => None,
            Err(error) => return Err(error.into()),
        };
        let entry = found.as_ref().filter(|_| descriptor(&next).is_none());
        if let Some(entry) = entry.filter(|entry| rest.is_empty() || entry.is_symlink())
            && is_planted(entry, &folder)
        {
            return Err(Unwritable::Planted(next));
        }
        if entry.is_some_and(Metadata::is_symlink) {
            links += 1;
            if links > MOST_LINKS {
                return Err(Unwritable::TooManyLinks);
            }
            let target = fs::read_link(&next)?;
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            for name in components(&target).into_iter().rev() {
                rest.push_front(name);
            }
        } else {
            at = next;
        }
    }
    Ok((at, found))
}

/// Names in a path, with `..` and without `.`.
fn components(path: &Path) -> VecDeque<OsString> {
    let name = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(name).collect()
}

/// True if somebody else put this into a folder where everybody may: what fs.protected_symlinks, protected_regular and
/// protected_fifos of Linux refuse. The folder's owner is trusted, as there.
fn is_planted(entry: &Metadata, folder: &Metadata) -> bool {
    const STICKY_AND_OPEN: u32 = 0o1002;
    let open_to_all = folder.mode() & STICKY_AND_OPEN == STICKY_AND_OPEN;
    let own = rustix::process::geteuid().as_raw();
    open_to_all && entry.uid() != own && entry.uid() != folder.uid()
}

/// Number of the open file that a path in /proc stands for, such as /proc/self/fd/3, which /dev/fd/3 leads to.
fn descriptor(path: &Path) -> Option<u32> {
    let names: Vec<_> = path.iter().filter_map(|name| name.to_str()).collect();
    match names.as_slice() {
        ["/", "proc", _, "fd", number] | ["/", "proc", _, "task", _, "fd", number] => number.parse().ok(),
        _ => None,
    }
}

/// The open file behind a path in /proc. Descriptors of this process are shared, so that what others write to them and
/// the report stay in order; a file is written at its end.
fn in_place_of(number: u32, path: &Path) -> Result<OutputFile, Unwritable> {
    let own = path.starts_with(format!("/proc/{}", std::process::id()));
    let shared = match number {
        1 if own => Some(io::stdout().as_fd().try_clone_to_owned()?),
        2 if own => Some(io::stderr().as_fd().try_clone_to_owned()?),
        _ => None,
    };
    let file = match shared {
        Some(shared) => File::from(shared),
        None => OpenOptions::new().append(true).open(path)?,
    };
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(Unwritable::Folder);
    }
    if kind.is_block_device() {
        return Err(Unwritable::Disk);
    }
    Ok(OutputFile::InPlace(Box::new(file)))
}
