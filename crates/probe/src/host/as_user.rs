//! Work with the rights of another user, on a thread of its own: Linux keeps user, groups and capabilities for each thread.
//! The thread ends with the work, so nothing of it stays with the process.

use std::{io, process::Command, thread, time::Duration};

use rustix::{
    fs::{Gid, Uid},
    io::Errno,
    process::{geteuid, getuid},
    thread::{
        CapabilitySet, CapabilitySets, set_capabilities, set_thread_groups, set_thread_res_gid,
        set_thread_res_uid,
    },
};
use vmgate_facts::{Cause, QemuUser, Unknown};
use vmgate_process::{ChildFailure, run};

/// Longest wait for the host's name service, and most bytes of its answer.
const GROUPS_LIMIT: Duration = Duration::from_secs(5);
const GROUPS_ANSWER: usize = 64 << 10;

/// A user with all groups that libvirt would give a process of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UserWithGroups {
    pub(super) user: QemuUser,
    pub(super) groups: Vec<u32>,
}

/// Finds the groups of a user, as virGetGroupList does: those of the name service, and the user's group in libvirt. By
/// id(1), for the probe is a static program without a name service.
pub(super) fn with_groups(user: QemuUser) -> Result<UserWithGroups, Unknown> {
    let mut command = Command::new("id");
    command.args(["-G", &user.uid.to_string()]);
    let mut groups: Vec<u32> = match run(command, io::empty(), GROUPS_LIMIT, GROUPS_ANSWER) {
        Ok(output) => String::from_utf8_lossy(&output.stdout)
            .split_whitespace()
            .filter_map(|group| group.parse().ok())
            .collect(),
        // A user that the host does not know has no other groups.
        Err(ChildFailure::Failed { code: 1, .. }) => Vec::new(),
        Err(failure) => {
            return Err(Unknown::new(
                Cause::NotCollected,
                format!("id(1) on the host did not tell the groups of uid {}: {failure}", user.uid),
            ));
        }
    };
    if !groups.contains(&user.gid) {
        groups.push(user.gid);
    }
    Ok(UserWithGroups { user, groups })
}

/// True if this process may work as that user.
pub(super) fn is_possible(user: QemuUser) -> bool {
    geteuid().is_root() || getuid().as_raw() == user.uid
}

/// Does some work with the rights of that user and no others, also without the capabilities of root.
pub(super) fn work_as<T: Send>(user: &UserWithGroups, work: impl FnOnce() -> T + Send) -> Result<T, Unknown> {
    let refused = |error: Errno| {
        Unknown::new(
            Cause::PermissionDenied,
            format!("the probe on the host may not take the rights of uid {}: {error}", user.user.uid),
        )
    };
    let done = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            take_rights(user).map_err(refused)?;
            Ok(work())
        });
        thread.join()
    });
    done.unwrap_or_else(|_| {
        Err(Unknown::new(Cause::Malformed, "an attempt to open a file panicked: a bug in vmgate"))
    })
}

/// Changes the rights of this thread for good.
fn take_rights(UserWithGroups { user, groups }: &UserWithGroups) -> Result<(), Errno> {
    if !geteuid().is_root() {
        // is_possible: the process has that user's rights already.
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let groups: Vec<Gid> = groups.iter().map(|group| Gid::from_raw(*group)).collect();
    set_thread_groups(&groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    // Where QEMU runs as root libvirt takes its capabilities, too (clear_emulator_capabilities).
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn the_rights_are_those_of_the_user_and_end_with_the_work() {
        if !geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        fs::write(&file, "x").unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let nobody = UserWithGroups { user: QemuUser { uid: 65_534, gid: 65_534 }, groups: vec![65_534] };
        assert_eq!(work_as(&nobody, || fs::read(&file).is_ok()), Ok(false));
        assert!(fs::read(&file).is_ok(), "root has its rights still");
        // Its group may read it.
        std::os::unix::fs::chown(&file, None, Some(65_534)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o040)).unwrap();
        assert_eq!(work_as(&nobody, || fs::read(&file).is_ok()), Ok(true));
        // Root without capabilities is a user like others.
        let root = UserWithGroups { user: QemuUser { uid: 0, gid: 0 }, groups: vec![0] };
        assert_eq!(work_as(&root, || fs::read(&file).is_ok()), Ok(false));
    }

    #[test]
    fn a_user_has_its_group_of_libvirt_beside_those_of_the_host() {
        let root = with_groups(QemuUser { uid: 0, gid: 4_000_000 }).unwrap();
        assert!(root.groups.contains(&0) && root.groups.contains(&4_000_000));
        let nobody_knows = with_groups(QemuUser { uid: 3_999_999, gid: 7 }).unwrap();
        assert_eq!(nobody_knows.groups, [7]);
    }
}
