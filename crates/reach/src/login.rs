//! One ssh login for several runs of a host's probe, over which the probe is sent once.
//!
//! The login is an ssh master connection. Its own session keeps the probe in a private folder until its standard input
//! ends: when the login is dropped, when vmgate ends in whatever way, and when the connection breaks. libvirt goes over the
//! same login, by a program that it runs in place of ssh.

use std::{
    ffi::OsStr,
    io::{self, BufRead, BufReader, Cursor, Read},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{ChildStdout, Command},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use vmgate_facts::Unknown;
use vmgate_process::{ChildFailure, ChildGuard, Output, receive, run};

use super::{
    Slots, SshTarget, Subject,
    on_host::{AS_ROOT, on_host_program},
    socket_folder::SocketFolder,
    ssh::{INSTALLED, code},
};

/// Longest name of the probe at the host (PATH_MAX).
const PROGRAM_NAME_LIMIT: u64 = 4096;
/// Time after which the host removes the probe by itself, if a network failure hid the end of the login.
const KEPT_FOR: Duration = Duration::from_mins(15);
/// Questions at the same time: sshd allows ten sessions a login (MaxSessions), of which libvirt and the probe's folder have some.
const MOST_QUESTIONS: usize = 6;
/// Time after which a host at which the login failed is tried again.
const FAILED_FOR: Duration = Duration::from_mins(1);
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
    began: Instant,
    deadline: Instant,
    /// End of the process, where it came before the end of the login.
    ended: OnceLock<Result<(), ChildFailure>>,
    /// Path of the probe on the host, once that is known.
    program: OnceLock<Result<String, ChildFailure>>,
    questions: Arc<Slots>,
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
        let began = Instant::now();
        let mut command = target.command(limit, &["-M".as_ref(), "-S".as_ref(), socket.as_os_str()]);
        // Not ended by Ctrl-C: a migration over it is first taken back. It ends with this process all the same.
        command.arg(script).process_group(0);
        let mut process = ChildGuard::start(command).ok()?;
        let ssh = folder.ssh_over(&socket, "").ok()?;
        Some(Self {
            target: target.clone(),
            input: feed(&mut process, content),
            sent: Mutex::new(first_line(process.child.stdout.take())),
            process: Mutex::new(process),
            began,
            deadline: began + limit,
            ended: OnceLock::new(),
            program: OnceLock::new(),
            questions: Slots::new(MOST_QUESTIONS),
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

    /// False once it has broken, some time after it failed, or when the host may soon remove the probe.
    fn is_usable(&self) -> bool {
        let has_ended = match self.process.try_lock() {
            Ok(mut process) => !matches!(process.child.try_wait(), Ok(None)),
            // Who holds it waits for the end of a login that failed.
            Err(_) => false,
        };
        let lasts = match self.program.get() {
            Some(Err(_)) => FAILED_FOR,
            None if has_ended => FAILED_FOR,
            Some(Ok(_)) if has_ended => Duration::ZERO,
            _ => KEPT_FOR / 2,
        };
        self.began.elapsed() < lasts
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
        let mut command = self.command(limit);
        command.arg(format!("exec {program}"));
        let _turn = self.questions.take();
        run(command, Cursor::new(question.to_vec()), limit, most).map_err(explained)
    }

    /// ssh over this login.
    fn command(&self, limit: Duration) -> Command {
        self.target.command(limit, &[OsStr::new("-S"), self.socket.as_os_str()])
    }

    fn wait_for_program(&self) -> Result<String, ChildFailure> {
        let program = receive(&lock(&self.sent), self.deadline)?;
        if program.is_empty() {
            self.end()?;
        }
        Ok(program)
    }
}

/// Login at a host for whoever needs one: begun on the first use, and again when it cannot be used any longer.
#[derive(Debug)]
pub struct SharedLogin {
    target: SshTarget,
    limit: Duration,
    current: Mutex<Option<Arc<Login>>>,
}

impl SharedLogin {
    /// A login there, which takes at most `limit`.
    pub fn new(target: SshTarget, limit: Duration) -> Self {
        Self { target, limit, current: Mutex::new(None) }
    }

    /// The login. None where a connection cannot be shared, as for [`Login::begin`].
    pub fn login(&self) -> Option<Arc<Login>> {
        let mut current = lock(&self.current);
        if !current.as_ref().is_some_and(|login| login.is_usable()) {
            *current = Login::begin(&self.target, self.limit).map(Arc::new);
        }
        current.clone()
    }

    /// ssh over the login if there is one by now, which must be kept meanwhile.
    pub(super) fn command(&self, limit: Duration) -> Result<(Command, Option<Arc<Login>>), ChildFailure> {
        let begun = lock(&self.current).clone().filter(|login| login.is_usable());
        let Some(login) = begun else { return Ok((self.target.command(limit, &[]), None)) };
        login.ssh_program().map_err(|stderr| ChildFailure::Failed { code: code::SSH, stderr })?;
        Ok((login.command(limit), Some(login)))
    }

    /// The host that it is at.
    pub fn target(&self) -> &SshTarget {
        &self.target
    }
}

/// Logins that all work of a command shares, one at each host. They end with this, at the same time.
#[derive(Debug, Default)]
pub struct Logins(Mutex<Vec<Arc<SharedLogin>>>);

impl Logins {
    /// The login there, which takes at most `limit`.
    pub fn at(&self, target: SshTarget, limit: Duration) -> Arc<SharedLogin> {
        let mut logins = lock(&self.0);
        if let Some(known) = logins.iter().find(|login| login.target == target) {
            return Arc::clone(known);
        }
        let login = Arc::new(SharedLogin::new(target, limit));
        logins.push(Arc::clone(&login));
        login
    }
}

impl Drop for Logins {
    fn drop(&mut self) {
        let logins = std::mem::take(&mut *lock(&self.0));
        thread::scope(|scope| {
            for login in logins {
                scope.spawn(move || drop(login));
            }
        });
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A login whose process is a shell that waits for the end of its input, or has ended.
    fn login(age: Duration, program: Option<Result<String, ChildFailure>>, has_ended: bool) -> Login {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", if has_ended { "exit 1" } else { "cat" }]);
        let mut process = ChildGuard::start(shell).unwrap();
        if has_ended {
            process.child.wait().unwrap();
        }
        let folder = SocketFolder::make().unwrap();
        let began = Instant::now().checked_sub(age).unwrap();
        Login {
            target: SshTarget::from_operator("root@hv1").unwrap(),
            input: feed(&mut process, Cursor::new(Vec::new())),
            sent: Mutex::new(channel().1),
            process: Mutex::new(process),
            began,
            deadline: began + Duration::from_secs(10),
            ended: OnceLock::new(),
            program: program.map_or_else(OnceLock::new, OnceLock::from),
            questions: Slots::new(MOST_QUESTIONS),
            socket: PathBuf::new(),
            ssh: PathBuf::new(),
            _folder: folder,
        }
    }

    #[test]
    fn a_login_is_used_until_it_breaks_or_the_host_may_remove_the_probe_and_a_failure_is_remembered() {
        let (new, minutes) = (Duration::ZERO, Duration::from_mins);
        let sent = || Some(Ok("/tmp/probe".to_owned()));
        let failed = || Some(Err(ChildFailure::TimedOut));
        for (what, login, usable) in [
            ("begun", login(new, None, false), true),
            ("seven minutes", login(minutes(7), sent(), false), true),
            ("eight minutes", login(minutes(8), sent(), false), false),
            ("broken", login(new, sent(), true), false),
            ("refused just now", login(new, None, true), true),
            ("refused two minutes ago", login(minutes(2), None, true), false),
            ("not sent just now", login(new, failed(), false), true),
            ("not sent two minutes ago", login(minutes(2), failed(), false), false),
        ] {
            assert_eq!(login.is_usable(), usable, "{what}");
        }
    }
}
