//! Reasons why a file is not believed, each with the command that mends it.

use std::{
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;
use vmgate_facts::text::shell_word;

/// A file that is not believed or cannot be read; the path is that of the file or folder at fault.
#[derive(Debug, Error)]
#[error("{}: {problem}{}", path.display(), self.way_out().map_or(String::new(), |way| format!(": {way}")))]
pub struct UntrustedFile {
    path: PathBuf,
    problem: FileProblem,
}

#[derive(Debug, Error)]
pub(crate) enum FileProblem {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("the owner is user {owner}, not root{}", if *me == 0 { String::new() } else { format!(" and not you (user {me})") })]
    Owner { owner: u32, me: u32 },
    #[error("the folder's owner is user {owner}, not root{}", if *me == 0 { String::new() } else { format!(" and not you (user {me})") })]
    FolderOwner { owner: u32, me: u32 },
    #[error("other users can write it (mode {0:o})")]
    Writable(u32),
    #[error("other users can add and remove files in it (mode {0:o})")]
    Shared(u32),
    #[error("other users can read this secret (mode {0:o})")]
    NotSecret(u32),
    #[error("not a regular file")]
    NotAFile,
    #[error("is too large: more than {0} bytes")]
    TooLarge(u64),
    #[error("too many links")]
    Links,
}

impl UntrustedFile {
    /// A file whose content cannot be used.
    pub fn unreadable(path: &Path, why: io::Error) -> Self {
        Self::of(path, why)
    }

    pub(crate) fn of(path: &Path, problem: impl Into<FileProblem>) -> Self {
        Self { path: path.to_owned(), problem: problem.into() }
    }

    /// True if the file does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(&self.problem, FileProblem::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }

    /// The file or folder at fault.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The problem, without the path and the way out.
    pub fn problem(&self) -> String {
        self.problem.to_string()
    }

    /// The command that mends it; none where no command does.
    pub fn way_out(&self) -> Option<String> {
        let path = shell_word(&self.path.to_string_lossy());
        match &self.problem {
            FileProblem::Owner { me: 0, .. } => Some(format!("use chown root {path}")),
            FileProblem::Owner { me, .. } => Some(format!("use chown {me} {path}, or a copy of your own")),
            // The folder may be somebody's home.
            FileProblem::FolderOwner { me, .. } => {
                let me = if *me == 0 { "root".to_owned() } else { me.to_string() };
                Some(format!("move the file into a folder of your own, or use chown {me} {path}"))
            }
            FileProblem::Writable(_) | FileProblem::Shared(_) => Some(format!("use chmod go-w {path}")),
            FileProblem::NotSecret(_) => Some(format!("use chmod 600 {path}")),
            FileProblem::Io(_) | FileProblem::NotAFile | FileProblem::TooLarge(_) | FileProblem::Links => {
                None
            }
        }
    }
}
