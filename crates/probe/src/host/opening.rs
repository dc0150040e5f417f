//! Attempts to open the VM's files as QEMU's user, as the destination will do.
//!
//! Regular files are opened for reading and closed at once; devices, sockets and the permission to write are only asked for
//! (access(2)). Nothing is created, truncated or written.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Access, AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags},
    io::Errno,
    process::geteuid,
};
use vmgate_facts::{
    Cause, Fact, FileKind, FileOpening, HostFile, OpenedFile, QemuUser, Unknown, text::plain,
};

use crate::host::{
    as_user::{self, UserWithGroups},
    file_owner::{Change, owner_change},
    qemu_conf::QemuConf,
};

/// Adds to each file that QEMU opens whether its user may.
pub(super) fn add(files: &mut [HostFile], opened: &[OpenedFile], user: &Fact<QemuUser>) {
    let wanted: Vec<(usize, &OpenedFile)> = opened
        .iter()
        .filter_map(|wanted| {
            let at = files.iter().position(|file| file.path == wanted.path)?;
            Some((at, wanted))
        })
        .collect();
    let gives = QemuConf::read().map(|conf| conf.get("dynamic_ownership").as_deref() != Some("0"));
    let judged = match user {
        Fact::Known(user) => judge_all(files, &wanted, *user, &gives),
        Fact::Unknown(why) => Err(why.clone()),
    };
    match judged {
        Ok(openings) => {
            for ((at, _), opening) in wanted.iter().zip(openings) {
                if let Some(file) = files.get_mut(*at) {
                    file.opening = opening;
                }
            }
        }
        Err(why) => {
            for (at, _) in wanted {
                if let Some(file) = files.get_mut(at) {
                    file.opening = Fact::Unknown(why.clone());
                }
            }
        }
    }
}

fn judge_all(
    files: &[HostFile],
    wanted: &[(usize, &OpenedFile)],
    user: QemuUser,
    gives: &Result<bool, Unknown>,
) -> Result<Vec<Fact<FileOpening>>, Unknown> {
    let user = as_user::with_groups(user)?;
    // Where symbolic links lead to, the user itself perhaps may not see.
    let real: Vec<_> = wanted.iter().map(|(_, opened)| fs::canonicalize(&opened.path).ok()).collect();
    let all = || wanted.iter().map(|(_, opened)| *opened).zip(real.iter().map(Option::as_deref));
    let tried: Vec<Attempt> = if as_user::is_possible(user.user) {
        as_user::work_as(&user, || all().map(|(opened, real)| attempt(opened, real)).collect())?
    } else {
        all().map(|(opened, real)| by_mode(opened, real, &user)).collect()
    };
    Ok(wanted
        .iter()
        .zip(tried)
        .map(|((at, opened), tried)| match files.get(*at) {
            Some(file) => judge(opened, file, &user, gives, tried),
            None => Fact::default(),
        })
        .collect())
}

/// Result of an attempt as QEMU's user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The user may open it.
    Opened,
    /// A folder above it is closed to the user.
    Closed(PathBuf),
    /// The file itself refuses.
    Refused(Errno),
    /// Only that user, or root, could try it, and the file's mode does not decide it.
    NotTried,
}

/// Access that is needed of a file.
fn needed(opened: &OpenedFile, is_socket: bool) -> Access {
    match (opened.writes, is_socket) {
        // connect(2) needs the permission to write.
        (_, true) => Access::WRITE_OK,
        (true, false) => Access::READ_OK | Access::WRITE_OK,
        (false, false) => Access::READ_OK,
    }
}

fn attempt(opened: &OpenedFile, real: Option<&Path>) -> Attempt {
    let path = Path::new(&opened.path);
    if let Some(folder) = closed_folder(path, real, |folder| may(folder, Access::EXEC_OK).is_ok()) {
        return Attempt::Closed(folder);
    }
    let kind = fs::metadata(path).map(|about| about.file_type());
    let is_socket = kind.as_ref().is_ok_and(FileTypeExt::is_socket);
    if let Err(error) = may(path, needed(opened, is_socket)) {
        return Attempt::Refused(error);
    }
    if kind.is_ok_and(|kind| kind.is_file()) {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        if let Err(error) = rustix::fs::open(path, flags, Mode::empty()) {
            return Attempt::Refused(error);
        }
    }
    Attempt::Opened
}

fn may(path: &Path, access: Access) -> Result<(), Errno> {
    rustix::fs::accessat(CWD, path, access, AtFlags::empty())
}

/// The first folder from the root on, along the path and along what symbolic links lead to, that may not be passed.
fn closed_folder(path: &Path, real: Option<&Path>, passes: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let ways = [Some(path), real.filter(|real| *real != path)];
    ways.into_iter().flatten().find_map(|way| {
        let mut folders: Vec<&Path> = way.ancestors().skip(1).collect();
        folders.reverse();
        folders
            .into_iter()
            .find(|folder| !folder.as_os_str().is_empty() && !passes(folder))
            .map(Path::to_owned)
    })
}

/// The answer of the modes alone, where this process may not take the user's rights. It is only believed where it allows.
fn by_mode(opened: &OpenedFile, real: Option<&Path>, user: &UserWithGroups) -> Attempt {
    let grants = |path: &Path, bits: u32| {
        let mut answer = [0_u8; 0];
        // An access list may grant less than the mode shows.
        let listed = rustix::fs::getxattr(path, "system.posix_acl_access", &mut answer).is_ok();
        !listed && fs::metadata(path).is_ok_and(|about| mode_grants(&about, user, bits))
    };
    let path = Path::new(&opened.path);
    let bits = if opened.writes { 0o6 } else { 0o4 };
    match closed_folder(path, real, |folder| grants(folder, 0o1)) {
        None if grants(path, bits) => Attempt::Opened,
        _ => Attempt::NotTried,
    }
}

fn mode_grants(about: &fs::Metadata, UserWithGroups { user, groups }: &UserWithGroups, bits: u32) -> bool {
    let shift = if about.uid() == user.uid {
        6
    } else if groups.contains(&about.gid()) {
        3
    } else {
        0
    };
    (about.mode() >> shift) & bits == bits
}

/// Meaning of the attempt, once libvirt has made QEMU's user the file's owner where it does that.
fn judge(
    opened: &OpenedFile,
    file: &HostFile,
    user: &UserWithGroups,
    gives: &Result<bool, Unknown>,
    tried: Attempt,
) -> Fact<FileOpening> {
    let uid = user.user.uid;
    if file.kind == FileKind::Missing {
        return Fact::unknown(Cause::NotCollected, "there is no such file");
    }
    let path = Path::new(&opened.path);
    let known = |allowed, detail| Fact::Known(FileOpening { allowed, detail });
    let doing = if opened.writes { "read and write" } else { "read" };
    let yes = || known(true, format!("uid {uid} may {doing} it"));
    let about = match fs::metadata(path) {
        Ok(about) => about,
        Err(error) => return Fact::unknown(Cause::NotCollected, format!("{}: {error}", plain(&opened.path))),
    };
    let standing = format!("owner {}:{}, mode {:04o}", about.uid(), about.gid(), about.mode() & 0o7777);
    let no = |why: &str| known(false, format!("uid {uid} may not {doing} it: {standing}{why}"));
    let refused = match tried {
        Attempt::Closed(folder) => return known(false, closed(uid, &folder)),
        Attempt::NotTried if !opened.given => return not_tried(uid),
        Attempt::Opened => None,
        Attempt::Refused(error) => Some(error),
        Attempt::NotTried => Some(Errno::ACCESS),
    };
    // No owner could write what cannot be written at all.
    let forbidden = match refused {
        Some(Errno::ROFS) => Some("; its file system is read-only"),
        Some(Errno::PERM) => Some("; it is immutable (lsattr)"),
        _ => None,
    };
    if let Some(why) = forbidden {
        return no(why);
    }
    let is_owner = about.uid() == uid && about.gid() == user.user.gid;
    match (opened.given && !is_owner, gives, refused) {
        (false, _, None) | (true, Ok(false), None) => yes(),
        (false, ..) => no(""),
        (true, Ok(false), Some(_)) => no("; libvirt leaves the owner as it is (dynamic_ownership = 0)"),
        // As its owner the user may do nothing that it may not do now.
        (true, Err(_), None) if owner_may(&about, opened) => yes(),
        (true, Err(why), _) => Fact::Unknown(why.clone()),
        (true, Ok(true), refused) => match (owner_change(file, &about, path), refused) {
            (Change::Made, _) if owner_may(&about, opened) => known(
                true,
                format!("uid {uid} may {doing} it once libvirt has made it the owner; now {standing}"),
            ),
            (Change::Made, _) => no("; as the owner that libvirt makes it, it may not either"),
            (Change::Ignored(_), None) => yes(),
            (Change::Ignored(why), Some(_)) => no(&format!("; libvirt cannot change the owner: {why}")),
            (Change::Unsure(_), None) if owner_may(&about, opened) => yes(),
            (Change::Unsure(why), _) => Fact::unknown(Cause::NotSupported, format!("{standing}; {why}")),
        },
    }
}

fn owner_may(about: &fs::Metadata, opened: &OpenedFile) -> bool {
    let bits = if opened.writes { 0o600 } else { 0o400 };
    about.mode() & bits == bits
}

fn closed(uid: u32, folder: &Path) -> String {
    let standing = fs::metadata(folder).map_or_else(
        |_| "it cannot be read".to_owned(),
        |about| format!("owner {}:{}, mode {:04o}", about.uid(), about.gid(), about.mode() & 0o7777),
    );
    format!("uid {uid} may not pass the folder {}: {standing}", plain(&folder.to_string_lossy()))
}

fn not_tried(uid: u32) -> Fact<FileOpening> {
    let own = geteuid().as_raw();
    Fact::unknown(
        Cause::PermissionDenied,
        format!(
            "the probe on the host runs as uid {own}, and only root can try a file as QEMU's user (uid {uid})"
        ),
    )
}

/// True if a file keeps its owner, whoever asks: immutable or append-only (chattr(1)).
pub(super) fn is_frozen(path: &Path) -> bool {
    let about = rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::empty());
    about.is_ok_and(|about| {
        about.stx_attributes.intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;
    use crate::host::{HostQuestions, file};

    const USER: QemuUser = QemuUser { uid: 64_055, gid: 64_055 };

    /// The permission for a file of that owner and mode, where libvirt gives files away or not.
    fn opening(owner: u32, mode: u32, writes: bool, gives: bool) -> Option<FileOpening> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        fs::write(&path, "x").unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        chown(&path, Some(owner), Some(owner)).unwrap();
        opening_of(&path, writes, gives)
    }

    fn opening_of(path: &Path, writes: bool, gives: bool) -> Option<FileOpening> {
        let path = path.to_str().unwrap().to_owned();
        let questions = HostQuestions { files: vec![path.clone()], ..HostQuestions::default() };
        let files = file::look(&questions).unwrap();
        let opened = OpenedFile { purpose: "vda".to_owned(), path, writes, given: true };
        let openings = judge_all(&files, &[(0, &opened)], USER, &Ok(gives)).unwrap();
        openings.first().unwrap().known().cloned()
    }

    #[test]
    fn the_owner_decides_where_libvirt_does_not_change_it() {
        if !geteuid().is_root() {
            return;
        }
        let said = |owner, mode, writes| opening(owner, mode, writes, false).unwrap();
        assert!(said(64_055, 0o600, true).allowed);
        assert!(said(0, 0o644, false).allowed, "an ISO that everybody may read");
        assert!(!said(0, 0o644, true).allowed);
        let denied = said(999, 0o600, false);
        assert!(!denied.allowed);
        assert_eq!(
            denied.detail,
            "uid 64055 may not read it: owner 999:999, mode 0600; libvirt leaves the owner as it is \
             (dynamic_ownership = 0)"
        );
    }

    #[test]
    fn a_file_that_libvirt_gives_away_opens_by_its_new_owner() {
        if !geteuid().is_root() {
            return;
        }
        let said = |owner, mode, writes| opening(owner, mode, writes, true).unwrap();
        assert!(said(0, 0o600, true).allowed);
        assert!(said(999, 0o600, true).allowed);
        assert!(!said(0, 0o444, true).allowed, "the new owner may not write it either");
        assert!(!said(0, 0o066, true).allowed, "as the owner it loses what others may");
    }

    #[test]
    fn a_closed_folder_is_named_and_stays_closed() {
        if !geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("private");
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("disk"), "x").unwrap();
        for (path, mode) in [(folder.path(), 0o711), (&inner, 0o700)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(inner.join("disk"), &link).unwrap();
        for path in [inner.join("disk"), link] {
            let said = opening_of(&path, false, true).unwrap();
            assert!(!said.allowed && said.detail.contains("may not pass the folder"), "{}", said.detail);
            assert!(said.detail.contains("/private: owner 0:0, mode 0700"), "{}", said.detail);
        }
    }

    #[test]
    fn a_mode_alone_is_believed_where_it_allows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        fs::write(&path, "x").unwrap();
        let user = UserWithGroups { user: USER, groups: vec![64_055] };
        let said = |folder_mode, mode, writes| {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(folder_mode)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let path = path.to_str().unwrap().to_owned();
            by_mode(&OpenedFile { purpose: String::new(), path, writes, given: false }, None, &user)
        };
        assert_eq!(said(0o755, 0o644, false), Attempt::Opened);
        assert_eq!(said(0o755, 0o644, true), Attempt::NotTried);
        assert_eq!(said(0o700, 0o644, false), Attempt::NotTried);
    }
}
