//! Files of settings: lines `name = value` or `name: value`, with or without sections, as oslo.config, vdsm, Java properties
//! and Proxmox VE have them.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use vmgate_facts::{Unknown, text::plain};

use crate::host::not_read;

/// Largest file that is read.
const MOST_BYTES: u64 = 4 << 20;

/// Files of a pattern, each with its path and text, in the order of their names.
///
/// `root` is the file system of the manager's process, where it runs; else the files are those of the host.
pub(super) fn read(
    root: Option<&Path>,
    pattern: &str,
    most: usize,
) -> Result<Vec<(String, String)>, Unknown> {
    let mut found = Vec::new();
    for path in expand(root, pattern).into_iter().take(most) {
        let shown = path.display().to_string();
        let placed = root.map_or_else(|| path.clone(), |root| inside(root, &path));
        match fs::metadata(&placed).and_then(|about| {
            if about.is_file() && about.len() <= MOST_BYTES { fs::read(&placed) } else { Ok(Vec::new()) }
        }) {
            Ok(bytes) => found.push((plain(&shown), String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(error) => return Err(not_read(&shown, &error)),
        }
    }
    Ok(found)
}

/// Paths of a pattern whose last part may begin with `*`.
fn expand(root: Option<&Path>, pattern: &str) -> Vec<PathBuf> {
    let path = Path::new(pattern);
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    let Some(ending) = name.strip_prefix('*') else { return vec![path.to_owned()] };
    let entries = fs::read_dir(root.map_or_else(|| folder.to_owned(), |root| inside(root, folder)));
    let mut names: Vec<_> = entries.into_iter().flatten().flatten().map(|entry| entry.file_name()).collect();
    names.retain(|name| name.to_str().is_some_and(|name| name.ends_with(ending)));
    names.sort();
    names.into_iter().map(|name| folder.join(name)).collect()
}

fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Settings in a text, each with its section before a slash where it has one.
pub(super) fn settings(text: &str) -> impl Iterator<Item = (String, String)> + '_ {
    let mut section = "";
    text.lines().filter_map(move |line| {
        let line = line.trim_end();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.trim();
            return None;
        }
        // A line that begins with a space goes on with the value before; no setting of migrations is that long.
        if line.starts_with(['#', ';', ' ', '\t']) {
            return None;
        }
        let (name, value) = line.split_once(['=', ':'])?;
        let name =
            if section.is_empty() { name.trim().to_owned() } else { format!("{section}/{}", name.trim()) };
        Some((plain(&name), plain(value.trim())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<(String, String)> {
        settings(text).collect()
    }

    #[test]
    fn all_four_kinds_of_files_are_read() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            of(
                "[DEFAULT]\n#a = 1\ntransport_url = rabbit://u:p@h\n[libvirt]\nlive_migration_downtime=500 \n continued\n"
            ),
            [pair("DEFAULT/transport_url", "rabbit://u:p@h"), pair("libvirt/live_migration_downtime", "500")]
        );
        assert_eq!(of("# c\nvm.migrate.speed=100\n"), [pair("vm.migrate.speed", "100")]);
        assert_eq!(
            of("migration: insecure,network=10.0.0.0/24\n"),
            [pair("migration", "insecure,network=10.0.0.0/24")]
        );
        assert_eq!(of("a\u{1b}[31m=\u{7}b"), [pair(&plain("a\u{1b}[31m"), &plain("\u{7}b"))]);
        assert!(of("[x\nno setting\n\u{0}").is_empty());
    }

    #[test]
    fn files_of_a_folder_come_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("etc/nova")).unwrap();
        for name in ["b.conf", "a.conf", "c.txt"] {
            fs::write(folder.path().join("etc/nova").join(name), name).unwrap();
        }
        let found = read(Some(folder.path()), "/etc/nova/*.conf", 9).unwrap();
        let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["/etc/nova/a.conf", "/etc/nova/b.conf"]);
        assert_eq!(read(Some(folder.path()), "/etc/nova/none.conf", 9).unwrap(), []);
    }
}
