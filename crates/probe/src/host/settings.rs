//! Settings of the host that affect a move: the maintenance mark, libvirt's lock manager, user-space page faults.

use std::{fs, io::ErrorKind, path::Path};

use vmgate_facts::{Cause, Unknown, text::plain};

use crate::host::{not_read, qemu_conf::QemuConf};

/// Maintenance mark: a host with this file must not receive VMs; its text is the reason.
const MAINTENANCE: &str = "/etc/vmgate/maintenance";

const USERFAULTFD: &str = "/proc/sys/vm/unprivileged_userfaultfd";

/// The reason why the host must not receive VMs; none if it may.
pub(super) fn maintenance() -> Result<Option<String>, Unknown> {
    let reason = read(Path::new(MAINTENANCE))?.map(|text| plain(&text));
    Ok(reason.map(|text| if text.is_empty() { format!("{MAINTENANCE} exists") } else { text }))
}

/// The lock manager set in qemu.conf.
pub(super) fn lock_manager() -> Result<Option<String>, Unknown> {
    Ok(QemuConf::read()?.get("lock_manager"))
}

/// True if libvirt refuses a migration without TLS.
pub(super) fn migration_tls_forced() -> Result<bool, Unknown> {
    Ok(QemuConf::read()?.get("migrate_tls_force").as_deref() == Some("1"))
}

/// True if a process without privileges may handle page faults; none if the kernel has no such setting.
pub(super) fn unprivileged_userfaultfd() -> Result<Option<bool>, Unknown> {
    let Some(text) = read(Path::new(USERFAULTFD))? else { return Ok(None) };
    match text.trim() {
        "0" => Ok(Some(false)),
        "1" => Ok(Some(true)),
        _ => Err(Unknown::new(Cause::Malformed, format!("{USERFAULTFD} on the host is neither 0 nor 1"))),
    }
}

/// A file's text; none if the file does not exist.
fn read(path: &Path) -> Result<Option<String>, Unknown> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(not_read(&path.display().to_string(), &error)),
    }
}

#[cfg(test)]
mod tests {
    use crate::host::settings::*;

    #[test]
    fn a_file_that_is_not_there_is_no_setting() {
        assert_eq!(read(Path::new("/no/such/file")), Ok(None));
        assert!(unprivileged_userfaultfd().is_ok());
    }
}
