//! Private folder for the sockets of shared logins. It is removed however this process ends, by Ctrl-C or by SIGKILL too: a
//! shell waits for the end of a pipe that only this process holds, and removes it then.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;
use vmgate_facts::text::shell_word;

/// Script of the shell that waits: it is not ended by what ends the whole process group, such as Ctrl-C.
const WAIT_AND_REMOVE: &str = "trap '' INT HUP TERM; cat >/dev/null; rm -rf -- \"$1\"";

/// Longest name of a control socket: ssh adds 17 characters to it, and a socket's address holds 107 (unix(7)).
const SOCKET_NAME_LIMIT: usize = 90;

/// A private folder that lasts no longer than this process.
#[derive(Debug)]
pub(super) struct SocketFolder {
    folder: TempDir,
    waiting: Child,
}

impl SocketFolder {
    /// Makes the folder.
    pub(super) fn make() -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("vmgate-").tempdir()?;
        let waiting = Command::new("/bin/sh")
            .args(["-c", WAIT_AND_REMOVE, "sh"])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { folder, waiting })
    }

    #[cfg(test)]
    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Path of a socket of that name, which ssh may make so long. None where its address would be too long, or where ssh would
    /// read more out of it than a path.
    pub(super) fn socket(&self, name: &str, length: usize) -> Option<PathBuf> {
        let folder = self.folder.path().to_str()?;
        (folder.len() + 1 + length <= SOCKET_NAME_LIMIT && !folder.contains('%'))
            .then(|| self.folder.path().join(name))
    }

    /// Writes a program that others run in place of ssh: ssh with a socket and further options.
    pub(super) fn ssh_over(&self, socket: &Path, options: &str) -> io::Result<PathBuf> {
        let program = self.folder.path().join("ssh-shared");
        let socket = shell_word(&socket.to_string_lossy());
        fs::write(&program, format!("#!/bin/sh\nexec ssh {options} -S {socket} \"$@\"\n"))?;
        fs::set_permissions(&program, Permissions::from_mode(0o700))?;
        Ok(program)
    }
}

impl Drop for SocketFolder {
    fn drop(&mut self) {
        drop(self.waiting.stdin.take());
        // It ends by itself, within the time of an `rm`.
        let _ = self.waiting.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn the_folder_goes_with_its_owner() {
        let folder = SocketFolder::make().unwrap();
        let path = folder.path().to_owned();
        fs::write(path.join("ssh"), "").unwrap();
        drop(folder);
        assert!(!path.exists());
    }

    /// The owner is a shell here, which has no chance to clean up.
    #[test]
    fn the_folder_goes_even_if_its_owner_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a folder");
        fs::create_dir(&path).unwrap();
        let mut waiting = Command::new("/bin/sh")
            .args(["-c", WAIT_AND_REMOVE, "sh"])
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = interrupt(&waiting);
        assert!(path.exists(), "{pid} went on");
        drop(waiting.stdin.take());
        assert!(waiting.wait().unwrap().success());
        assert!(!path.exists());
    }

    /// Sends what Ctrl-C sends. The shell may not have set its trap yet: it is asked until it has.
    fn interrupt(waiting: &Child) -> u32 {
        let pid = waiting.id();
        let ignores = || {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let line = status.lines().find(|line| line.starts_with("SigIgn:")).unwrap();
            u64::from_str_radix(line.trim_start_matches("SigIgn:").trim(), 16).unwrap() & 2 != 0
        };
        while !ignores() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(
            Command::new("/bin/sh").args(["-c", &format!("kill -INT {pid}")]).status().unwrap().success()
        );
        pid
    }
}
