//! Paths of the hook's files on a host. All such paths are in this file.

use std::path::{Path, PathBuf};

/// The program that the hook runs.
pub const PROGRAM: &str = "/usr/lib/vmgate/vmgate-hook";

/// The hook's files below a root, which is `/` except in tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Default for Layout {
    fn default() -> Self {
        Self::under(Path::new("/"))
    }
}

impl Layout {
    /// The layout below another root.
    pub fn under(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The program that the hook runs: vmgate without libvirt, linked statically.
    pub fn program(&self) -> PathBuf {
        self.at(PROGRAM)
    }

    /// libvirt's main hook: the only one before version 6.5, the first one from 6.5 on.
    pub fn main_hook(&self) -> PathBuf {
        self.at("/etc/libvirt/hooks/qemu")
    }

    /// Another program's main hook while vmgate's hook is in its place (libvirt before 6.5 runs only one).
    pub fn displaced_hook(&self) -> PathBuf {
        self.at("/etc/libvirt/hooks/qemu.before-vmgate")
    }

    /// Folder of hooks that libvirt runs after the main one, in the order of their names (from 6.5 on).
    pub fn hook_folder(&self) -> PathBuf {
        self.at("/etc/libvirt/hooks/qemu.d")
    }

    /// vmgate's hook in that folder. Runs late, so that it sees the domain definition as other hooks leave it.
    pub fn folder_hook(&self) -> PathBuf {
        self.hook_folder().join("90-vmgate")
    }

    /// Settings of the hook: `vmgate/hook/v1`.
    pub fn config(&self) -> PathBuf {
        self.at("/etc/vmgate/hook.yaml")
    }

    /// Folder of trusted public keys, one per file.
    pub fn keys(&self) -> PathBuf {
        self.at("/etc/vmgate/keys.d")
    }

    /// State folder of the hook.
    pub fn state(&self) -> PathBuf {
        self.at("/var/lib/vmgate")
    }

    /// Record of the installation.
    pub fn record(&self) -> PathBuf {
        self.at("/var/lib/vmgate/hook.json")
    }

    /// File of the emergency override, if one is set.
    pub fn override_file(&self) -> PathBuf {
        self.at("/var/lib/vmgate/hook-override.json")
    }

    /// Lock file, held while verdicts, the override or the installation change. A decision takes no lock.
    pub fn lock(&self) -> PathBuf {
        self.at("/var/lib/vmgate/hook.lock")
    }

    /// Signed verdicts that were not used yet, in one folder for each VM.
    pub fn verdicts(&self) -> PathBuf {
        self.at("/var/lib/vmgate/verdicts")
    }

    /// Marks of signed verdicts that never serve again, by the digest of the signed statement.
    pub fn spent(&self) -> PathBuf {
        self.at("/var/lib/vmgate/verdicts/spent")
    }

    /// End of the verdicts whose marks were removed, in seconds since the epoch.
    pub(super) fn forgotten(&self) -> PathBuf {
        self.at("/var/lib/vmgate/forgotten-until")
    }

    /// Log of decisions, one line of JSON each.
    pub fn journal(&self) -> PathBuf {
        self.at("/var/log/vmgate/hook.jsonl")
    }

    /// Socket of the system log, for lines that the hook's own log has no room for.
    pub(super) fn system_log(&self) -> PathBuf {
        self.at("/dev/log")
    }

    /// PID files of libvirt's daemons.
    pub(super) fn pid_files(&self) -> [PathBuf; 2] {
        [self.at("/run/virtqemud.pid"), self.at("/run/libvirtd.pid")]
    }
}
