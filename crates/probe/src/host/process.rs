//! The QEMU process of a VM: its version, and a check that its binary is still the installed one.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::Path,
    process::Command,
    time::Duration,
};

use vmgate_facts::{Cause, Fact, Unknown, Uuid, Version, text::plain};
use vmgate_process::run;

use crate::host::{QemuProcess, build, not_read};

/// Longest wait for `qemu -version`, and most bytes of its answer.
const VERSION_LIMIT: Duration = Duration::from_secs(3);
const VERSION_ANSWER: usize = 64 << 10;

/// Suffix that the kernel adds to the name of a binary that was replaced or removed (proc_pid_exe(5)).
const DELETED: &str = " (deleted)";

/// The processes started with `-uuid UUID` for one of these VMs, as libvirt starts QEMU.
pub(super) fn qemus(vms: &[Uuid]) -> Result<Vec<QemuProcess>, Unknown> {
    let entries = fs::read_dir("/proc").map_err(|error| not_read("/proc", &error))?;
    let mut found = Vec::new();
    let mut versions = BTreeMap::new();
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(command) = fs::read(entry.path().join("cmdline")) else { continue };
        if let Some(uuid) = uuid_of(&command).filter(|uuid| vms.contains(uuid)) {
            let mut process = process(&entry.path(), pid, uuid, &mut versions)?;
            process.incoming = Fact::Known(is_incoming(&command));
            found.push(process);
        }
    }
    // With hidepid a user sees only their own processes, so an empty list proves nothing.
    if found.is_empty() && fs::read("/proc/1/cmdline").is_err() {
        return Err(Unknown::new(
            Cause::PermissionDenied,
            "the host hides other users' processes from this user (hidepid)",
        ));
    }
    found.sort_by_key(|process| process.pid);
    Ok(found)
}

/// The argument after `-uuid`.
fn uuid_of(command: &[u8]) -> Option<Uuid> {
    let mut arguments = command.split(|&byte| byte == 0);
    arguments.find(|argument| *argument == b"-uuid")?;
    str::from_utf8(arguments.next()?).ok()?.parse().ok()
}

/// True if QEMU was started to receive a migration, or the memory of a saved VM.
fn is_incoming(command: &[u8]) -> bool {
    command.split(|&byte| byte == 0).any(|argument| argument == b"-incoming")
}

/// Versions of binaries, by device and inode: most VMs of a host share one binary.
type Versions = BTreeMap<(u64, u64), Fact<Version>>;

fn process(folder: &Path, pid: u32, uuid: Uuid, versions: &mut Versions) -> Result<QemuProcess, Unknown> {
    let exe = folder.join("exe");
    let link = fs::read_link(&exe).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => Unknown::new(
            Cause::PermissionDenied,
            "only root and QEMU's own user can see which binary runs the VM",
        ),
        _ => not_read(&format!("/proc/{pid}/exe"), &error),
    })?;
    let shown = link.to_string_lossy();
    let version = match fs::metadata(&exe) {
        Ok(about) => versions.entry((about.dev(), about.ino())).or_insert_with(|| version(&exe)).clone(),
        Err(error) => Fact::Unknown(not_read(&format!("/proc/{pid}/exe"), &error)),
    };
    Ok(QemuProcess {
        pid,
        uuid,
        version,
        build: build::of_program(&exe),
        incoming: Fact::default(),
        binary: plain(shown.strip_suffix(DELETED).unwrap_or(&shown)),
        replaced: shown.ends_with(DELETED),
    })
}

/// Version that the running binary reports, even if its file was replaced: the kernel keeps it as /proc/PID/exe.
fn version(exe: &Path) -> Fact<Version> {
    let mut command = Command::new(exe);
    command.arg("-version").env_clear();
    let said = run(command, io::empty(), VERSION_LIMIT, VERSION_ANSWER);
    match said {
        Ok(output) => version_in(&String::from_utf8_lossy(&output.stdout)).map_or_else(
            || Fact::unknown(Cause::Malformed, "the VM's QEMU prints no version with -version"),
            Fact::Known,
        ),
        Err(failure) => {
            Fact::unknown(Cause::NotSupported, format!("the VM's QEMU cannot report its version: {failure}"))
        }
    }
}

/// The version in `QEMU emulator version 7.2.22 (Debian …)`.
fn version_in(text: &str) -> Option<Version> {
    let (_, rest) = text.split_once(" version ")?;
    rest.split(|c: char| c != '.' && !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use crate::host::process::*;

    #[test]
    fn a_vm_is_known_by_its_uuid_argument_only() {
        let uuid = "5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11";
        let command =
            format!("/usr/bin/qemu-system-x86_64\0-name\0web1\0-uuid\0{}\0-m\x001G\0", uuid.to_uppercase());
        assert_eq!(uuid_of(command.as_bytes()).unwrap().as_str(), uuid);
        assert_eq!(uuid_of(format!("grep\0{uuid}\0").as_bytes()), None);
        assert_eq!(uuid_of(b"qemu\0-uuid"), None);
        assert!(is_incoming(b"qemu\0-incoming\0defer\0") && !is_incoming(b"qemu\0-name\0x-incoming"));
    }

    #[test]
    fn a_vm_that_does_not_run_here_has_no_process() {
        assert_eq!(qemus(&["00000000-0000-0000-0000-00000000dead".parse().unwrap()]), Ok(Vec::new()));
    }

    #[test]
    fn distributions_write_their_own_version_after_qemus() {
        let version = |text| version_in(text).map(|version| version.to_string());
        assert_eq!(
            version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright"),
            Some("7.2.22".into())
        );
        assert_eq!(version("QEMU emulator version 10.0.13"), Some("10.0.13".into()));
        assert_eq!(version("something else"), None);
    }
}
