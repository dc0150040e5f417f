//! Where the hook's files are on a host. Nothing else names a path.

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
    /// The same files below another root.
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

    /// The one hook of libvirt before 6.5, and the first one of later ones.
    pub fn main_hook(&self) -> PathBuf {
        self.at("/etc/libvirt/hooks/qemu")
    }

    /// Where somebody else's hook waits while vmgate's stands in its place (libvirt before 6.5 runs only one).
    pub fn displaced_hook(&self) -> PathBuf {
        self.at("/etc/libvirt/hooks/qemu.before-vmgate")
    }

    /// Hooks that libvirt from 6.5 on runs after the main one, by name.
    pub fn hook_folder(&self) -> PathBuf {
        self.at("/etc/libvirt/hooks/qemu.d")
    }

    /// vmgate's hook in that folder. Late, so that it sees the definition as other hooks leave it.
    pub fn folder_hook(&self) -> PathBuf {
        self.hook_folder().join("90-vmgate")
    }

    /// What the site sets: `vmgate/hook/v1`.
    pub fn config(&self) -> PathBuf {
        self.at("/etc/vmgate/hook.yaml")
    }

    /// Public keys whose signatures are trusted, one a file.
    pub fn keys(&self) -> PathBuf {
        self.at("/etc/vmgate/keys.d")
    }

    /// What vmgate keeps about the hook.
    pub fn state(&self) -> PathBuf {
        self.at("/var/lib/vmgate")
    }

    /// What was installed, and for which host.
    pub fn record(&self) -> PathBuf {
        self.at("/var/lib/vmgate/hook.json")
    }

    /// The emergency override, while there is one.
    pub fn override_file(&self) -> PathBuf {
        self.at("/var/lib/vmgate/hook-override.json")
    }

    /// Held while a verdict is served or a line is logged.
    pub fn lock(&self) -> PathBuf {
        self.at("/var/lib/vmgate/hook.lock")
    }

    /// Signed verdicts that have not served.
    pub fn verdicts(&self) -> PathBuf {
        self.at("/var/lib/vmgate/verdicts")
    }

    /// Signed verdicts that have served, by the digest of what was signed.
    pub fn spent(&self) -> PathBuf {
        self.at("/var/lib/vmgate/verdicts/spent")
    }

    /// Every decision, one line of JSON each.
    pub fn journal(&self) -> PathBuf {
        self.at("/var/log/vmgate/hook.jsonl")
    }

    /// Where libvirt's daemons leave their pid.
    pub(super) fn pid_files(&self) -> [PathBuf; 2] {
        [self.at("/run/virtqemud.pid"), self.at("/run/libvirtd.pid")]
    }
}
