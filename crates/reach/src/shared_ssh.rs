//! An ssh that logs in once at each host, for all that run it while a connection there stands.
//!
//! The first to log in, which is libvirt, keeps the connection; a probe goes over it. So a host costs one process here, where a
//! [`super::Login`] costs two.

use std::path::{Path, PathBuf};

use super::{SshTarget, socket_folder::SocketFolder};

/// A program in place of ssh, as long as this lives.
#[derive(Debug)]
pub struct SharedSsh {
    program: PathBuf,
    /// Holds the program and the sockets.
    _folder: SocketFolder,
}

impl SharedSsh {
    /// Makes the program; none without a place for the sockets.
    pub fn make() -> Option<Self> {
        let folder = SocketFolder::make().ok()?;
        // ssh's digest of host, port and user, in 40 characters (ssh_config(5)).
        let socket = folder.socket("%C", 40)?;
        let program = folder.ssh_over(&socket, "-o ControlMaster=auto").ok()?;
        Some(Self { program, _folder: folder })
    }

    /// Path of the program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The same login by this program, unless the operator named another one than ssh.
    #[must_use]
    pub fn at(&self, target: SshTarget) -> SshTarget {
        if target.program == "ssh" {
            SshTarget { program: self.program.to_string_lossy().into_owned(), ..target }
        } else {
            target
        }
    }
}
