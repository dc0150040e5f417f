//! This machine as the guest: `vmgate probe guest` runs inside the guest.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    hash::{BuildHasher, RandomState},
    io::{self, ErrorKind, Read},
    path::Path,
    process::Command,
    time::Duration,
};

use vmgate_facts::{Cause, Fact, Unknown, text::plain};
use vmgate_process::run;

use crate::{
    guest::{
        FILE_LIMIT, GuestHints, GuestReader, KernelSockets, MOST_PROCESSES, RawProcess, TOTAL_LIMIT,
        ask::{self, Answers, Question},
        tcp,
    },
    netlink,
};

/// Longest command line that is read.
const COMMAND_LIMIT: usize = 4096;
/// Longest wait for the answers to further questions.
const ASK_LIMIT: Duration = Duration::from_secs(30);

/// Reads /proc of the machine that vmgate runs on.
#[derive(Debug, Clone, Copy)]
pub struct LocalGuest;

impl GuestReader for LocalGuest {
    fn read(&self, path: &str) -> Result<Vec<u8>, Unknown> {
        read(Path::new(path), FILE_LIMIT).map_err(|error| why(path, &error))
    }

    fn processes(&self) -> Result<Vec<RawProcess>, Unknown> {
        let entries = fs::read_dir("/proc").map_err(|error| why("/proc", &error))?;
        let mut processes: Vec<(u32, RawProcess)> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
                Some((pid, process(&entry.path())?))
            })
            .take(MOST_PROCESSES + 1)
            .collect();
        processes.sort_by_key(|(pid, _)| *pid);
        RawProcess::complete(processes.into_iter().map(|(_, process)| process).collect())
    }

    fn kernel_sockets(&self) -> Result<KernelSockets, Unknown> {
        tcp::gather()
    }

    fn hints(&self) -> GuestHints {
        let addresses = netlink::interfaces().into_iter().flatten().flat_map(|interface| interface.addresses);
        GuestHints {
            os: self.read("/etc/os-release").and_then(|text| os_name(&text)).into(),
            addresses: Fact::Known(
                addresses
                    .map(|(address, _)| address)
                    .filter(|ip| !ip.is_loopback())
                    .map(|ip| ip.to_string())
                    .collect(),
            ),
            ..GuestHints::default()
        }
    }

    /// Runs the same script as other access paths: it skips what is no regular file and limits the time of a command.
    fn ask(&self, questions: &BTreeSet<Question>) -> Answers {
        let mark = format!("vmgate-{:016x}", RandomState::new().hash_one(questions));
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &ask::script(questions, &mark)]);
        match run(shell, io::empty(), ASK_LIMIT, TOTAL_LIMIT) {
            Ok(output) => ask::answers(questions, &output.stdout, &mark),
            Err(failure) => {
                let why = Unknown::new(
                    Cause::NotSupported,
                    format!("the shell that reads files and runs commands failed: {failure}"),
                );
                questions.iter().map(|question| (question.clone(), Err(why.clone()))).collect()
            }
        }
    }
}

/// PRETTY_NAME of os-release(5).
fn os_name(text: &[u8]) -> Result<String, Unknown> {
    let text = String::from_utf8_lossy(text);
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map(|name| plain(name.trim_matches(['"', '\''])))
        .ok_or_else(|| Unknown::new(Cause::NotSupported, "/etc/os-release in the guest has no PRETTY_NAME"))
}

/// One process; none if it ended meanwhile. Only root sees the sockets of other users' processes.
fn process(folder: &Path) -> Option<RawProcess> {
    let sockets = match fs::read_dir(folder.join("fd")) {
        Ok(links) => Some(links.filter_map(|link| inode(&link.ok()?.path())).collect()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => None,
        Err(_) => return None,
    };
    Some(RawProcess {
        stat: read(&folder.join("stat"), COMMAND_LIMIT).ok()?,
        command: read(&folder.join("cmdline"), COMMAND_LIMIT).ok()?,
        sockets,
    })
}

/// The inode of the socket that a link in /proc/PID/fd points to.
fn inode(link: &Path) -> Option<u64> {
    let target = fs::read_link(link).ok()?;
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn read(path: &Path, limit: usize) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(limit as u64).read_to_end(&mut text)?;
    Ok(text)
}

fn why(path: &str, error: &std::io::Error) -> Unknown {
    let cause = match error.kind() {
        ErrorKind::NotFound => Cause::NotSupported,
        ErrorKind::PermissionDenied => Cause::PermissionDenied,
        _ => Cause::NotCollected,
    };
    Unknown::new(cause, format!("cannot read {path}: {error}"))
}

#[cfg(test)]
mod tests {
    use crate::guest::{local::*, look};

    #[test]
    fn this_machine_is_read_whole() {
        let guest = look(&LocalGuest);
        assert!(matches!(guest.hostname, Fact::Known(_)));
        assert!(guest.addresses.known().is_some());
        assert_eq!(os_name(b"ID=debian\nPRETTY_NAME=\"Debian \x1b 12\"\n"), Ok("Debian ? 12".into()));
        let sysctl = guest.sysctl.known().unwrap();
        assert!(sysctl.tcp_retries2.known().is_some_and(|retries| *retries > 0));
        let me = std::process::id();
        let processes = guest.processes.known().unwrap();
        assert!(processes.iter().any(|process| process.pid == me && process.resident_bytes > 0));
        assert!(guest.tcp.known().unwrap().connections.known().is_some());
        assert!(guest.udp.known().unwrap().sockets.known().is_some());
    }
}
