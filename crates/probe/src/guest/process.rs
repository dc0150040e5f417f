//! Processes from /proc/PID/{stat,cmdline,fd}.

use procfs_core::{FromRead, process::Stat};
use vmgate_facts::{
    Cause, Process, Unknown,
    text::{plain, plain_bytes},
};

use crate::guest::{MOST_PROCESSES, malformed, redact::redact};

/// Longest command line that is kept.
const COMMAND_LIMIT: usize = 1024;

/// One process as read from /proc, before parsing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RawProcess {
    /// The line of /proc/PID/stat.
    pub stat: Vec<u8>,
    /// The text of /proc/PID/cmdline, arguments ended by NUL.
    pub command: Vec<u8>,
    /// Inodes of its open sockets; absent if vmgate has no permission to list them.
    pub sockets: Option<Vec<u64>>,
}

/// Units in which the guest's kernel counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelUnits {
    /// Size of a memory page, in bytes.
    pub page_bytes: u64,
}

impl RawProcess {
    /// The processes, if they are all of a guest's. Every Linux has a first process; a list without it is of a user from whom
    /// the others are hidden, or of a shell that could not list them.
    pub fn complete(processes: Vec<Self>) -> Result<Vec<Self>, Unknown> {
        if processes.iter().any(|process| process.pid() == Some(1)) {
            return Ok(processes);
        }
        let why =
            "the guest hides processes from this user (hidepid), or its shell cannot list them: look as root";
        Err(Unknown::new(Cause::PermissionDenied, why))
    }

    /// The process name (comm) as the kernel shows it.
    pub(super) fn name(&self) -> String {
        between_parentheses(&self.stat).map(plain_bytes).unwrap_or_default()
    }

    /// The process id; none if the stat line does not begin with one.
    pub fn pid(&self) -> Option<u32> {
        let digits = self.stat.split(|&byte| byte == b' ').next()?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }
}

/// The processes as facts, by process id. A line that cannot be parsed makes the whole list unknown: the missing
/// process might be the one that matters.
pub(super) fn facts(processes: &[RawProcess], units: KernelUnits) -> Result<Vec<Process>, Unknown> {
    if processes.len() > MOST_PROCESSES {
        return Err(malformed("/proc", &format!("more than {MOST_PROCESSES} processes")));
    }
    let mut facts = processes.iter().map(|process| fact(process, units)).collect::<Result<Vec<_>, _>>()?;
    facts.sort_by_key(|process| process.pid);
    Ok(facts)
}

fn fact(process: &RawProcess, units: KernelUnits) -> Result<Process, Unknown> {
    let stat = stat(&process.stat).ok_or_else(|| {
        let line: String = plain_bytes(&process.stat).chars().take(60).collect();
        malformed("/proc/PID/stat", &format!("not a process: `{line}`"))
    })?;
    Ok(Process {
        pid: u32::try_from(stat.pid).map_err(|_| malformed("/proc/PID/stat", "a negative process id"))?,
        name: plain(&stat.comm),
        command: command(&process.command),
        state: plain(&stat.state.to_string()),
        resident_bytes: stat.rss.saturating_mul(units.page_bytes),
    })
}

/// Parses a stat line, `PID (NAME) STATE …`. `procfs-core` panics on misplaced parentheses, so they are checked
/// first.
fn stat(line: &[u8]) -> Option<Stat> {
    // A name may hold any bytes; the rest is ASCII and keeps its position.
    let text = String::from_utf8_lossy(line);
    let text = text.trim();
    let (open, close) = (text.find('(')?, text.rfind(')')?);
    let pid = text.get(..open)?.strip_suffix(' ')?;
    let rest = text.get(close..)?.strip_prefix(") ")?;
    let fits = open < close
        && pid.parse::<u32>().is_ok()
        && rest.split(' ').count() >= 35
        && rest.chars().next()?.is_ascii_alphabetic();
    fits.then(|| Stat::from_read(text.as_bytes()).ok()).flatten()
}

fn between_parentheses(line: &[u8]) -> Option<&[u8]> {
    let open = line.iter().position(|&byte| byte == b'(')?;
    let close = line.iter().rposition(|&byte| byte == b')')?;
    line.get(open + 1..close)
}

/// The command line as one line of text, with secrets replaced.
fn command(raw: &[u8]) -> String {
    let arguments: Vec<String> =
        raw.split(|&byte| byte == 0).filter(|argument| !argument.is_empty()).map(plain_bytes).collect();
    let mut command = redact(&arguments).join(" ");
    if let Some((cut, _)) = command.char_indices().find(|(index, _)| *index >= COMMAND_LIMIT) {
        command.truncate(cut);
        command.push('…');
    }
    command
}

/// The page size in an auxiliary vector (AT_PAGESZ, getauxval(3)), for 64-bit little-endian guests.
pub(super) fn page_bytes(auxv: &[u8]) -> Option<u64> {
    const AT_PAGESZ: u64 = 6;
    let (pairs, _) = auxv.as_chunks::<16>();
    pairs
        .iter()
        .map(|pair| u128::from_le_bytes(*pair))
        .find(|pair| pair & u128::from(u64::MAX) == u128::from(AT_PAGESZ))
        .and_then(|pair| u64::try_from(pair >> 64).ok())
        .filter(|size| size.is_power_of_two() && (4096..=1 << 20).contains(size))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::guest::process::*;

    const STAT: &str = "812 (coro sync)) S 1 812 812 0 -1 4194560 5403 0 12 0 85 43 0 0 -2 0 3 0 1044 215588864 \
        12800 18446744073709551615 94 95 14 0 0 0 0 4096 17641 0 0 0 17 0 99 2 0 0 0 0 0 0 0 0 0 0 0";

    fn raw(stat: &str, command: &[u8]) -> RawProcess {
        RawProcess { stat: stat.as_bytes().to_vec(), command: command.to_vec(), sockets: None }
    }

    const UNITS: KernelUnits = KernelUnits { page_bytes: 4096 };

    #[test]
    fn a_process_is_read_even_with_a_crafted_name() {
        let process = facts(&[raw(STAT, b"/usr/sbin/corosync\0-f\0")], UNITS).unwrap().remove(0);
        assert_eq!((process.pid, process.name.as_str()), (812, "coro sync)"));
        assert_eq!((process.command.as_str(), process.state.as_str()), ("/usr/sbin/corosync -f", "S"));
        assert_eq!(process.resident_bytes, 52_428_800);
        assert_eq!(raw(STAT, b"").name(), "coro sync)");
    }

    #[test]
    fn what_makes_procfs_panic_is_unknown() {
        for line in [")(", "", "(", "1 (x)", "1 (x) ", "(x) S", "1(x) S 1", &STAT[..60], "1 (x) \u{e9}é é"]
        {
            assert!(facts(&[raw(line, b"")], UNITS).is_err(), "{line}");
        }
    }

    #[test]
    fn an_endless_command_line_is_cut_and_its_controls_removed() {
        let long = raw(STAT, &[b'a'; 5000]);
        assert!(facts(&[long], UNITS).unwrap()[0].command.len() < COMMAND_LIMIT + 8);
        let evil = facts(&[raw(STAT, b"sh\0-c\0\x1b]0;owned\x07\0")], UNITS).unwrap().remove(0);
        assert_eq!(evil.command, "sh -c ?]0;owned?");
    }

    #[test]
    fn the_page_size_is_the_guests() {
        let mut auxv = Vec::new();
        for (key, value) in [(33_u64, 0x7fff_0000_u64), (6, 65_536), (0, 0)] {
            auxv.extend(key.to_le_bytes());
            auxv.extend(value.to_le_bytes());
        }
        assert_eq!(page_bytes(&auxv), Some(65_536));
        assert_eq!(page_bytes(b"short"), None);
    }

    proptest! {
        #[test]
        fn no_line_panics(line in ".{0,200}", cut in 0..STAT.len()) {
            let _ = facts(&[raw(&line, line.as_bytes())], UNITS);
            let _ = facts(&[raw(&STAT[..cut], b"")], UNITS);
        }
    }
}
