//! Runs of the probe over ssh, in one round trip: a shell on the host reads the probe's binary from standard input into a
//! private folder, checks it, runs it and removes the folder, even when the probe fails or the connection breaks.

use std::{
    env,
    ffi::OsStr,
    fmt::{self, Write as _},
    fs::File,
    io,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
    sync::OnceLock,
    time::Duration,
};

use sha2::{Digest, Sha256};

use super::{ChildFailure, Output, run};
use crate::{
    collect::{InvalidUri, Uri},
    fact::{Cause, Unknown},
};

/// Environment variable with the path of a probe binary, which replaces the usual paths.
pub(super) const PROBE_VARIABLE: &str = "VMGATE_PROBE";
/// Name of the probe binary in the folder of the running program.
pub(super) const PROBE_NAME: &str = "vmgate-probe";
/// Path of the probe binary in packages.
pub(super) const PACKAGED_PROBE: &str = "/usr/lib/vmgate/vmgate-probe";
/// Largest probe binary, in bytes.
const PROBE_LIMIT: u64 = 64 << 20;

/// Exit codes of the remote script, beside those of the probe and of ssh (255).
pub(super) mod code {
    pub(in super::super) const NO_FOLDER: i32 = 97;
    pub(in super::super) const BAD_COPY: i32 = 98;
    pub(in super::super) const NOT_FOUND: i32 = 127;
    pub(in super::super) const SSH: i32 = 255;
}

/// Subject of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A hypervisor host.
    Host,
    /// A guest.
    Guest,
    /// UDP flows on interfaces of a hypervisor host.
    Flows,
    /// Dirtying of a guest's memory, traced on its hypervisor host.
    Trace,
}

impl Subject {
    /// The subcommand of `vmgate probe`.
    pub(super) fn command(self) -> &'static str {
        match self {
            Self::Host | Self::Trace => "host",
            Self::Guest => "guest",
            Self::Flows => "flows",
        }
    }

    /// Cause of the unknown facts if this probe does not run.
    pub(super) fn missing_probe_cause(self) -> Cause {
        match self {
            Self::Host | Self::Flows | Self::Trace => Cause::NoHostProbe,
            Self::Guest => Cause::NoGuestProbe,
        }
    }
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
    /// Login that libvirt itself would use for this URI.
    pub fn for_uri(uri: &Uri, host: &str) -> Self {
        let over_ssh = matches!(uri.transport.as_deref(), Some("ssh" | "libssh" | "libssh2"));
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

    /// Runs a probe on the host and returns its output.
    pub(super) fn run_probe(
        &self,
        subject: Subject,
        arguments: &[String],
        limit: Duration,
        most: usize,
    ) -> Result<Output, Unknown> {
        let binary = probe_binary().map_err(|why| Unknown::new(subject.missing_probe_cause(), why))?;
        let mut command = self.command(limit, &[]);
        let output = if let Some(binary) = binary {
            command.arg(binary.receive_and_run_script(&format!("{} </dev/null", line(subject, arguments))));
            let file = binary.open().map_err(|why| Unknown::new(subject.missing_probe_cause(), why))?;
            run(command, file, limit, most)
        } else {
            command.arg(format!("exec vmgate {}", line(subject, arguments)));
            run(command, io::empty(), limit, most)
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
            ChildFailure::Failed { code: code::NOT_FOUND, .. } => no_probe(format!(
                "this machine has no {PROBE_NAME} to send, and vmgate is not installed on that machine: put {PROBE_NAME} beside \
                 vmgate or at {PACKAGED_PROBE}, name its path in {PROBE_VARIABLE}, or install vmgate on that machine"
            )),
            ChildFailure::Failed { code: code::SSH, stderr } => {
                no_probe(ssh_failure(&stderr))
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
        "install a key that logs in without a prompt (ssh-copy-id), or name one with ?keyfile=PATH in the URI"
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

/// Parses `USER@HOST` or `USER@HOST:PORT`, with or without `ssh://`; without a user, ssh's configuration decides.
impl FromStr for SshTarget {
    type Err = InvalidUri;

    fn from_str(text: &str) -> Result<Self, InvalidUri> {
        let place = text.strip_prefix("ssh://").unwrap_or(text).trim_end_matches('/');
        let uri: Uri = format!("qemu+ssh://{place}").parse()?;
        match &uri.host {
            Some(host) if uri.path.is_empty() => Ok(Self::for_uri(&uri, host)),
            _ => Err(InvalidUri::NotAUri(text.to_owned())),
        }
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

/// Arguments of a probe, quoted for a shell.
pub(super) fn line(subject: Subject, arguments: &[String]) -> String {
    format!("probe {} {}", subject.command(), quoted(arguments))
}

/// Quotes words for a shell, each in single quotes.
pub fn quoted(words: &[String]) -> String {
    words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect::<Vec<_>>().join(" ")
}

/// Probe binary to send: a local file, with the size and the digest that the host checks.
pub(super) struct ProbeBinary {
    path: PathBuf,
    size: u64,
    digest: String,
}

impl ProbeBinary {
    fn read(path: &Path) -> Result<Self, String> {
        let mut file = File::open(path).map_err(|error| error.to_string())?;
        let size = file.metadata().map_err(|error| error.to_string())?.len();
        if size > PROBE_LIMIT {
            return Err(format!(
                "a file of {size} bytes is too large for a probe (limit: {} MiB)",
                PROBE_LIMIT >> 20
            ));
        }
        let mut hash = Sha256::new();
        io::copy(&mut file, &mut hash).map_err(|error| error.to_string())?;
        let digest = hash.finalize().iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        Ok(Self { path: path.to_owned(), size, digest })
    }

    /// Opens the file, to send its content.
    pub(super) fn open(&self) -> Result<File, String> {
        File::open(&self.path).map_err(|error| format!("{}: {error}", self.path.display()))
    }

    /// Script that receives, checks, runs and removes the program, with these arguments. The rest of standard input is
    /// left for the program.
    pub(super) fn receive_and_run_script(&self, arguments: &str) -> String {
        self.receive_script(&format!("\"$d/vmgate\" {arguments}"))
    }

    /// Script that receives and checks the program, runs a script that finds the program at `$d/vmgate`, and removes it.
    pub(super) fn receive_script(&self, script: &str) -> String {
        format!(
            "umask 077; d=$(mktemp -d) || exit {no_folder}; trap 'rm -rf \"$d\"' EXIT; trap 'exit 1' HUP INT TERM PIPE; \
             head -c {size} >\"$d/vmgate\" && echo '{digest}  '\"$d/vmgate\" | sha256sum -c >/dev/null 2>&1 \
             || exit {bad_copy}; chmod 700 \"$d/vmgate\" && {script}",
            no_folder = code::NO_FOLDER,
            bad_copy = code::BAD_COPY,
            size = self.size,
            digest = self.digest,
        )
    }
}

/// Finds the probe binary to send; none where only the host's own vmgate is left to try.
///
/// The search runs once, for all hosts and guests.
pub(super) fn probe_binary() -> Result<Option<&'static ProbeBinary>, String> {
    static BINARY: OnceLock<Result<Option<ProbeBinary>, String>> = OnceLock::new();
    BINARY.get_or_init(find_probe_binary).as_ref().map(Option::as_ref).map_err(Clone::clone)
}

fn find_probe_binary() -> Result<Option<ProbeBinary>, String> {
    if let Some(named) = env::var_os(PROBE_VARIABLE) {
        let path = PathBuf::from(named);
        return ProbeBinary::read(&path)
            .map(Some)
            .map_err(|why| format!("{PROBE_VARIABLE} names {}: {why}", path.display()));
    }
    let beside = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(PROBE_NAME)));
    let places = beside.into_iter().chain([PathBuf::from(PACKAGED_PROBE)]);
    Ok(places.into_iter().find_map(|path| ProbeBinary::read(&path).ok()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_copy_is_private_checked_run_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let program = b"#!/bin/sh\nstat -c %a \"$(dirname \"$0\")\" \"$0\"; echo \"$@\"\n";
        let place = tempfile::NamedTempFile::new().unwrap();
        fs::write(place.path(), program).unwrap();
        let binary = ProbeBinary::read(place.path()).unwrap();
        let shell = |input: &'static [u8]| {
            let mut command = Command::new("/bin/sh");
            command
                .env("TMPDIR", folder.path())
                .arg("-c")
                .arg(binary.receive_and_run_script(&line(Subject::Host, &["--vm".into(), "it's".into()])));
            run(command, input, Duration::from_secs(20), 1000)
        };
        let output = shell(program).unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "700\n700\nprobe host --vm it's\n");
        let failure =
            shell(b"#!/bin/sh\necho evil; exit 0 \n                                      ").unwrap_err();
        assert!(matches!(failure, ChildFailure::Failed { code: code::BAD_COPY, .. }), "{failure}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
    }

    #[test]
    fn a_target_is_written_with_or_without_its_scheme() {
        for text in ["ssh://ops@web1:2222", "ops@web1:2222", "ssh://ops@web1:2222/"] {
            let target: SshTarget = text.parse().unwrap();
            assert_eq!(target.to_string(), "ops@web1:2222");
        }
        let keyed: SshTarget = "ssh://web1?keyfile=/k".parse().unwrap();
        assert_eq!((keyed.user, keyed.key_file.as_deref()), (None, Some("/k")));
        for text in ["", "ssh://", "root@web1/etc", "root:secret@web1", "web1:port", "we b1"] {
            assert!(text.parse::<SshTarget>().is_err(), "{text}");
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
    fn a_host_that_looks_like_an_option_is_a_host() {
        let uri: Uri = "qemu+ssh://hv1/system".parse().unwrap();
        let target = SshTarget::for_uri(&uri, "-oProxyCommand=touch /tmp/owned");
        let command = target.command(Duration::from_secs(5), &[]);
        let arguments: Vec<_> = command.get_args().collect();
        assert_eq!(arguments[arguments.len() - 2], "--");
    }
}
