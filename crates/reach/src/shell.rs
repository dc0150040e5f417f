//! Runs of vmgate's static program that change a host: over ssh, by a command of the user, or locally.
//!
//! A lasting run goes on until its caller ends it, or is gone: the end of the program's standard input is the end of its task.
//!
//! The program is sent, checked, run and removed like a probe, or is the one that is installed on the host. It gets its
//! task on standard input, never on a command line.

use std::{
    io::{self, Cursor, Read},
    process::Command,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use thiserror::Error;
use vmgate_facts::Uri;
use vmgate_process::{ChildFailure, run};

use super::{
    SharedLogin, SshTarget,
    on_host::{self, OnHostProgram, on_host_program},
    ssh::{code, quoted, ssh_failure},
};

/// Most bytes of an answer.
const ANSWER_LIMIT: usize = 8 << 20;
/// Exit code of the script if the program is not installed.
const NOT_INSTALLED: i32 = 96;

/// Access to a shell on a host.
#[derive(Debug, Clone)]
pub enum HostShell {
    /// The host is this machine.
    Local,
    /// Over ssh.
    Ssh(SshTarget),
    /// Over a login that others have made, or else one of its own.
    SharedLogin(Arc<SharedLogin>),
    /// A command that takes a script as its last argument.
    Command(Vec<String>),
}

/// Program to run on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// The static program of this machine, sent for this run only.
    Sent,
    /// The program that is installed on the host, at this path.
    Installed(&'static str),
}

/// Error of a run on a host.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ShellError {
    /// The program is not installed on the host.
    #[error("vmgate is not installed on the host")]
    NotInstalled,
    /// The host could not be reached, or the program could not run.
    #[error("{0}")]
    Unreachable(String),
    /// The program ran and refused.
    #[error("{0}")]
    Refused(String),
}

impl HostShell {
    /// The access for a libvirt URI: ssh to its host, or local without a host.
    pub fn for_uri(uri: &Uri) -> Self {
        match &uri.host {
            None => Self::Local,
            Some(host) => Self::Ssh(SshTarget::for_uri(uri, host)),
        }
    }

    /// Runs the program with these arguments and `input` on its standard input, for at most `limit`.
    pub fn run(
        &self,
        program: Program,
        arguments: &[String],
        input: &[u8],
        limit: Duration,
    ) -> Result<Vec<u8>, ShellError> {
        let arguments = quoted(arguments);
        let input = Cursor::new(input.to_vec());
        let answer = match program {
            Program::Installed(path) => {
                let script = format!("[ -x {path} ] || exit {NOT_INSTALLED}; exec {path} {arguments}");
                self.script(&script, input, limit)
            }
            Program::Sent => {
                let program = to_send().map_err(ShellError::Unreachable)?;
                self.script(&program.pushed(&arguments), program.bytes().chain(input), limit)
            }
        };
        answer.map_err(explain)
    }

    /// Starts the static program of this machine there, with a task on its standard input that lasts until
    /// [`LastingRun::end`], or for at most `limit`.
    pub fn start(self, arguments: &[String], task: &[u8], limit: Duration) -> LastingRun {
        let (open, held) = channel();
        let arguments = quoted(arguments);
        let task = Cursor::new(task.to_vec());
        let answer = thread::spawn(move || {
            let program = to_send().map_err(ShellError::Unreachable)?;
            let input = program.bytes().chain(task).chain(Held(held));
            self.script(&program.pushed(&arguments), input, limit).map_err(explain)
        });
        LastingRun { open, answer }
    }

    /// Runs a script that only reads, and returns its output.
    pub fn read(&self, script: &str, limit: Duration) -> Result<Vec<u8>, ShellError> {
        self.script(script, io::empty(), limit).map_err(explain)
    }

    fn script(
        &self,
        script: &str,
        input: impl Read + Send + 'static,
        limit: Duration,
    ) -> Result<Vec<u8>, ChildFailure> {
        let mut kept = None;
        let mut command = match self {
            Self::Local => {
                let mut command = Command::new("/bin/sh");
                command.arg("-c");
                command
            }
            Self::Ssh(target) => target.command(limit, &[]),
            Self::SharedLogin(shared) => {
                let (command, login) = shared.command(limit)?;
                kept = login;
                command
            }
            Self::Command(words) => {
                let (program, rest) = words
                    .split_first()
                    .ok_or_else(|| ChildFailure::NotStarted("the command is empty".to_owned()))?;
                let mut command = Command::new(program);
                command.args(rest);
                command
            }
        };
        command.arg(script);
        let output = run(command, input, limit, ANSWER_LIMIT);
        drop(kept);
        output.map(|output| output.stdout)
    }
}

/// Run of the static program on a host that lasts until it is ended, or this process is.
#[derive(Debug)]
pub struct LastingRun {
    open: Sender<()>,
    answer: JoinHandle<Result<Vec<u8>, ShellError>>,
}

impl LastingRun {
    /// True if the program has ended by itself.
    pub fn is_finished(&self) -> bool {
        self.answer.is_finished()
    }

    /// Ends the program's task, and waits for its answer.
    pub fn end(self) -> Result<Vec<u8>, ShellError> {
        drop(self.open);
        let lost = || ShellError::Unreachable("the thread that waited for the answer is gone".to_owned());
        self.answer.join().unwrap_or_else(|_| Err(lost()))
    }
}

/// Input without bytes, which ends when the other end of the channel is dropped.
struct Held(Receiver<()>);

impl Read for Held {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        while self.0.recv().is_ok() {}
        Ok(0)
    }
}

/// The static program; without it nothing can be sent.
fn to_send() -> Result<&'static OnHostProgram, String> {
    on_host_program()?.ok_or_else(|| {
        format!(
            "this machine has no {} to send to the host: put this file beside vmgate or at {}, or name its path in {}",
            on_host::NAME,
            on_host::PACKAGED,
            on_host::VARIABLE
        )
    })
}

fn explain(failure: ChildFailure) -> ShellError {
    match failure {
        ChildFailure::Failed { code: NOT_INSTALLED, .. } => ShellError::NotInstalled,
        ChildFailure::Failed { code: code::SSH, stderr } => {
            ShellError::Unreachable(ssh_failure(&stderr))
        }
        ChildFailure::Failed { code: code::NO_FOLDER, stderr } => {
            ShellError::Unreachable(format!("mktemp could not make a private folder on the host ({stderr}): make /tmp, or the folder in TMPDIR, writable there"))
        }
        ChildFailure::Failed { code: code::BAD_COPY, .. } => {
            ShellError::Unreachable("the copy of the program arrived damaged: check the free space of /tmp on the host, and that head and sha256sum are installed there".to_owned())
        }
        ChildFailure::Failed { code: code::NO_GZIP, .. } => ShellError::Unreachable(
            "gzip is not installed there, which unpacks the program: install gzip".to_owned(),
        ),
        ChildFailure::Failed { code: code::NOT_FOUND, stderr } => ShellError::Unreachable(stderr),
        ChildFailure::Failed { stderr, .. } => {
            ShellError::Refused(stderr.trim_start_matches("vmgate: ").to_owned())
        }
        other => ShellError::Unreachable(format!("the program on the host {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(20);

    #[test]
    fn an_installed_program_gets_its_arguments_and_its_input() {
        let words = ["-c".to_owned(), "cat; echo \"$0\"".to_owned(), "it's".to_owned()];
        for shell in [HostShell::Local, HostShell::Command(vec!["sh".into(), "-c".into()])] {
            let said = shell.run(Program::Installed("/bin/sh"), &words, b"in\n", TIME).unwrap();
            assert_eq!(String::from_utf8_lossy(&said), "in\nit's\n");
        }
    }

    #[test]
    fn input_that_is_held_ends_with_its_holder() {
        let (open, held) = channel::<()>();
        let reader = thread::spawn(move || Held(held).read(&mut [0; 4]));
        assert!(!reader.is_finished());
        drop(open);
        assert_eq!(reader.join().unwrap().unwrap(), 0);
    }

    #[test]
    fn a_missing_program_is_told_from_one_that_refuses() {
        let ask = |path, words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            HostShell::Local.run(Program::Installed(path), &words, b"", TIME).unwrap_err()
        };
        assert_eq!(ask("/no/such/program", &[]), ShellError::NotInstalled);
        let refused = ask("/bin/sh", &["-c", "echo 'vmgate: no key' >&2; exit 2"]);
        assert_eq!(refused, ShellError::Refused("no key".into()));
        let empty = HostShell::Command(vec![]).read("true", TIME).unwrap_err();
        assert!(matches!(empty, ShellError::Unreachable(_)));
    }
}
