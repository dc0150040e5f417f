//! vmgate's static program run on a host for what changes it: over ssh, by a command of the user's, or here.
//!
//! The program is sent, checked, run and removed as a probe is, or is the one that was installed there. What it is to
//! do comes on its standard input, and never stands on a command line.

use std::{
    io::{self, Cursor, Read},
    process::Command,
    time::Duration,
};

use thiserror::Error;

use super::{
    ChildFailure, SshTarget, run,
    ssh::{self, code},
};
use crate::collect::Uri;

/// Most bytes of an answer.
const ANSWER_LIMIT: usize = 8 << 20;
/// The script's exit code where the program is not installed.
const NOT_INSTALLED: i32 = 96;

/// A way to a shell on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostShell {
    /// The host is this machine.
    Local,
    /// Over ssh.
    Ssh(SshTarget),
    /// A command that takes a script as its last argument.
    Command(Vec<String>),
}

/// Which program is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// The one beside this one, sent there for this once.
    Sent,
    /// The one that is installed there, at this path.
    Installed(&'static str),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ShellError {
    /// There is no such program on the host.
    #[error("it is not installed there")]
    NotInstalled,
    /// The host could not be reached, or the program not run.
    #[error("{0}")]
    Unreachable(String),
    /// The program ran and refused.
    #[error("{0}")]
    Refused(String),
}

impl HostShell {
    /// The way that a libvirt URI suggests.
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
        let arguments = ssh::quoted(arguments);
        let input = Cursor::new(input.to_vec());
        let answer = match program {
            Program::Installed(path) => {
                let script = format!("[ -x {path} ] || exit {NOT_INSTALLED}; exec {path} {arguments}");
                self.script(&script, input, limit)
            }
            Program::Sent => {
                let binary = to_send().map_err(ShellError::Unreachable)?;
                let file = binary.open().map_err(ShellError::Unreachable)?;
                self.script(&binary.receive_and_run_script(&arguments), file.chain(input), limit)
            }
        };
        answer.map_err(explain)
    }

    /// Runs a script that only reads, and gives what it prints.
    pub fn read(&self, script: &str, limit: Duration) -> Result<Vec<u8>, ShellError> {
        self.script(script, io::empty(), limit).map_err(explain)
    }

    fn script(
        &self,
        script: &str,
        input: impl Read + Send + 'static,
        limit: Duration,
    ) -> Result<Vec<u8>, ChildFailure> {
        let mut command = match self {
            Self::Local => {
                let mut command = Command::new("/bin/sh");
                command.arg("-c");
                command
            }
            Self::Ssh(target) => target.command(limit, &[]),
            Self::Command(words) => {
                let (program, rest) =
                    words.split_first().ok_or_else(|| ChildFailure::NotStarted("it is empty".to_owned()))?;
                let mut command = Command::new(program);
                command.args(rest);
                command
            }
        };
        command.arg(script);
        run(command, input, limit, ANSWER_LIMIT).map(|output| output.stdout)
    }
}

/// The static program; without it nothing can be sent.
fn to_send() -> Result<&'static ssh::ProbeBinary, String> {
    ssh::probe_binary()?.ok_or_else(|| {
        format!(
            "there is no {} here to send: put it beside vmgate or at {}, or name it with {}",
            ssh::PROBE_NAME,
            ssh::PACKAGED_PROBE,
            ssh::PROBE_VARIABLE
        )
    })
}

fn explain(failure: ChildFailure) -> ShellError {
    match failure {
        ChildFailure::Failed { code: NOT_INSTALLED, .. } => ShellError::NotInstalled,
        ChildFailure::Failed { code: code::SSH, stderr } => {
            ShellError::Unreachable(format!("ssh: {}", stderr.trim_start_matches("ssh: ")))
        }
        ChildFailure::Failed { code: code::NO_FOLDER, stderr } => {
            ShellError::Unreachable(format!("no private folder for the program there ({stderr})"))
        }
        ChildFailure::Failed { code: code::BAD_COPY, .. } => {
            ShellError::Unreachable("the program's copy did not arrive whole".to_owned())
        }
        ChildFailure::Failed { code: code::NOT_FOUND, stderr } => ShellError::Unreachable(stderr),
        ChildFailure::Failed { stderr, .. } => {
            ShellError::Refused(stderr.trim_start_matches("vmgate: ").to_owned())
        }
        other => ShellError::Unreachable(format!("the program there: {other}")),
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
