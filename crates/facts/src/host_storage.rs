//! Files and block devices of a host that the VM needs, with an identity to compare them between the hosts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Fact, FileOpening};

/// File or block device that the VM needs, as found on one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HostFile {
    /// Path, as the VM's configuration names it.
    #[schemars(example = &"/srv/images/web1.qcow2")]
    pub path: String,
    /// Kind of the file.
    #[schemars(example = &"file")]
    pub kind: FileKind,
    /// Type of its file system, as /proc/self/mountinfo names it; absent where the file is missing.
    #[schemars(example = &"nfs4")]
    pub filesystem: Option<String>,
    /// True if libvirt treats the file system as shared between hosts (virFileIsSharedFS).
    #[schemars(example = true)]
    pub shared_filesystem: bool,
    /// True if qemu.conf declares the folder as shared between hosts (shared_filesystems), which libvirt knows from 10.8 on.
    #[serde(default)]
    #[schemars(example = false)]
    pub declared_shared: bool,
    /// True if the file system or the block device is read-only.
    #[schemars(example = false)]
    pub read_only: bool,
    /// Size; absent where the file is missing.
    #[schemars(example = 21_474_836_480_u64)]
    pub size_bytes: Option<u64>,
    /// Identity of the file or device: the same text on two hosts means the same file or device. Absent where no
    /// identity can be determined.
    #[schemars(example = &"nfs4 /export/images 1234")]
    pub identity: Option<String>,
    /// Permission of QEMU's user; only asked of the destination, for files that QEMU opens as its own user.
    #[serde(default)]
    pub opening: Fact<FileOpening>,
}

/// Kind of file at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A block device.
    Block,
    /// A folder.
    Folder,
    /// Another kind, such as a socket.
    Other,
    /// Nothing at this path.
    Missing,
}
