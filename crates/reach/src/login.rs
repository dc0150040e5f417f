//! One ssh login for several runs of a host's probe, over which the probe is sent once.
//!
//! The login is an ssh master connection. Its own session keeps the probe in a private folder until its standard input
//! ends: when the login is dropped, when vmgate ends in whatever way, and when the connection breaks. libvirt goes over the
//! same login, by a program that it runs in place of ssh.

use std::{
    ffi::OsStr,
    io::{self, BufRead, BufReader, Cursor, Read},
    path::{Path, PathBuf},
    process::ChildStdout,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
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
    ssh::{INSTALLED, code},
};

/// Longest name of the probe at the host (PATH_MAX).
const PROGRAM_NAME_LIMIT: u64 = 4096;
/// Time after which the host removes the probe by itself, if a network failure hid the end of the login.
const KEPT_FOR: Duration = Duration::from_mins(15);
/// Longest wait for the host to remove the probe when the login ends.
const LOGOUT_LIMIT: Duration = Duration::from_secs(1);
/// Pause between two looks whether the login stands.
const LOGIN_POLL: Duration = Duration::from_millis(5);

/// A login that keeps a probe ready. When dropped, it removes the probe from the host and ends.
#[derive(Debug)]
pub struct Login {
    target: SshTarget,
    process: Mutex<ChildGuard>,
    /// Ends the standard input of the process when dropped.
    input: Option<Sender<()>>,
    /// Path of the probe on the host; an empty line if the probe could not be sent.
    sent: Mutex<Receiver<String>>,
    deadline: Instant,
    /// End of the process, where it came before the end of the login.
    ended: OnceLock<Result<(), ChildFailure>>,
    /// Path of the probe on the host, once that is known.
    program: OnceLock<Result<String, ChildFailure>>,
    socket: PathBuf,
    /// Program that libvirt runs in place of ssh.
    ssh: PathBuf,
    /// Holds the socket.
    _folder: SocketFolder,
}

impl Login {
    /// Begins to log in and to send the probe, for at most `limit`. None where a connection cannot be shared: with another
    /// program than ssh, or without a place for the socket.
    pub fn begin(target: &SshTarget, limit: Duration) -> Option<Self> {
        let folder = SocketFolder::make().ok()?;
        let socket = folder.socket("ssh", 3).filter(|_| target.program == "ssh")?;
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
        let ssh = folder.ssh_over(&socket, "").ok()?;
        Some(Self {
            target: target.clone(),
            input: feed(&mut process, content),
            sent: Mutex::new(first_line(process.child.stdout.take())),
            process: Mutex::new(process),
            deadline,
            ended: OnceLock::new(),
            program: OnceLock::new(),
            socket,
            ssh,
            _folder: folder,
        })
    }

    /// Program that takes the arguments of ssh and goes over this login, for others that would log in to the same place.
    /// Waits until the login stands; the error is ssh's reason for which it does not.
    pub fn ssh_program(&self) -> Result<&Path, String> {
        while !self.socket.exists() && Instant::now() < self.deadline {
            let ended = lock(&self.process).child.try_wait().is_ok_and(|ended| ended.is_some());
            match ended.then(|| self.end()) {
                Some(Err(ChildFailure::Failed { code: code::SSH, stderr })) => return Err(stderr),
                Some(_) => break,
                None => thread::sleep(LOGIN_POLL),
            }
        }
        Ok(&self.ssh)
    }

    /// Waits for the end of the connection, and returns the reason of a bad one.
    fn end(&self) -> Result<(), ChildFailure> {
        self.ended.get_or_init(|| lock(&self.process).end(self.deadline)).clone()
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
        let program = receive(&lock(&self.sent), self.deadline)?;
        if program.is_empty() {
            self.end()?;
        }
        Ok(program)
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        drop(self.input.take());
        // The result does not matter: nothing of the login is left here.
        let _ = lock(&self.process).end(Instant::now() + LOGOUT_LIMIT);
    }
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
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
