//! The shell script that collects the guest's facts in one command of the agent, and the parser of its output.
//!
//! The script forks a handful of processes however many the guest has, needs no more than a POSIX shell, head, cat,
//! ls and grep (busybox will do), and changes nothing. Sections are marked with a word that no process of the guest
//! could know before; within a section, a name that comes twice was forged.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, RandomState},
    thread,
    time::{Duration, Instant},
};

use vmgate_facts::{Cause, Unknown};
use vmgate_probe::guest::{FILES, RawProcess};
use vmgate_reach::agent::{Agent, AgentChannel, Execution};

/// Bounds of the pause between two looks at the script: a quarter of the time that it has run.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(160);
/// Longest output of a script: in base64 it must fit into one of libvirt's strings (REMOTE_STRING_MAX, 4 MiB).
const OUTPUT_LIMIT: usize = 2_900_000;
/// Longest part of one process's command line.
const COMMAND_LIMIT: usize = 4096;

/// Output of the script.
pub(super) struct ScriptOutput {
    /// Content of the files; none at all where they did not fit.
    pub(super) files: Option<GuestFiles>,
    /// The processes, or the fault of their list.
    pub(super) processes: Result<Vec<RawProcess>, Unknown>,
    /// Size of the whole output.
    pub(super) bytes: usize,
    /// Time at which it was started.
    pub(super) began: Instant,
}

/// Files of a guest, as far as the script asked for them.
pub(super) struct GuestFiles {
    /// Content by path.
    content: BTreeMap<String, Vec<u8>>,
    /// Paths that are there, readable or not.
    present: BTreeSet<String>,
}

impl GuestFiles {
    /// Content of a file; an error says if it is not there or cannot be read. None for a path that was not asked for.
    pub(super) fn read(&self, path: &str) -> Option<Result<Vec<u8>, Unknown>> {
        if let Some(content) = self.content.get(path) {
            return Some(Ok(content.clone()));
        }
        let why = if self.present.contains(path) {
            Unknown::new(
                Cause::PermissionDenied,
                format!("the guest agent's user may not read {path} in the guest"),
            )
        } else if self.present.is_empty() {
            Unknown::new(Cause::Malformed, "the shell in the guest found none of the kernel's files")
        } else if FILES.contains(&path) {
            Unknown::new(Cause::NotSupported, format!("the guest has no file {path}"))
        } else {
            return None;
        };
        Some(Err(why))
    }
}

/// Runs the script and waits for its end. A guest with some ten thousand connections has too much for one answer:
/// then only the processes are asked for again, and the files are left to be read one by one. `meanwhile` is done while it runs.
pub(super) fn gather<C: AgentChannel>(
    agent: &Agent<C>,
    deadline: Instant,
    meanwhile: impl FnOnce(),
) -> Result<ScriptOutput, Unknown> {
    let began = Instant::now();
    let mark = format!("vmgate-{:016x}", RandomState::new().hash_one(began));
    let running = Running::start(agent, &script(&mark, Some(FILES)), deadline)?;
    meanwhile();
    let output = running.output(agent, deadline)?;
    if output.len() < OUTPUT_LIMIT {
        return parse(&output, &mark, began);
    }
    let output = Running::start(agent, &script(&mark, None), deadline)?.output(agent, deadline)?;
    parse(&output, &mark, began).map(|gathered| ScriptOutput { files: None, ..gathered })
}

/// A shell script that runs in the guest.
pub(super) struct Running {
    pid: i64,
    began: Instant,
}

impl Running {
    /// Starts a script.
    pub(super) fn start<C: AgentChannel>(
        agent: &Agent<C>,
        script: &str,
        deadline: Instant,
    ) -> Result<Self, Unknown> {
        let began = Instant::now();
        let pid = agent.start_shell(script, deadline.saturating_duration_since(began))?;
        Ok(Self { pid, began })
    }

    /// Waits for its end and returns what it printed.
    pub(super) fn output<C: AgentChannel>(
        self,
        agent: &Agent<C>,
        deadline: Instant,
    ) -> Result<Vec<u8>, Unknown> {
        let left = || deadline.saturating_duration_since(Instant::now());
        loop {
            let pause = (self.began.elapsed() / 4).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
            thread::sleep(pause.min(left()));
            match agent.shell_status(self.pid, left())? {
                Execution::Done { truncated: true, .. } => {
                    return Err(Unknown::new(
                        Cause::Malformed,
                        "the guest agent truncated the output of the shell",
                    ));
                }
                Execution::Done { output, .. } => return Ok(output),
                Execution::Running if left().is_zero() => {
                    return Err(Unknown::new(
                        Cause::TimedOut,
                        "the shell in the guest did not finish within the time limit",
                    ));
                }
                Execution::Running => {}
            }
        }
    }
}

/// Writes the script. `ls -n` so that no name service is asked; errors of processes that end meanwhile are ignored.
fn script(mark: &str, files: Option<&[&str]>) -> String {
    let files = files.unwrap_or_default().join(" ");
    let (list, content) = if files.is_empty() {
        (String::new(), String::new())
    } else {
        (format!("ls -d {files};"), format!("head -c {OUTPUT_LIMIT} {files};"))
    };
    format!(
        "exec 2>/dev/null; cd /proc || exit 1; LC_ALL=C; export LC_ALL; {{ \
         {list} echo {mark}-present; {content} echo; echo {mark}-stat; cat [0-9]*/stat; echo {mark}-command; \
         head -c {COMMAND_LIMIT} [0-9]*/cmdline; echo; echo {mark}-socket; \
         ls -ln [0-9]*/fd | grep -o -e '^[0-9]*/fd:' -e ' -> socket:\\[[0-9]*]$'; echo {mark}-end; }} \
         | head -c {OUTPUT_LIMIT}"
    )
}

/// Parses the output.
fn parse(output: &[u8], mark: &str, began: Instant) -> Result<ScriptOutput, Unknown> {
    let incomplete = || Unknown::new(Cause::Malformed, "the output of the shell in the guest is incomplete");
    let mut rest = output;
    let mut cut = |name: &str| {
        let line = format!("{mark}-{name}\n");
        let at = find(rest, line.as_bytes())?;
        let (section, tail) = rest.split_at(at);
        rest = tail.get(line.len()..)?;
        Some(section)
    };
    let present = cut("present").ok_or_else(incomplete)?;
    let files = cut("stat").ok_or_else(incomplete)?;
    let stats = cut("command").ok_or_else(incomplete)?;
    let commands = cut("socket").ok_or_else(incomplete)?;
    let sockets = cut("end").ok_or_else(incomplete)?;
    let content =
        split_head_output(files.strip_suffix(b"\n").unwrap_or(files), |name| FILES.contains(&name))?;
    let present =
        String::from_utf8_lossy(present).lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    Ok(ScriptOutput {
        files: Some(GuestFiles { content, present }),
        processes: processes(stats, commands, sockets, mark),
        bytes: output.len(),
        began,
    })
}

fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len()).position(|window| window == needle)
}

/// Splits the output of head(1) for several files: `==> NAME <==`, the content, and an empty line before the next.
fn split_head_output(
    text: &[u8],
    known: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, Vec<u8>>, Unknown> {
    let mut found = BTreeMap::new();
    let mut current: Option<(String, Vec<u8>)> = None;
    let mut keep = |part: Option<(String, Vec<u8>)>| {
        let Some((name, mut content)) = part else { return Ok(()) };
        // The line break before the next header is head's.
        content.pop();
        match found.insert(name.clone(), content) {
            None => Ok(()),
            Some(_) => Err(Unknown::new(
                Cause::Malformed,
                format!("a process in the guest has forged the content of {name}"),
            )),
        }
    };
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let header = line
            .strip_prefix(b"==> ")
            .and_then(|line| line.strip_suffix(b" <==\n"))
            .and_then(|name| std::str::from_utf8(name).ok())
            .filter(|name| known(name));
        match (header, &mut current) {
            (Some(name), _) => keep(current.replace((name.to_owned(), Vec::new())))?,
            (None, Some((_, content))) => content.extend_from_slice(line),
            (None, None) => {}
        }
    }
    // After the last file there is no header, and so no line break of head's to take away.
    if let Some((_, content)) = &mut current {
        content.push(b'\n');
    }
    keep(current)?;
    Ok(found)
}

/// Joins the three lists by process id, without the processes of the script itself.
fn processes(stats: &[u8], commands: &[u8], sockets: &[u8], mark: &str) -> Result<Vec<RawProcess>, Unknown> {
    let is_command = |name: &str| name.strip_suffix("/cmdline").is_some_and(is_number);
    let mut commands = split_head_output(commands.strip_suffix(b"\n").unwrap_or(commands), is_command)?;
    let mut sockets = socket_inodes(sockets)?;
    let mut seen = BTreeSet::new();
    let mut processes = Vec::new();
    for stat in whole_stats(stats) {
        let mut process = RawProcess { stat: stat.to_vec(), ..RawProcess::default() };
        let Some(pid) = process.pid() else {
            return Err(Unknown::new(
                Cause::Malformed,
                "the guest's list of processes contains a line that is not a process",
            ));
        };
        if !seen.insert(pid) {
            return Err(Unknown::new(
                Cause::Malformed,
                format!("process {pid} of the guest is listed twice"),
            ));
        }
        process.command = commands.remove(&format!("{pid}/cmdline")).unwrap_or_default();
        process.sockets = Some(sockets.remove(&pid).unwrap_or_default());
        if find(&process.command, mark.as_bytes()).is_none() {
            processes.push(process);
        }
    }
    processes.sort_by_key(RawProcess::pid);
    RawProcess::complete(processes)
}

/// Splits the stat lines. A process's name may hold line breaks, so an incomplete line continues on the next.
fn whole_stats(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let mut end = 0;
        while end < rest.len() {
            let tail = rest.get(end..)?;
            end += tail.iter().position(|&byte| byte == b'\n').map_or(tail.len(), |at| at + 1);
            // After the closing parenthesis of the name come a letter and numbers, so a complete line has one.
            if rest.get(..end)?.contains(&b')') {
                break;
            }
        }
        let (line, tail) = rest.split_at_checked(end)?;
        rest = tail;
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        (!line.is_empty()).then_some(line)
    })
}

/// Sockets by process id, from `ls -ln` of the fd folders.
fn socket_inodes(text: &[u8]) -> Result<BTreeMap<u32, Vec<u64>>, Unknown> {
    let mut found: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    let mut current = None;
    for line in String::from_utf8_lossy(text).lines() {
        if let Some(pid) =
            line.strip_suffix("/fd:").filter(|pid| is_number(pid)).and_then(|pid| pid.parse().ok())
        {
            if found.insert(pid, Vec::new()).is_some() {
                return Err(Unknown::new(
                    Cause::Malformed,
                    format!("a process in the guest has forged the sockets of process {pid}"),
                ));
            }
            current = Some(pid);
        } else if let Some(inode) =
            line.rsplit_once("-> socket:[").and_then(|(_, inode)| inode.strip_suffix(']')?.parse().ok())
            && let Some(inodes) = current.and_then(|pid| found.get_mut(&pid))
        {
            inodes.push(inode);
        }
    }
    Ok(found)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() <= 10 && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// The script is for a guest, but every Linux has what it needs.
    fn run_here(mark: &str) -> Vec<u8> {
        Command::new("/bin/sh").args(["-c", &script(mark, Some(FILES))]).output().unwrap().stdout
    }

    #[test]
    fn the_script_finds_this_process_its_command_and_its_sockets() {
        let listener = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let gathered = parse(&run_here("vmgate-test"), "vmgate-test", Instant::now()).unwrap();
        let files = gathered.files.unwrap();
        let read = |path: &str| files.read(path).unwrap();
        assert_eq!(read("/proc/sys/net/ipv4/tcp_retries2").unwrap().last(), Some(&b'\n'));
        let table = String::from_utf8(read("/proc/net/udp").unwrap()).unwrap();
        let line = table.lines().find(|line| line.contains(&format!(":{port:04X} "))).unwrap();
        let inode: u64 = line.split_whitespace().nth(9).unwrap().parse().unwrap();
        assert!(table.ends_with('\n') && !table.ends_with("\n\n"));
        let processes = gathered.processes.unwrap();
        let me = processes.iter().find(|process| process.pid() == Some(std::process::id())).unwrap();
        assert!(me.sockets.as_ref().unwrap().contains(&inode));
        let command = std::fs::read("/proc/self/cmdline").unwrap();
        assert_eq!(me.command, command[..command.len().min(COMMAND_LIMIT)]);
        let ours = processes.iter().find(|process| find(&process.command, b"vmgate-test").is_some());
        assert_eq!(ours, None, "the script does not list itself");
    }

    #[test]
    fn a_file_that_is_there_and_not_read_is_not_absent() {
        let [absent, unread, empty_kernel] = ["/proc/net/sctp/assocs", FILES[0], FILES[1]];
        let text = format!("{unread}\nm-present\n\nm-stat\n1 (init) S 0\nm-command\n\nm-socket\nm-end\n");
        let files = parse(text.as_bytes(), "m", Instant::now()).unwrap().files.unwrap();
        let cause = |files: &GuestFiles, path| files.read(path).unwrap().unwrap_err().cause;
        assert_eq!(cause(&files, unread), Cause::PermissionDenied);
        assert_eq!(cause(&files, empty_kernel), Cause::NotSupported);
        assert!(
            FILES.contains(&absent) || files.read(absent).is_none(),
            "nobody asked for it, so nobody knows"
        );
        let files = parse(text.replace(unread, "").as_bytes(), "m", Instant::now()).unwrap().files.unwrap();
        assert_eq!(cause(&files, unread), Cause::Malformed, "a kernel has some of these files");
    }

    #[test]
    fn a_list_without_the_first_process_is_not_all_processes() {
        let text = "m-present\n\nm-stat\n7 (sh) S 0\nm-command\n\nm-socket\nm-end\n";
        assert!(parse(text.as_bytes(), "m", Instant::now()).unwrap().processes.is_err());
    }

    #[test]
    fn a_forged_header_is_found() {
        let text = b"==> 1/cmdline <==\ninit\0\n==> 2/cmdline <==\na\n==> 1/cmdline <==\nevil\0\n";
        assert!(split_head_output(text, |name| name.ends_with("/cmdline")).is_err());
        let sockets = b"1/fd:\n -> socket:[10]\n2/fd:\n1/fd:\n";
        assert!(socket_inodes(sockets).is_err());
    }

    #[test]
    fn names_with_line_breaks_stay_one_process() {
        let stats = b"1 (init) S 0\n2 (a\n3 b) S 0\n4 (c) S 0\n";
        let lines: Vec<_> = whole_stats(stats).collect();
        assert_eq!(lines, [&b"1 (init) S 0"[..], b"2 (a\n3 b) S 0", b"4 (c) S 0"]);
    }

    #[test]
    fn output_that_was_cut_off_is_malformed() {
        let output = run_here("vmgate-cut");
        assert!(parse(&output[..output.len() / 2], "vmgate-cut", Instant::now()).is_err());
        assert!(parse(b"", "vmgate-cut", Instant::now()).is_err());
    }

    proptest! {
        #[test]
        fn no_output_panics(output in proptest::collection::vec(any::<u8>(), 0..400), text in "(m-(present|stat|command|socket|end)\n|==> [0-9]/cmdline <==\n|[0-9]+ \\(.\\) S\n|[0-9]/fd:\n|-> socket:\\[[0-9]\\]\n){0,30}") {
            let _ = parse(&output, "m", Instant::now());
            let _ = parse(text.as_bytes(), "m", Instant::now());
        }
    }
}
