//! Hooks that libvirt's QEMU driver runs on this host: the main one, and those of its folder.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use vmgate_facts::{HOOK_MARK, HostHook, Unknown, text::plain};

use crate::host::not_read;

const FOLDER: &str = "/etc/libvirt/hooks";

/// The hook that vmgate's own calls where libvirt runs only one (before 6.5).
const DISPLACED: &str = "qemu.before-vmgate";

/// Most bytes of a script that are read for vmgate's mark.
const HEAD: usize = 4096;

pub(super) fn look() -> Result<Vec<HostHook>, Unknown> {
    look_in(Path::new(FOLDER))
}

fn look_in(folder: &Path) -> Result<Vec<HostHook>, Unknown> {
    let mut paths = vec![folder.join("qemu")];
    let mut further = entries(&folder.join("qemu.d"))?;
    further.sort();
    paths.append(&mut further);
    let mut hooks = Vec::new();
    for path in paths {
        let Some(own) = is_own(&path)? else { continue };
        hooks.push(HostHook { path: plain(&path.to_string_lossy()), own });
        let displaced = folder.join(DISPLACED);
        if own && path.file_name().is_some_and(|name| name == "qemu") && is_own(&displaced)?.is_some() {
            hooks.push(HostHook { path: plain(&displaced.to_string_lossy()), own: false });
        }
    }
    Ok(hooks)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, Unknown> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        Err(error) => Err(not_read(&folder.display().to_string(), &error)),
    }
}

/// True if the hook is vmgate's; none where libvirt would not run it (no file that can be executed).
fn is_own(path: &Path) -> Result<Option<bool>, Unknown> {
    match fs::metadata(path) {
        Ok(about) if about.is_file() && about.permissions().mode() & 0o111 != 0 => {
            let text = fs::read(path).unwrap_or_default();
            let head = text.get(..HEAD.min(text.len())).unwrap_or_default();
            Ok(Some(String::from_utf8_lossy(head).contains(HOOK_MARK)))
        }
        Ok(_) => Ok(None),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(not_read(&path.display().to_string(), &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_that_libvirt_would_run_are_listed_in_its_order() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(look_in(folder.path()), Ok(Vec::new()));
        let write = |name: &str, text: &str, mode| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        write("qemu", &format!("#!/bin/sh\n{HOOK_MARK}: lets …"), 0o755);
        write(DISPLACED, "#!/bin/sh\n", 0o755);
        write("qemu.d/20-b", "#!/bin/sh\n", 0o755);
        write("qemu.d/10-a", "#!/bin/sh\n", 0o755);
        write("qemu.d/30-readme", "not run", 0o644);
        let found: Vec<_> = look_in(folder.path())
            .unwrap()
            .iter()
            .map(|hook| (hook.path.rsplit('/').next().unwrap().to_owned(), hook.own))
            .collect();
        let expected = [("qemu", true), (DISPLACED, false), ("10-a", false), ("20-b", false)];
        assert_eq!(found, expected.map(|(name, own)| (name.to_owned(), own)));
    }
}
