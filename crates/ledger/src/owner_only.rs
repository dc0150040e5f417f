//! Files that only their owner may read and write: the ledger names VMs, hosts and people, and whoever can write it can
//! rewrite it.

use std::{
    ffi::OsString,
    fs::{DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

const MODE: u32 = 0o600;

/// Makes an empty file and the folders above it, if there are none. SQLite gives the files beside it the same mode.
pub(super) fn create(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    match OpenOptions::new().write(true).create_new(true).mode(MODE).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Takes the rights of others away from a ledger and the files beside it, and says so. The error says why it could not.
pub(super) fn narrow(path: &Path) -> Result<(), String> {
    for ending in ["", "-wal", "-shm", "-journal"] {
        let mut name = OsString::from(path);
        name.push(ending);
        let file = match File::open(&name) {
            Ok(file) => file,
            Err(error) if !ending.is_empty() && error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error.to_string()),
        };
        let mode = file.metadata().map_err(|error| error.to_string())?.permissions().mode() & 0o777;
        if mode & !MODE == 0 {
            continue;
        }
        let name = Path::new(&name).display();
        file.set_permissions(Permissions::from_mode(mode & MODE)).map_err(|error| {
            format!("other users of the machine may use {name} (mode {mode:04o}): run `chmod 600 {name}` as its owner ({error})")
        })?;
        tracing::warn!(
            "other users of the machine could use {name} (mode {mode:04o}): now only its owner can (mode 0600)"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ledger, tests::ended};

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_ledger_is_its_owners_alone_from_the_first_moment_on_and_is_made_so_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/ledger.db");
        let beside = |ending: &str| folder.path().join(format!("a/b/ledger.db{ending}"));
        let ledger = Ledger::open(&path).unwrap();
        ledger.append(&ended("r1")).unwrap();
        let all = [path.clone(), beside("-wal"), beside("-shm")];
        assert_eq!([&all[0], &all[1], &all[2]].map(|file| mode(file)), [0o600; 3]);
        assert_eq!(
            [folder.path().join("a"), folder.path().join("a/b")].map(|folder| mode(&folder)),
            [0o700; 2]
        );
        for file in &all {
            file.metadata()
                .map(|_| std::fs::set_permissions(file, Permissions::from_mode(0o666)).unwrap())
                .unwrap();
        }
        let again = Ledger::open(&path).unwrap();
        again.append(&ended("r2")).unwrap();
        assert_eq!([&all[0], &all[1], &all[2]].map(|file| mode(file)), [0o600; 3]);
    }
}
