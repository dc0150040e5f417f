//! Files that QEMU opens as its own user, and what that user may do at a host.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// User and group as which libvirt starts QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct QemuUser {
    /// Number of the user.
    #[schemars(example = 64_055)]
    pub uid: u32,
    /// Number of the group.
    #[schemars(example = 64_055)]
    pub gid: u32,
}

/// File or device of the host that QEMU opens by its path, as its own user, when the VM starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct OpenedFile {
    /// Purpose of the file: a disk's name, the file below it, kernel, nvram, memory, serial …
    #[schemars(example = &"vda")]
    pub purpose: String,
    /// Path of the file.
    #[schemars(example = &"/srv/images/web1.qcow2")]
    pub path: String,
    /// True if QEMU writes to it.
    #[schemars(example = true)]
    pub writes: bool,
    /// True if libvirt makes QEMU's user its owner before, where qemu.conf has dynamic_ownership (the default).
    #[schemars(example = true)]
    pub given: bool,
}

/// Permission of QEMU's user to open a file for what the VM needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FileOpening {
    /// True if QEMU's user may open the file, once libvirt has made it the owner where libvirt does that.
    #[schemars(example = true)]
    pub allowed: bool,
    /// User that was tried, and the permission that decides.
    #[schemars(example = &"uid 64055 may read and write it")]
    pub detail: String,
}
