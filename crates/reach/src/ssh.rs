//! Runs of the probe over ssh, in one round trip: a shell on the host reads the probe's binary from standard input into a
//! private folder, checks it, runs it and removes the folder, even when the probe fails or the connection breaks.

use std::{
    ffi::OsStr,
    fmt,
    io::{Cursor, Read},
    process::Command,
    time::Duration,
};

use vmgate_facts::{Cause, GuestAddress, InvalidUri, Unknown, Uri, text::shell_word};
use vmgate_process::{ChildFailure, Output, run};

use super::on_host::{NAME, PACKAGED, VARIABLE, on_host_program};

/// Command that answers a question where vmgate is installed.
pub(super) const INSTALLED: &str = "vmgate probe ask";

/// Exit codes of the remote script, beside those of the probe and of ssh (255).
pub(super) mod code {
    pub(crate) const NO_GZIP: i32 = 95;
    pub(crate) const NO_FOLDER: i32 = 97;
    pub(crate) const BAD_COPY: i32 = 98;
    pub(crate) const NOT_FOUND: i32 = 127;
    pub(crate) const SSH: i32 = 255;
}

/// Subject of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A hypervisor host.
    Host,
    /// A guest.
    Guest,
}

impl Subject {
    /// Cause of every fact that is unknown where its probe does not run.
    pub fn missing_probe_cause(self) -> Cause {
        match self {
            Self::Host => Cause::NoHostProbe,
            Self::Guest => Cause::NoGuestProbe,
        }
    }
}

/// Reason why a probe command of the user's brought nothing.
pub fn of_command(failure: &ChildFailure, subject: Subject, program: &str) -> Unknown {
    let cause =
        if *failure == ChildFailure::TimedOut { Cause::TimedOut } else { subject.missing_probe_cause() };
    Unknown::new(cause, format!("the probe command `{program}`: {failure}"))
}

/// A host to log in to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshTarget {
    /// The host's name or address.
    pub host: String,
    /// The user on the host; none leaves it to ssh's configuration.
    pub user: Option<String>,
    /// The port; none leaves it to ssh's configuration.
    pub port: Option<u16>,
    /// The private key; none leaves it to ssh's configuration and agent.
    pub key_file: Option<String>,
    /// True if an unknown host key is accepted, as the URI's `no_verify=1` does for libvirt.
    pub accept_any_host_key: bool,
    /// The ssh program.
    pub program: String,
}

impl SshTarget {
    /// Login that this URI names, or that libvirt itself would use for it.
    pub fn for_uri(uri: &Uri, host: &str) -> Self {
        let over_ssh =
            !uri.names_libvirt() || matches!(uri.transport.as_deref(), Some("ssh" | "libssh" | "libssh2"));
        let user = if over_ssh { uri.user.clone() } else { Some("root".to_owned()) };
        Self {
            host: host.to_owned(),
            user,
            port: uri.port.filter(|_| over_ssh),
            key_file: uri.parameter("keyfile").map(str::to_owned),
            accept_any_host_key: uri.parameter("no_verify") == Some("1"),
            program: uri.parameter("command").filter(|_| over_ssh).unwrap_or("ssh").to_owned(),
        }
    }

    /// Parses what an operator wrote, on the command line or in the site's configuration: `USER@HOST` or `USER@HOST:PORT`,
    /// with or without `ssh://`; without a user, ssh's configuration decides. It may name a program and a key.
    pub fn from_operator(text: &str) -> Result<Self, InvalidUri> {
        let place = text.strip_prefix("ssh://").unwrap_or(text).trim_end_matches('/');
        let uri = Uri::from_operator(&format!("qemu+ssh://{place}"))?;
        match &uri.host {
            Some(host) if uri.path.is_empty() => Ok(Self::for_uri(&uri, host)),
            _ => Err(InvalidUri::NotAUri(text.to_owned())),
        }
    }

    /// Runs the on-host program there, with the question on its standard input, and returns what it printed.
    pub fn ask(
        &self,
        subject: Subject,
        question: &[u8],
        limit: Duration,
        most: usize,
    ) -> Result<Output, Unknown> {
        let program = on_host_program().map_err(|why| Unknown::new(subject.missing_probe_cause(), why))?;
        let mut command = self.command(limit, &[]);
        let question = Cursor::new(question.to_vec());
        let output = if let Some(program) = program {
            command.arg(program.asked());
            run(command, program.bytes().chain(question), limit, most)
        } else {
            command.arg(format!("exec {INSTALLED}"));
            run(command, question, limit, most)
        };
        output.map_err(|failure| self.explain(subject, failure))
    }

    /// The ssh command with these options, and without any prompt.
    pub(super) fn command(&self, limit: Duration, options: &[&OsStr]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(options);
        command.args(["-T", "-x", "-a", "-o", "BatchMode=yes", "-o", "ClearAllForwardings=yes"]);
        command.arg("-o").arg(format!("ConnectTimeout={}", limit.as_secs().max(1)));
        command.args(["-o", "LogLevel=ERROR"]);
        if self.accept_any_host_key {
            command.args(["-o", "StrictHostKeyChecking=no"]);
        }
        if let Some(port) = self.port {
            command.arg("-p").arg(port.to_string());
        }
        if let Some(key) = &self.key_file {
            command.arg("-i").arg(key);
        }
        if let Some(user) = &self.user {
            command.arg("-l").arg(user);
        }
        // `--` so that a host that begins with a dash is not an option.
        command.arg("--").arg(&self.host);
        command
    }

    pub(super) fn explain(&self, subject: Subject, failure: ChildFailure) -> Unknown {
        let no_probe = |why: String| {
            Unknown::new(subject.missing_probe_cause(), format!("cannot run the probe on {self}: {why}"))
        };
        match failure {
            ChildFailure::TimedOut => {
                Unknown::new(Cause::TimedOut, format!("the probe on {self} did not finish within the time limit"))
            }
            ChildFailure::Failed { code: code::NO_FOLDER, stderr } => {
                no_probe(format!("mktemp could not make a private folder ({stderr}): make /tmp, or the folder in TMPDIR, writable"))
            }
            ChildFailure::Failed { code: code::BAD_COPY, .. } => {
                no_probe(
                    "the copy of the probe arrived damaged: check the free space of /tmp on that machine, and that head and \
                     sha256sum are installed"
                        .to_owned(),
                )
            }
            ChildFailure::Failed { code: code::NO_GZIP, .. } => {
                no_probe("gzip is not installed there, which unpacks it: install gzip".to_owned())
            }
            ChildFailure::Failed { code: code::NOT_FOUND, .. } => no_probe(format!(
                "this machine has no {NAME} to send, and vmgate is not installed on that machine: put {NAME} beside \
                 vmgate or at {PACKAGED}, name its path in {VARIABLE}, or install vmgate on that machine"
            )),
            ChildFailure::Failed { code: code::SSH, stderr } => {
                Unknown::new(Cause::NoLogin, format!("no login at {self}: {}", ssh_failure(&stderr)))
            }
            other => no_probe(format!("the program {other}")),
        }
    }
}

/// Message for a failure of ssh itself: its own words, and the way out.
pub(super) fn ssh_failure(stderr: &str) -> String {
    let words = stderr.trim_start_matches("ssh: ").trim_end_matches(['.', ' ']);
    let lower = words.to_ascii_lowercase();
    let says = |sign: &str| lower.contains(sign);
    let way_out = if says("host key verification failed") || says("identification has changed") {
        "compare the host's key, and log in once by hand to accept it"
    } else if says("permission denied") || says("too many authentication failures") {
        "install a key that logs in without a prompt (ssh-copy-id), or name one in ~/.ssh/config (IdentityFile)"
    } else if says("could not resolve hostname") || says("name or service not known") {
        "correct the host name, or add it to DNS or /etc/hosts"
    } else if says("connection refused") {
        "start sshd on the host, or correct the port"
    } else if says("timed out") || says("no route to host") || says("network is unreachable") {
        "check that the host is up, the network and its firewall"
    } else {
        "make a login by hand with ssh work without a prompt"
    };
    format!("ssh failed ({}): {way_out}", if words.is_empty() { "no message" } else { words })
}

/// The login at a guest that a document names: without programs, keys or options of its own.
impl From<&GuestAddress> for SshTarget {
    fn from(named: &GuestAddress) -> Self {
        Self::for_uri(named.uri(), named.uri().host_for_people())
    }
}

impl fmt::Display for SshTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        f.write_str(&self.host)?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// Words for a shell, each in single quotes.
pub fn quoted(words: &[String]) -> String {
    words.iter().map(|word| shell_word(word)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_written_with_or_without_its_scheme() {
        for text in ["ssh://ops@web1:2222", "ops@web1:2222", "ssh://ops@web1:2222/"] {
            let target = SshTarget::from_operator(text).unwrap();
            assert_eq!(target.to_string(), "ops@web1:2222");
        }
        let keyed = SshTarget::from_operator("ssh://web1?keyfile=/k").unwrap();
        assert_eq!((keyed.user, keyed.key_file.as_deref()), (None, Some("/k")));
        for text in ["", "ssh://", "root@web1/etc", "root:secret@web1", "web1:port", "we b1"] {
            assert!(SshTarget::from_operator(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_failed_login_names_the_cause_and_the_way_out() {
        for (stderr, way_out) in [
            ("root@hv1: Permission denied (publickey).", "ssh-copy-id"),
            ("Host key verification failed.", "log in once by hand"),
            ("ssh: Could not resolve hostname hv1: Name or service not known", "/etc/hosts"),
            ("ssh: connect to host hv1 port 22: Connection refused", "start sshd"),
            ("ssh: connect to host hv1 port 22: Connection timed out", "firewall"),
            ("", "without a prompt"),
        ] {
            let message = ssh_failure(stderr);
            assert!(message.starts_with("ssh failed (") && message.contains(way_out), "{message}");
        }
    }

    #[test]
    fn a_host_that_is_only_logged_in_to_keeps_its_user_and_port() {
        let uri = Uri::from_operator("ssh://ops@hv1:2222").unwrap();
        assert_eq!(SshTarget::for_uri(&uri, "hv1").to_string(), "ops@hv1:2222");
    }

    #[test]
    fn a_host_that_looks_like_an_option_is_a_host() {
        let uri = Uri::from_operator("qemu+ssh://hv1/system").unwrap();
        let target = SshTarget::for_uri(&uri, "-oProxyCommand=touch /tmp/owned");
        let command = target.command(Duration::from_secs(5), &[]);
        let arguments: Vec<_> = command.get_args().collect();
        assert_eq!(arguments[arguments.len() - 2], "--");
    }
}
