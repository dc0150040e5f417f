//! Result that libvirt will have when it makes QEMU's user the owner of a file (dynamic_ownership), foretold without trying.
//!
//! libvirt ignores a refusal with EPERM, EINVAL, EROFS or EOPNOTSUPP, and starts QEMU with the file as it is
//! (virSecurityDACSetOwnershipInternal, libvirt 11.3).

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use rustix::{
    fs::{Access, AtFlags, CWD},
    process::geteuid,
};
use vmgate_facts::{FileKind, HostFile};

use super::opening::is_frozen;

/// File systems whose files have owners that root may change.
const KEEP_OWNERS: [&str; 22] = [
    "ext2",
    "ext3",
    "ext4",
    "xfs",
    "btrfs",
    "zfs",
    "f2fs",
    "jfs",
    "reiserfs",
    "bcachefs",
    "tmpfs",
    "ramfs",
    "devtmpfs",
    "overlay",
    "hugetlbfs",
    "gfs2",
    "ocfs2",
    "gpfs",
    "ceph",
    "lustre",
    "fuse.glusterfs",
    "fuse.ceph",
];

/// File systems whose server decides what root may do.
const SERVER_DECIDES: [&str; 2] = ["nfs", "nfs4"];

/// File systems that have no owners, or that cannot be written.
const NO_OWNERS: [&str; 12] = [
    "vfat", "msdos", "exfat", "ntfs", "ntfs3", "cifs", "smb3", "smbfs", "iso9660", "udf", "squashfs", "erofs",
];

/// User that servers usually put in root's place.
const NOBODY: u32 = 65_534;

/// Result of libvirt's change of a file's owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// The owner will be QEMU's user.
    Made,
    /// The owner stays, and libvirt goes on.
    Ignored(String),
    /// It cannot be told.
    Unsure(String),
}

pub(super) fn owner_change(file: &HostFile, about: &fs::Metadata, path: &Path) -> Change {
    // The node of a block device is in the host's own /dev.
    if file.kind == FileKind::Block {
        return Change::Made;
    }
    let name = file.filesystem.as_deref().unwrap_or("an unknown file system");
    if file.read_only {
        return Change::Ignored("the file system is read-only".to_owned());
    }
    if is_frozen(path) {
        return Change::Ignored("the file is immutable or append-only (lsattr)".to_owned());
    }
    match name {
        _ if KEEP_OWNERS.contains(&name) => Change::Made,
        _ if NO_OWNERS.contains(&name) => Change::Ignored(format!("{name} has no owners")),
        _ if SERVER_DECIDES.contains(&name) => at_server(name, about, path),
        _ => Change::Unsure(format!("vmgate does not know if {name} lets root change a file's owner")),
    }
}

/// The answer of a server, seen by what it lets root do: a server that takes root's rights away (`root_squash`, the default of
/// NFS) does not let it change owners either.
fn at_server(name: &str, about: &fs::Metadata, path: &Path) -> Change {
    let unsure =
        || Change::Unsure(format!("it cannot be told if the {name} server lets root change a file's owner"));
    if !geteuid().is_root() {
        return unsure();
    }
    let may = |access| rustix::fs::accessat(CWD, path, access, AtFlags::empty()).is_ok();
    let squashed = || Change::Ignored(format!("the {name} server takes root's rights away (root_squash)"));
    // Bits that everybody has prove nothing about root.
    let asks = [(0o2, Access::WRITE_OK), (0o4, Access::READ_OK)];
    match asks.into_iter().find(|(bit, _)| about.mode() & bit == 0) {
        Some((_, access)) if !may(access) => squashed(),
        // The rights of nobody would be those of a root that was changed into nobody.
        Some(_) if about.uid() != NOBODY && about.gid() != NOBODY => Change::Made,
        _ => unsure(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_differ_in_what_they_do_with_owners() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        fs::write(&path, "x").unwrap();
        let about = fs::metadata(&path).unwrap();
        let change = |filesystem: &str, read_only| {
            let file = HostFile {
                path: path.display().to_string(),
                kind: FileKind::File,
                filesystem: Some(filesystem.to_owned()),
                shared_filesystem: false,
                declared_shared: false,
                read_only,
                size_bytes: None,
                identity: None,
                opening: vmgate_facts::Fact::default(),
            };
            owner_change(&file, &about, &path)
        };
        assert_eq!(change("ext4", false), Change::Made);
        assert!(matches!(change("ext4", true), Change::Ignored(_)));
        assert!(matches!(change("cifs", false), Change::Ignored(_)));
        assert!(matches!(change("fuse.sshfs", false), Change::Unsure(why) if why.contains("fuse.sshfs")));
    }
}
