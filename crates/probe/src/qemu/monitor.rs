//! Client of QEMU's monitor protocol (QMP) that asks and never orders.
//!
//! A monitor serves one client at a time, and the manager of the VM needs it too: vmgate connects, asks, and leaves, within
//! [`LONGEST_TURN`]. The only commands that it can send are [`ALLOWED`].

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
    sockopt::{Timeout, set_socket_timeout},
};
use serde_json::{Value, json};
use thiserror::Error;
use vmgate_facts::{Cause, Unknown, text::plain};

/// Commands that vmgate sends to a monitor. Each only reads.
pub(crate) const ALLOWED: &[&str] = &[
    "qom-get",
    "qom-list",
    "qom-list-types",
    "query-balloon",
    "query-block",
    "query-block-jobs",
    "query-chardev",
    "query-cpu-definitions",
    "query-cpu-model-expansion",
    "query-cpus-fast",
    "query-jobs",
    "query-kvm",
    "query-machines",
    "query-memory-size-summary",
    "query-migrate",
    "query-migrate-parameters",
    "query-status",
    "query-tpm-types",
    "query-version",
    "query-vnc",
];
/// Longest time for which a monitor is held.
const LONGEST_TURN: Duration = Duration::from_secs(3);
/// Longest answer, in bytes: of a VM with hundreds of disks.
const LONGEST_ANSWER: usize = 8 << 20;
/// Most characters of a stranger's greeting that are shown.
const SHOWN: usize = 60;

/// Failure to ask a monitor.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum MonitorError {
    /// There is no such socket.
    #[error("the host has no socket {0}: is the VM running there?")]
    NoSocket(String),
    /// Nobody listens on the socket.
    #[error("nobody listens on {0}: its QEMU has ended, and left the socket behind")]
    NobodyListens(String),
    /// The user may not open the socket.
    #[error("no permission to open {0}: log in as root, or as the user who runs QEMU")]
    NotPermitted(String),
    /// No greeting came.
    #[error(
        "{socket} did not greet within {} s: another program holds the monitor (try again), or it is no QMP monitor",
        .waited.as_secs()
    )]
    Busy { socket: String, waited: Duration },
    /// The monitor speaks QEMU's protocol for people.
    #[error(
        "{0} is a monitor for people (HMP), and vmgate asks QMP alone: name the VM's QMP socket (of Ganeti the one that ends in .qmp)"
    )]
    ForPeople(String),
    /// The socket is of something else.
    #[error("{socket} is no QMP monitor: it says {said:?}")]
    NotQmp { socket: String, said: String },
    /// The connection ended.
    #[error("QEMU closed {0}, or died")]
    Closed(String),
    /// The answers took too long.
    #[error("{0} did not answer within the time of a turn: QEMU may hang")]
    Slow(String),
    /// Something else.
    #[error("cannot ask {0}")]
    Io(String, #[source] io::Error),
    /// QEMU refused a command, or does not know it.
    #[error("QEMU refuses {command}: {why}")]
    Refused { command: String, why: String },
}

impl From<MonitorError> for Unknown {
    fn from(error: MonitorError) -> Self {
        let cause = match &error {
            MonitorError::NoSocket(_) | MonitorError::NobodyListens(_) | MonitorError::Closed(_) => {
                Cause::GuestNotRunning
            }
            MonitorError::NotPermitted(_) => Cause::PermissionDenied,
            MonitorError::Busy { .. } | MonitorError::Slow(_) => Cause::TimedOut,
            MonitorError::ForPeople(_) | MonitorError::NotQmp { .. } | MonitorError::Refused { .. } => {
                Cause::NotSupported
            }
            MonitorError::Io(..) => Cause::Malformed,
        };
        let source =
            std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        Self::new(cause, format!("{error}{source}"))
    }
}

/// An open monitor, which this client holds until it is dropped.
#[derive(Debug)]
pub(crate) struct Monitor {
    socket: String,
    stream: UnixStream,
    read: Vec<u8>,
    until: Instant,
}

impl Monitor {
    /// Connects, and waits for at most `patience` until other clients have left.
    pub(crate) fn open(socket: &str, patience: Duration) -> Result<Self, MonitorError> {
        let until = Instant::now() + patience;
        let busy = || MonitorError::Busy { socket: socket.to_owned(), waited: patience };
        let stream = connected(socket, patience).map_err(|error| match error.kind() {
            ErrorKind::NotFound => MonitorError::NoSocket(socket.to_owned()),
            ErrorKind::ConnectionRefused => MonitorError::NobodyListens(socket.to_owned()),
            ErrorKind::PermissionDenied => MonitorError::NotPermitted(socket.to_owned()),
            ErrorKind::WouldBlock | ErrorKind::TimedOut => busy(),
            _ => MonitorError::Io(socket.to_owned(), error),
        })?;
        let mut monitor = Self { socket: socket.to_owned(), stream, read: Vec::new(), until };
        let greeting = match monitor.line() {
            Err(MonitorError::Slow(_)) => return Err(busy()),
            other => other?,
        };
        if serde_json::from_slice::<Value>(&greeting).is_ok_and(|greeting| greeting.get("QMP").is_some()) {
            monitor.until = Instant::now() + LONGEST_TURN;
            monitor.send("qmp_capabilities", &json!({}))?;
            return Ok(monitor);
        }
        let said = plain(&String::from_utf8_lossy(&greeting).chars().take(SHOWN).collect::<String>());
        Err(if said.contains("QEMU") && said.contains("monitor") {
            MonitorError::ForPeople(monitor.socket)
        } else {
            MonitorError::NotQmp { socket: monitor.socket, said }
        })
    }

    /// Asks a command of the list, without arguments.
    pub(crate) fn ask(&mut self, command: &str) -> Result<Value, MonitorError> {
        self.ask_with(command, &json!({}))
    }

    /// Asks a command of the list.
    pub(crate) fn ask_with(&mut self, command: &str, arguments: &Value) -> Result<Value, MonitorError> {
        if !ALLOWED.contains(&command) {
            let why = "vmgate only asks, and this command is none of those that only read".to_owned();
            return Err(MonitorError::Refused { command: command.to_owned(), why });
        }
        self.send(command, arguments)
    }

    fn send(&mut self, command: &str, arguments: &Value) -> Result<Value, MonitorError> {
        let mut text = json!({ "execute": command, "arguments": arguments }).to_string();
        text.push('\n');
        let failed = |error| MonitorError::Io(self.socket.clone(), error);
        self.stream.set_write_timeout(Some(LONGEST_TURN)).map_err(failed)?;
        self.stream.write_all(text.as_bytes()).map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => MonitorError::Closed(self.socket.clone()),
            _ => failed(error),
        })?;
        loop {
            let line = self.line()?;
            let answer = serde_json::from_slice(&line)
                .map_err(|error| MonitorError::Io(self.socket.clone(), error.into()))?;
            if let Some(answer) = result_of(answer, command) {
                return answer;
            }
        }
    }

    /// Next line, without its end.
    fn line(&mut self) -> Result<Vec<u8>, MonitorError> {
        let failed = |error| MonitorError::Io(self.socket.clone(), error);
        loop {
            if let Some(end) = self.read.iter().position(|&byte| byte == b'\n') {
                let rest = self.read.split_off(end + 1);
                return Ok(std::mem::replace(&mut self.read, rest));
            }
            if self.read.len() > LONGEST_ANSWER {
                return Err(failed(ErrorKind::InvalidData.into()));
            }
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(MonitorError::Slow(self.socket.clone()));
            }
            self.stream.set_read_timeout(Some(left)).map_err(failed)?;
            let mut chunk = [0; 16 << 10];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(MonitorError::Closed(self.socket.clone())),
                Ok(length) => self.read.extend(chunk.iter().take(length)),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                    ErrorKind::ConnectionReset => return Err(MonitorError::Closed(self.socket.clone())),
                    _ => return Err(failed(error)),
                },
            }
        }
    }
}

/// Connects within a time: where another client is being served and one waits, the kernel lets connect(2) wait.
fn connected(socket: &str, patience: Duration) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(socket)?;
    let end = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&end, Timeout::Send, Some(patience))?;
    connect(&end, &address)?;
    Ok(end.into())
}

/// Result in a line from QEMU; none in one that is no answer, such as an event.
pub(crate) fn result_of(mut line: Value, command: &str) -> Option<Result<Value, MonitorError>> {
    if let Some(found) = line.get_mut("return") {
        return Some(Ok(found.take()));
    }
    let error = line.get("error")?;
    let why = plain(error.get("desc").and_then(Value::as_str).unwrap_or("no reason"));
    Some(Err(MonitorError::Refused { command: command.to_owned(), why }))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        os::unix::net::UnixListener,
        thread::{self, JoinHandle},
    };

    use crate::qemu::monitor::*;

    const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\n";

    /// A server that says something to its first client, answers each line, and returns the lines.
    fn server(greeting: &'static str, answers: &'static [&'static str]) -> (String, JoinHandle<Vec<String>>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.qmp");
        let listener = UnixListener::bind(&path).unwrap();
        let asked = thread::spawn(move || {
            let _kept_until_the_client_came = folder;
            let (mut client, _) = listener.accept().unwrap();
            client.write_all(greeting.as_bytes()).unwrap();
            let mut lines = BufReader::new(client.try_clone().unwrap()).lines();
            let mut asked = Vec::new();
            for answer in answers {
                let Some(line) = lines.next() else { break };
                asked.push(line.unwrap());
                client.write_all(answer.as_bytes()).unwrap();
            }
            asked
        });
        (path.to_str().unwrap().to_owned(), asked)
    }

    fn refused(greeting: &'static str) -> String {
        let (socket, _asked) = server(greeting, &[]);
        Monitor::open(&socket, Duration::from_millis(200)).unwrap_err().to_string()
    }

    #[test]
    fn every_command_that_may_be_sent_only_reads() {
        let reads = |command: &&str| {
            ["query-", "qom-list"].iter().any(|verb| command.starts_with(verb)) || *command == "qom-get"
        };
        assert_eq!(ALLOWED.iter().filter(|command| !reads(command)).count(), 0);
        assert!(ALLOWED.is_sorted());
    }

    #[test]
    fn a_command_that_changes_something_is_not_sent() {
        let (socket, asked) = server(GREETING, &["{\"return\": {}}\n", "{\"return\": {}}\n"]);
        let mut monitor = Monitor::open(&socket, Duration::from_secs(5)).unwrap();
        for order in ["stop", "quit", "migrate", "human-monitor-command", "qom-set", "calc-dirty", ""] {
            assert!(matches!(monitor.ask(order), Err(MonitorError::Refused { .. })), "{order}");
        }
        drop(monitor);
        let asked = asked.join().unwrap();
        assert!(asked.len() == 1 && asked[0].contains("qmp_capabilities"), "{asked:?}");
    }

    #[test]
    fn events_between_answers_are_skipped_and_refusals_are_qemus_words() {
        let answers = &[
            "{\"return\": {}}\n",
            "{\"event\": \"RESUME\"}\n{\"return\": {\"status\": \"running\"}}\n",
            "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no \\u001b[31msuch\"}}\n",
        ];
        let (socket, _asked) = server(GREETING, answers);
        let mut monitor = Monitor::open(&socket, Duration::from_secs(5)).unwrap();
        assert_eq!(monitor.ask("query-status").unwrap()["status"], "running");
        let why = monitor.ask("query-kvm").unwrap_err().to_string();
        assert!(why.contains("no ") && !why.contains('\u{1b}'), "{why}");
        assert!(matches!(monitor.ask("query-kvm"), Err(MonitorError::Closed(_))));
    }

    #[test]
    fn what_is_no_qmp_monitor_is_told_apart() {
        assert!(refused("QEMU 7.2.22 monitor - type 'help' for more information\r\n(qemu) ").contains("HMP"));
        assert!(refused("RFB 003.008\n").contains("says \"RFB 003.008"));
        assert!(refused("").contains("QEMU closed"));
        let nowhere = Monitor::open("/nonexistent/m.qmp", Duration::from_secs(1)).unwrap_err();
        assert!(matches!(nowhere, MonitorError::NoSocket(_)), "{nowhere}");
    }

    #[test]
    fn a_monitor_that_another_client_holds_is_busy_and_a_dead_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.qmp");
        let listener = UnixListener::bind(&path).unwrap();
        let open = || Monitor::open(path.to_str().unwrap(), Duration::from_millis(100)).unwrap_err();
        assert!(matches!(open(), MonitorError::Busy { .. }));
        drop(listener);
        assert!(matches!(open(), MonitorError::NobodyListens(_)));
    }
}
