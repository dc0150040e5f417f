//! Settings of the host that affect a move: the maintenance mark, libvirt's lock manager, user-space page faults.

use std::{fs, io::ErrorKind, path::Path};

use vmgate_facts::{Unknown, text::plain};

use crate::host::not_read;

/// Maintenance mark: a host with this file must not receive VMs; its text is the reason.
const MAINTENANCE: &str = "/etc/vmgate/maintenance";

/// Configuration of libvirt's QEMU driver, readable only by root.
const QEMU_CONF: &str = "/etc/libvirt/qemu.conf";

const USERFAULTFD: &str = "/proc/sys/vm/unprivileged_userfaultfd";

/// The reason why the host must not receive VMs; none if it may.
pub(super) fn maintenance() -> Result<Option<String>, Unknown> {
    let reason = read(Path::new(MAINTENANCE))?.map(|text| plain(&text));
    Ok(reason.map(|text| if text.is_empty() { format!("{MAINTENANCE} exists") } else { text }))
}

/// The lock manager set in qemu.conf.
pub(super) fn lock_manager() -> Result<Option<String>, Unknown> {
    Ok(read(Path::new(QEMU_CONF))?.and_then(|text| setting(&text, "lock_manager")))
}

/// True if a process without privileges may handle page faults; none if the kernel has no such setting.
pub(super) fn unprivileged_userfaultfd() -> Result<Option<bool>, Unknown> {
    Ok(read(Path::new(USERFAULTFD))?.map(|text| text.trim() == "1"))
}

/// A file's text; none if the file does not exist.
fn read(path: &Path) -> Result<Option<String>, Unknown> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(not_read(&path.display().to_string(), &error)),
    }
}

/// Value of a setting in libvirt's configuration, `name = "value"`; the last line with that name counts.
fn setting(text: &str, name: &str) -> Option<String> {
    let mut lines = text.lines().filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == name).then(|| plain(value.trim().trim_matches(['"', '\''])))
    });
    lines.next_back().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use crate::host::settings::*;

    #[test]
    fn comments_and_longer_names_are_not_the_setting() {
        let text = "#lock_manager = \"lockd\"\nlock_manager_x = \"a\"\n lock_manager = \"sanlock\" \n";
        assert_eq!(setting(text, "lock_manager").as_deref(), Some("sanlock"));
        assert_eq!(setting("# lock_manager = \"lockd\"\n", "lock_manager"), None);
        assert_eq!(setting("", "lock_manager"), None);
    }

    #[test]
    fn a_file_that_is_not_there_is_no_setting() {
        assert_eq!(read(Path::new("/no/such/file")), Ok(None));
        assert!(unprivileged_userfaultfd().is_ok());
    }
}
