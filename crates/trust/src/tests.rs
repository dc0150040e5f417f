//! Attacks on trusted files: modes, owners, folders, links and races.

use std::{
    os::unix::fs::{PermissionsExt, chown, symlink},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use super::*;

/// A user that is nobody's friend.
const NOBODY: u32 = 65534;

fn set(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn refusal(path: &Path) -> String {
    read(path, 100).unwrap_err().to_string()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn a_file_that_others_could_have_written_is_not_believed_and_the_refusal_mends_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.pem");
    write(&file, b"key", 0o644).unwrap();
    assert_eq!(read(&file, 10).unwrap(), b"key");
    assert!(read(&file, 2).unwrap_err().to_string().contains("more than 2 bytes"));
    for mode in [0o646, 0o666, 0o602] {
        set(&file, mode);
        assert!(refusal(&file).contains(&format!("use chmod go-w '{}'", file.display())), "{mode:o}");
    }
    set(&file, 0o600);
    set(folder.path(), 0o777);
    assert!(refusal(&file).contains("other users can write it (mode 777)"));
    assert!(list(folder.path()).is_err());
    set(folder.path(), 0o755);
    assert_eq!(list(folder.path()).unwrap(), std::slice::from_ref(&file));
}

#[test]
fn a_file_of_root_is_not_writable_for_roots_group_either() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vmgate.yaml");
    write(&file, b"x", 0o664).unwrap();
    assert!(refusal(&file).contains("mode 664"));
}

#[test]
fn a_secret_is_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.pem");
    for (mode, secret) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o644, false)] {
        write(&file, b"key", mode).unwrap();
        let read = read_secret(&file, 10);
        assert_eq!(read.is_ok(), secret, "{mode:o}");
        assert!(secret || read.unwrap_err().to_string().contains("use chmod 600"));
    }
}

#[test]
fn only_files_of_root_and_of_this_user_are_believed() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (inner, file) = (folder.path().join("inner"), folder.path().join("inner/vmgate.yaml"));
    fs::create_dir(&inner).unwrap();
    write(&file, b"x", 0o644).unwrap();
    chown(&file, Some(NOBODY), None).unwrap();
    assert!(refusal(&file).contains("the owner is user 65534, not root: use chown root"));
    chown(&file, Some(0), None).unwrap();
    chown(&inner, Some(NOBODY), None).unwrap();
    assert!(refusal(&file).contains("inner: the folder's owner is user 65534, not root: move the file"));
    assert!(list(&inner).is_err());
}

#[test]
fn a_link_is_followed_only_where_nobody_else_could_turn_it() {
    let folder = tempfile::tempdir().unwrap();
    let (real, link) = (folder.path().join("real"), folder.path().join("link"));
    let (shared, open) = (folder.path().join("shared"), folder.path().join("open"));
    write(&real, b"x", 0o600).unwrap();
    symlink("real", &link).unwrap();
    assert_eq!(read(&link, 10).unwrap(), b"x");
    for (path, mode) in [(&shared, 0o1777), (&open, 0o777)] {
        fs::create_dir(path).unwrap();
        set(path, mode);
        symlink(&real, path.join("link")).unwrap();
    }
    assert_eq!(read(&shared.join("link"), 10).unwrap(), b"x", "its owner alone can turn it");
    assert!(refusal(&open.join("link")).contains("mode 777"));
    symlink(open.join("link"), folder.path().join("through")).unwrap();
    assert!(refusal(&folder.path().join("through")).contains("mode 777"), "each folder on the way counts");
    write(&open.join("target"), b"x", 0o600).unwrap();
    symlink(open.join("target"), folder.path().join("into")).unwrap();
    assert!(refusal(&folder.path().join("into")).contains("mode 777"));
    assert!(list(&shared).unwrap_err().to_string().contains("add and remove"), "others can add files");
    symlink("loop", folder.path().join("loop")).unwrap();
    assert!(refusal(&folder.path().join("loop")).contains("too many links"));
    if is_root() {
        std::os::unix::fs::lchown(shared.join("link"), Some(NOBODY), None).unwrap();
        assert!(refusal(&shared.join("link")).contains("user 65534"));
    }
    let up = folder.path().join("shared/../link");
    assert_eq!(read(&up, 10).unwrap(), b"x");
}

#[test]
fn what_is_not_a_file_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg("-m").arg("600").arg(&pipe).status().unwrap().success());
    assert!(refusal(&pipe).contains("not a regular file"));
    assert!(refusal(Path::new("/dev/null")).contains("not a regular file"));
    assert!(refusal(folder.path()).contains("not a regular file"));
    assert!(read(&folder.path().join("none"), 10).unwrap_err().is_missing());
}

#[test]
fn a_folder_that_the_operator_vouches_for_is_believed_but_its_secrets_are_not_public() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vmgate.yaml");
    write(&file, b"x", 0o666).unwrap();
    set(folder.path(), 0o777);
    let vouched = |folder: &Path| Believer::of(0, vec![fs::canonicalize(folder).unwrap()]);
    assert!(open(&file, &vouched(folder.path()), Readers::Anybody).is_ok());
    assert!(open(&file, &vouched(folder.path()), Readers::Owner).is_err());
    assert!(vouched(folder.path()).folder_of_files(folder.path()).is_ok());
    let other = tempfile::tempdir().unwrap();
    assert!(open(&file, &vouched(other.path()), Readers::Anybody).is_err());
    let link = other.path().join("link");
    symlink(&file, &link).unwrap();
    assert!(open(&link, &vouched(other.path()), Readers::Anybody).is_err(), "a link out of the folder");
}

#[test]
fn a_race_of_links_never_wins() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (shared, stop) = (folder.path().join("shared"), AtomicBool::new(false));
    fs::create_dir(&shared).unwrap();
    set(&shared, 0o1777);
    let (good, bad) = (folder.path().join("good"), shared.join("bad"));
    write(&good, b"good", 0o644).unwrap();
    write(&bad, b"bad", 0o644).unwrap();
    chown(&bad, Some(NOBODY), None).unwrap();
    let name = shared.join("vmgate.yaml");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // What another user can do in a sticky folder: turn a name that is its own.
            for turn in 0_u32.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let draft = shared.join("draft");
                let _ = symlink(if turn % 2 == 0 { &good } else { &bad }, &draft);
                let _ = std::os::unix::fs::lchown(&draft, Some(NOBODY), None);
                let _ = fs::rename(&draft, &name);
            }
        });
        for _ in 0..5_000 {
            assert!(read(&name, 10).is_err());
        }
        stop.store(true, Ordering::Relaxed);
    });
}
