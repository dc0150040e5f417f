//! The QEMU process of a VM, and whether its binary is still the installed one.

use std::{fs, io::ErrorKind, path::Path};

use super::{QemuProcess, not_read};
use crate::{
    collect::text::plain,
    fact::{Cause, Unknown},
};

/// What the kernel adds to the name of a binary that was replaced or removed (proc_pid_exe(5)).
const DELETED: &str = " (deleted)";

/// The process that was started with `-uuid UUID`, as libvirt starts QEMU; none where there is none.
pub(super) fn qemu(uuid: &str) -> Result<Option<QemuProcess>, Unknown> {
    let entries = fs::read_dir("/proc").map_err(|error| not_read("/proc", &error))?;
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let runs_it = fs::read(entry.path().join("cmdline")).is_ok_and(|command| names(&command, uuid));
        if runs_it {
            return binary(&entry.path(), pid).map(Some);
        }
    }
    // With hidepid a user sees none but their own processes, and that says nothing.
    if fs::read("/proc/1/cmdline").is_err() {
        return Err(Unknown::new(Cause::PermissionDenied, "the host hides processes from this user"));
    }
    Ok(None)
}

fn names(command: &[u8], uuid: &str) -> bool {
    let mut arguments = command.split(|&byte| byte == 0);
    arguments.any(|argument| argument == b"-uuid")
        && arguments.next().is_some_and(|given| given.eq_ignore_ascii_case(uuid.as_bytes()))
}

fn binary(folder: &Path, pid: u32) -> Result<QemuProcess, Unknown> {
    let link = fs::read_link(folder.join("exe")).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => Unknown::new(
            Cause::PermissionDenied,
            "only root and QEMU's own user see which binary the VM runs",
        ),
        _ => not_read(&format!("/proc/{pid}/exe"), &error),
    })?;
    let shown = link.to_string_lossy();
    Ok(QemuProcess {
        pid,
        binary: plain(shown.strip_suffix(DELETED).unwrap_or(&shown)),
        replaced: shown.ends_with(DELETED),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_is_known_by_its_uuid_argument_only() {
        let uuid = "5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11";
        let command =
            format!("/usr/bin/qemu-system-x86_64\0-name\0web1\0-uuid\0{}\0-m\x001G\0", uuid.to_uppercase());
        assert!(names(command.as_bytes(), uuid));
        assert!(!names(format!("grep\0{uuid}\0").as_bytes(), uuid));
        assert!(!names(b"qemu\0-uuid", uuid));
    }

    #[test]
    fn a_vm_that_does_not_run_here_is_absent() {
        assert_eq!(qemu("00000000-0000-0000-0000-00000000dead"), Ok(None));
    }
}
