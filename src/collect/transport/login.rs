//! A host's probe that is asked more than once: one login, over which it is sent once and run as often as it is asked.
//!
//! The login is an ssh master connection. Its own session keeps the probe in a private folder until its standard input
//! ends: when the login is dropped, when vmgate ends in whatever way, and when the connection breaks.

use std::{
    ffi::OsStr,
    io::{self, BufRead, BufReader, Read},
    path::PathBuf,
    process::ChildStdout,
    sync::{
        Mutex, OnceLock, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{
    ChildFailure, Output, SshTarget, Subject,
    child::{ChildGuard, receive},
    run,
    ssh::{line, probe_binary, quoted},
};
use crate::fact::Unknown;

/// Longest name of a control socket: ssh adds 17 characters to it, and a socket's address holds 107 (unix(7)).
const SOCKET_NAME_LIMIT: usize = 90;
/// Longest name of the probe at the host (PATH_MAX).
const PROGRAM_NAME_LIMIT: u64 = 4096;
/// After this time the host removes the probe by itself, where the end of the login was lost with the network.
const KEPT_FOR: Duration = Duration::from_mins(15);
/// How long the host has for removing the probe when the login ends.
const LOGOUT_LIMIT: Duration = Duration::from_secs(1);

/// A login that keeps a probe ready. Dropped, it removes the probe there and ends.
#[derive(Debug)]
pub struct Login {
    target: SshTarget,
    master: Mutex<Master>,
    /// Where the probe is at the host, once that is known.
    program: OnceLock<Result<String, ChildFailure>>,
    socket: PathBuf,
    /// Holds the socket.
    _folder: TempDir,
}

/// The ssh process that holds the connection.
#[derive(Debug)]
struct Master {
    process: ChildGuard,
    /// Dropped, it ends the standard input.
    input: Option<Sender<()>>,
    /// Where the probe is; an empty line where there will be none.
    program: Receiver<String>,
    deadline: Instant,
}

impl Login {
    /// Begins to log in and to send the probe, for at most `limit`. None where a connection cannot be shared: with another
    /// program than ssh, or without a place for the socket.
    pub(super) fn begin(target: &SshTarget, limit: Duration) -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("vmgate-").tempdir().ok()?;
        let socket = folder.path().join("ssh");
        if target.program != "ssh" || socket.as_os_str().len() > SOCKET_NAME_LIMIT {
            return None;
        }
        let binary = probe_binary().ok()?;
        let keep = format!("timeout {} cat >/dev/null", KEPT_FOR.as_secs());
        let (script, content): (_, Box<dyn Read + Send>) = match binary {
            Some(binary) => {
                (binary.receive_script(&format!("echo \"$d/vmgate\" && {keep}")), Box::new(binary.open().ok()?))
            }
            None => (format!("echo vmgate; {keep}"), Box::new(io::empty())),
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
    pub(super) fn target(&self) -> &SshTarget {
        &self.target
    }

    /// Runs a probe there and returns what it printed.
    pub(super) fn run_probe(
        &self,
        subject: Subject,
        arguments: &[String],
        limit: Duration,
        most: usize,
    ) -> Result<Output, Unknown> {
        let explained = |failure| self.target.explain(subject, failure);
        let program = self.program.get_or_init(|| self.wait_for_program()).clone().map_err(explained)?;
        let mut command = self.target.command(limit, &[OsStr::new("-S"), self.socket.as_os_str()]);
        command.arg(format!("exec {} {} </dev/null", quoted(&[program]), line(subject, arguments)));
        run(command, io::empty(), limit, most).map_err(explained)
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
        // Whatever came of it, nothing of the login is left here.
        let _ = master.process.end(Instant::now() + LOGOUT_LIMIT);
    }
}

/// Writes to the standard input of a child, and keeps it open for as long as what this gives is there.
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
            // What came before an error is what there is.
            let _ = BufReader::new(stream.take(PROGRAM_NAME_LIMIT)).read_line(&mut text);
        }
        let _ = sender.send(text.trim_end().to_owned());
    });
    receiver
}
