//! Files and block devices of a host that the VM needs, and whether they are the same at both hosts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A path that the VM needs, as it is on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HostFile {
    /// The path, as the VM's configuration names it.
    #[schemars(example = &"/srv/images/web1.qcow2")]
    pub path: String,
    /// What is there.
    #[schemars(example = &"file")]
    pub kind: FileKind,
    /// Kind of its file system, as /proc/self/mountinfo names it; absent where nothing is there.
    #[schemars(example = &"nfs4")]
    pub filesystem: Option<String>,
    /// Whether libvirt takes that file system for one that several hosts share (virFileIsSharedFS).
    #[schemars(example = true)]
    pub shared_filesystem: bool,
    /// Whether the file system, or the block device, can only be read.
    #[schemars(example = false)]
    pub read_only: bool,
    /// Its size; absent where nothing is there.
    #[schemars(example = 21_474_836_480_u64)]
    pub size_bytes: Option<u64>,
    /// What tells it from every other file: the same text at two hosts is the same file or device. Absent where nothing
    /// tells.
    #[schemars(example = &"nfs4 /export/images 1234")]
    pub identity: Option<String>,
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A block device.
    Block,
    /// A folder.
    Folder,
    /// Something else, such as a socket.
    Other,
    /// Nothing.
    Missing,
}
