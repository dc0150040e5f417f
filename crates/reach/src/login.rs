//! One ssh login for several runs of a host's probe, over which the probe is sent once.
//!
//! The login is an ssh master connection. Its own session keeps the probe in a private folder until its standard input
//! ends: when the login is dropped, when vmgate ends in whatever way, and when the connection breaks.

use std::{
    ffi::OsStr,
    io::{self, BufRead, BufReader, Cursor, Read},
    path::PathBuf,
    process::ChildStdout,
    sync::{
        Mutex, OnceLock, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use vmgate_facts::Unknown;
use vmgate_process::{ChildFailure, ChildGuard, Output, receive, run};

use super::{
    SshTarget, Subject,
    on_host::{AS_ROOT, on_host_program},
    socket_folder::SocketFolder,
    ssh::INSTALLED,
};

/// Longest name of a control socket: ssh adds 17 characters to it, and a socket's address holds 107 (unix(7)).
const SOCKET_NAME_LIMIT: usize = 90;
/// Longest name of the probe at the host (PATH_MAX).
const PROGRAM_NAME_LIMIT: u64 = 4096;
/// Time after which the host removes the probe by itself, if a network failure hid the end of the login.
const KEPT_FOR: Duration = Duration::from_mins(15);
/// Longest wait for the host to remove the probe when the login ends.
const LOGOUT_LIMIT: Duration = Duration::from_secs(1);

/// A login that keeps a probe ready. When dropped, it removes the probe from the host and ends.
#[derive(Debug)]
pub struct Login {
    target: SshTarget,
    master: Mutex<Master>,
    /// Path of the probe on the host, once that is known.
    program: OnceLock<Result<String, ChildFailure>>,
    socket: PathBuf,
    /// Holds the socket.
    _folder: SocketFolder,
}

/// The ssh process that holds the connection.
#[derive(Debug)]
struct Master {
    process: ChildGuard,
    /// Ends the standard input when dropped.
    input: Option<Sender<()>>,
    /// Path of the probe on the host; an empty line if the probe could not be sent.
    program: Receiver<String>,
    deadline: Instant,
}

impl Login {
    /// Begins to log in and to send the probe, for at most `limit`. None where a connection cannot be shared: with another
    /// program than ssh, or without a place for the socket.
    pub fn begin(target: &SshTarget, limit: Duration) -> Option<Self> {
        let folder = SocketFolder::make().ok()?;
        let socket = folder.path().join("ssh");
        if target.program != "ssh" || socket.as_os_str().len() > SOCKET_NAME_LIMIT {
            return None;
        }
        let sent = on_host_program().ok()?;
        let keep = format!("timeout {} cat >/dev/null", KEPT_FOR.as_secs());
        let (script, content): (_, Box<dyn Read + Send>) = match sent {
            Some(program) => {
                let script = format!("{AS_ROOT}; echo \"$as '$run'\" && {keep}");
                (program.received(&script), Box::new(program.bytes()))
            }
            None => (format!("echo {INSTALLED}; {keep}"), Box::new(io::empty())),
        };
        let deadline = Instant::now() + limit;
        let mut command = target.command(limit, &["-M".as_ref(), "-S".as_ref(), socket.as_os_str()]);
        command.arg(script);
        let mut process = ChildGuard::start(command).ok()?;
        let input = feed(&mut process, content);
        let program = first_line(process.child.stdout.take());
        let master = Mutex::new(Master { process, input, program, deadline });
        Some(Self { target: target.clone(), master, program: OnceLock::new(), socket, _folder: folder })
    }

    /// The host that it is at.
    pub fn target(&self) -> &SshTarget {
        &self.target
    }

    /// Runs the on-host program there, with the question on its standard input, and returns what it printed.
    pub fn ask(
        &self,
        subject: Subject,
        question: &[u8],
        limit: Duration,
        most: usize,
    ) -> Result<Output, Unknown> {
        let explained = |failure| self.target.explain(subject, failure);
        let program = self.program.get_or_init(|| self.wait_for_program()).clone().map_err(explained)?;
        let mut command = self.target.command(limit, &[OsStr::new("-S"), self.socket.as_os_str()]);
        command.arg(format!("exec {program}"));
        run(command, Cursor::new(question.to_vec()), limit, most).map_err(explained)
    }

    fn wait_for_program(&self) -> Result<String, ChildFailure> {
        let mut master = self.master.lock().unwrap_or_else(PoisonError::into_inner);
        let deadline = master.deadline;
        let program = receive(&master.program, deadline)?;
        if program.is_empty() {
            master.process.end(deadline)?;
        }
        Ok(program)
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        let master = self.master.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop(master.input.take());
        // The result does not matter: nothing of the login is left here.
        let _ = master.process.end(Instant::now() + LOGOUT_LIMIT);
    }
}

/// Writes to the standard input of a child, and keeps it open until the returned sender is dropped.
fn feed(process: &mut ChildGuard, mut content: impl Read + Send + 'static) -> Option<Sender<()>> {
    let mut stdin = process.child.stdin.take()?;
    let (sender, held) = channel::<()>();
    thread::spawn(move || {
        // A child that does not read all of it says why on standard error.
        if io::copy(&mut content, &mut stdin).is_ok() {
            let _ = held.recv();
        }
    });
    Some(sender)
}

fn first_line(stream: Option<ChildStdout>) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut text = String::new();
        if let Some(stream) = stream {
            // The text before an error is the output.
            let _ = BufReader::new(stream.take(PROGRAM_NAME_LIMIT)).read_line(&mut text);
        }
        let _ = sender.send(text.trim_end().to_owned());
    });
    receiver
}
