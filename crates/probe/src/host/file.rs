//! Files and block devices that a VM needs: presence on this host, and an identity to compare between hosts.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use procfs::process::{MountInfo, Process};
use vmgate_facts::{Cause, Fact, FileKind, HostFile, Unknown, text::plain};

use crate::host::{HostQuestions, opening, procfs_error, qemu_conf::QemuConf};

/// Longest wait: a network file system whose server is gone never answers.
const LIMIT: Duration = Duration::from_secs(5);

/// Bytes of a sector, the unit of a device's size in /sys.
const SECTOR: u64 = 512;

/// File systems that libvirt considers shared between hosts (virFileIsSharedFS).
const SHARED: [&str; 15] = [
    "nfs",
    "nfs4",
    "gfs2",
    "ocfs2",
    "afs",
    "smb3",
    "smbfs",
    "cifs",
    "ceph",
    "gpfs",
    "acfs",
    "beegfs",
    "fuse.glusterfs",
    "fuse.quobyte",
    "fuse.ceph",
];

/// Describes every path, on a thread of its own, so that a file system that hangs does not block the probe.
pub(super) fn look(questions: &HostQuestions) -> Result<Vec<HostFile>, Unknown> {
    let (sender, receiver) = mpsc::channel();
    let (paths, opened, user) =
        (questions.files.clone(), questions.opened.clone(), questions.qemu_user.clone());
    thread::spawn(move || {
        let _ = sender.send(describe_all(&paths).map(|mut files| {
            opening::add(&mut files, &opened, &user);
            files
        }));
    });
    receiver.recv_timeout(LIMIT).unwrap_or_else(|_| {
        let why = format!("the host's file systems did not answer within {} s", LIMIT.as_secs());
        Err(Unknown::new(Cause::TimedOut, why))
    })
}

fn describe_all(paths: &[String]) -> Result<Vec<HostFile>, Unknown> {
    let mounts = Process::myself().and_then(|this| this.mountinfo()).map_err(|error| procfs_error(&error))?.0;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    let boot = boot.as_deref().map(str::trim);
    // Without the permission to read qemu.conf nothing is known to be declared.
    let declared = QemuConf::read().map(|conf| conf.list("shared_filesystems")).unwrap_or_default();
    let declared: Vec<PathBuf> = declared.iter().filter_map(|folder| fs::canonicalize(folder).ok()).collect();
    let is_declared = |path: &str| {
        fs::canonicalize(path).is_ok_and(|real| declared.iter().any(|folder| real.starts_with(folder)))
    };
    let described =
        |path: &String| HostFile { declared_shared: is_declared(path), ..describe(path, &mounts, boot) };
    Ok(paths.iter().map(described).collect())
}

fn describe(path: &str, mounts: &[MountInfo], boot: Option<&str>) -> HostFile {
    let nothing = HostFile {
        path: path.to_owned(),
        kind: FileKind::Missing,
        filesystem: None,
        shared_filesystem: false,
        declared_shared: false,
        read_only: false,
        size_bytes: None,
        identity: None,
        opening: Fact::Unknown(Unknown::new(Cause::NotCollected, "QEMU's user was not tried")),
    };
    let real = match fs::canonicalize(path) {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return nothing,
        // The path exists, but this user has no permission to read it.
        Err(_) => return HostFile { kind: FileKind::Other, ..nothing },
    };
    let Ok(metadata) = fs::metadata(&real) else { return HostFile { kind: FileKind::Other, ..nothing } };
    let kind = metadata.file_type();
    if kind.is_block_device() {
        return block(nothing, metadata.rdev(), boot);
    }
    let mount = mounts.iter().rev().filter(|mount| real.starts_with(unescaped(&mount.mount_point)));
    let mount = mount.max_by_key(|mount| unescaped(&mount.mount_point).as_os_str().len());
    let filesystem = mount.map(|mount| plain(&mount.fs_type));
    let shared_filesystem = filesystem.as_deref().is_some_and(|name| SHARED.contains(&name));
    let kernel_identity = || boot.map(|boot| format!("boot {boot} {} {}", metadata.dev(), metadata.ino()));
    HostFile {
        kind: match () {
            () if kind.is_file() => FileKind::File,
            () if kind.is_dir() => FileKind::Folder,
            () => FileKind::Other,
        },
        identity: match (mount, shared_filesystem) {
            (Some(mount), true) => Some(export_identity(mount, metadata.ino())),
            _ => kernel_identity(),
        },
        read_only: mount.is_some_and(|mount| {
            mount.mount_options.contains_key("ro") || mount.super_options.contains_key("ro")
        }),
        size_bytes: Some(metadata.size()),
        filesystem,
        shared_filesystem,
        ..nothing
    }
}

/// Identity of a file on a shared file system: export path and inode, without the server's name, which hosts may
/// write differently.
fn export_identity(mount: &MountInfo, inode: u64) -> String {
    let family = if mount.fs_type.starts_with("nfs") { "nfs" } else { mount.fs_type.as_str() };
    let source = mount.mount_source.as_deref().unwrap_or_default();
    let export = source.rsplit_once(':').map_or(source, |(_, path)| path);
    plain(&format!("{family} {export} {inode}"))
}

/// Describes a block device; its identity is the name that its maker or the volume manager gave it.
fn block(nothing: HostFile, device: u64, boot: Option<&str>) -> HostFile {
    let (major, minor) = (libc::major(device), libc::minor(device));
    let folder = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    let read = |name: &str| {
        let text = fs::read_to_string(folder.join(name)).ok()?;
        Some(plain(&text)).filter(|text| !text.is_empty())
    };
    let name = ["dm/uuid", "wwid", "device/wwid"].into_iter().find_map(read);
    // A partition is identified by its disk's name and its own number.
    let partition = read("partition");
    let of_disk = || read("../wwid").or_else(|| read("../device/wwid"));
    let name = match partition {
        Some(number) => of_disk().map(|disk| format!("{disk} partition {number}")),
        None => name,
    };
    HostFile {
        kind: FileKind::Block,
        read_only: read("ro").as_deref() == Some("1"),
        size_bytes: read("size").and_then(|sectors| sectors.parse::<u64>().ok()?.checked_mul(SECTOR)),
        identity: name
            .map(|name| format!("device {name}"))
            .or_else(|| boot.map(|boot| format!("boot {boot} device {major}:{minor}"))),
        ..nothing
    }
}

/// Decodes a mount point: the kernel escapes white space as octal numbers (proc_pid_mountinfo(5)).
fn unescaped(path: &Path) -> PathBuf {
    let text = path.to_string_lossy();
    if !text.contains('\\') {
        return path.to_owned();
    }
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.into_owned(), |text, (escape, meant)| text.replace(escape, meant))
        .into()
}

#[cfg(test)]
mod tests {
    use crate::host::file::*;

    fn described(paths: &[String]) -> Vec<HostFile> {
        look(&HostQuestions { files: paths.to_vec(), ..HostQuestions::default() }).unwrap()
    }

    #[test]
    fn a_file_is_the_same_by_every_name_and_a_copy_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        fs::write(path("disk"), "abc").unwrap();
        fs::copy(path("disk"), path("copy")).unwrap();
        fs::hard_link(path("disk"), path("link")).unwrap();
        let names = ["disk", "copy", "link", "none", "."].map(path);
        let [disk, copy, link, none, dot] = described(&names).try_into().unwrap();
        assert_eq!((disk.kind, disk.size_bytes), (FileKind::File, Some(3)));
        assert!(disk.filesystem.is_some() && disk.identity.is_some());
        assert_eq!(disk.identity, link.identity);
        assert_ne!(disk.identity, copy.identity);
        assert_eq!((none.kind, none.identity), (FileKind::Missing, None));
        assert_eq!(dot.kind, FileKind::Folder);
    }

    #[test]
    fn proc_can_only_be_read_where_it_is_mounted_so() {
        let [null] = described(&["/dev/null".to_owned()]).try_into().unwrap();
        assert_eq!(null.kind, FileKind::Other, "a character device is no disk");
    }

    #[test]
    fn blanks_in_mount_points_are_read() {
        assert_eq!(unescaped(Path::new("/mnt/my\\040disk")), Path::new("/mnt/my disk"));
    }
}
