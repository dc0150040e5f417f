//! Files that only their owner may read and write: the ledger names VMs, hosts and people, and whoever can write it can
//! rewrite it.

use std::{
    ffi::OsString,
    fs::{DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use vmgate_facts::text::ShownCommand;

const MODE: u32 = 0o600;

/// Makes an empty file and the folders above it, if there are none. SQLite gives the files beside it the same mode.
pub(super) fn create(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    match OpenOptions::new().write(true).create_new(true).mode(MODE).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => regular(path),
        made => made.map(|_| ()),
    }
}

/// An error for a device, pipe or folder, of which neither the content nor the permissions are vmgate's to change.
fn regular(path: &Path) -> io::Result<()> {
    if path.metadata()?.is_file() {
        Ok(())
    } else {
        Err(io::Error::other("it is not a regular file: name a file, or one that does not exist yet"))
    }
}

/// Takes the rights of others away from a ledger and the files beside it, and says so. The error says why it could not.
pub(super) fn narrow(path: &Path) -> Result<(), String> {
    for ending in ["", "-wal", "-shm", "-journal"] {
        let mut name = OsString::from(path);
        name.push(ending);
        let file = match regular(Path::new(&name)).and_then(|()| File::open(&name)) {
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
            let command = ShownCommand::new("chmod 600").operand(&name);
            format!("other users of the machine may use {name} (mode {mode:04o}): run `{command}` as its owner ({error})")
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
    fn a_pipe_or_a_device_is_not_a_ledger_and_keeps_its_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let (pipe, null) = (folder.path().join("pipe"), folder.path().join("null"));
        for (path, arguments) in [(&pipe, ["p"].as_slice()), (&null, &["c", "1", "3"])] {
            let made =
                std::process::Command::new("mknod").args(["-m", "666"]).arg(path).args(arguments).status();
            if !made.unwrap().success() {
                continue; // only root may make a device
            }
            let refused = Ledger::open(path).err().map(|error| error.to_string());
            assert!(refused.is_some_and(|why| why.contains("not a regular file")), "{}", path.display());
            assert_eq!(mode(path), 0o666);
        }
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
