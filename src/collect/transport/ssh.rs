//! The probe over ssh, in one round trip: a shell on the host takes the probe's binary from its standard input into
//! a private folder, checks it, runs it and removes the folder, even when it fails or the connection breaks.

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

/// Names a probe binary in place of the usual ones.
pub(super) const PROBE_VARIABLE: &str = "VMGATE_PROBE";
/// The probe binary's name beside the running program.
pub(super) const PROBE_NAME: &str = "vmgate-probe";
/// Where a package puts it.
pub(super) const PACKAGED_PROBE: &str = "/usr/lib/vmgate/vmgate-probe";
/// A larger file is no probe.
const PROBE_LIMIT: u64 = 64 << 20;

/// Exit codes of the remote script, beside those of the probe and of ssh (255).
pub(super) mod code {
    pub(in super::super) const NO_FOLDER: i32 = 97;
    pub(in super::super) const BAD_COPY: i32 = 98;
    pub(in super::super) const NOT_FOUND: i32 = 127;
    pub(in super::super) const SSH: i32 = 255;
}

/// What a probe looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A hypervisor host.
    Host,
    /// A guest.
    Guest,
    /// UDP flows on interfaces of a hypervisor host.
    Flows,
    /// How a guest dirties its memory, from its hypervisor host.
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

    /// The missing_probe_cause where its probe does not run.
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
    /// The user there; none leaves it to ssh's configuration.
    pub user: Option<String>,
    /// The port; none leaves it to ssh's configuration.
    pub port: Option<u16>,
    /// The private key; none leaves it to ssh's configuration and agent.
    pub key_file: Option<String>,
    /// Whether an unknown host key is accepted, as the URI's `no_verify=1` says for libvirt.
    pub accept_any_host_key: bool,
    /// The ssh program.
    pub program: String,
}

impl SshTarget {
    /// As libvirt itself would log in for this URI.
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

    /// Runs a probe there and returns what it printed.
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

    /// ssh with everything that could ask a question switched off, and with more options.
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
        let no_probe = |why: String| Unknown::new(subject.missing_probe_cause(), format!("no probe on {self}: {why}"));
        match failure {
            ChildFailure::TimedOut => {
                Unknown::new(Cause::TimedOut, format!("the probe on {self} did not end in time"))
            }
            ChildFailure::Failed { code: code::NO_FOLDER, stderr } => {
                no_probe(format!("no private folder for it ({stderr})"))
            }
            ChildFailure::Failed { code: code::BAD_COPY, .. } => {
                no_probe("its copy did not arrive whole".to_owned())
            }
            ChildFailure::Failed { code: code::NOT_FOUND, .. } => no_probe(format!(
                "vmgate is not installed there, and there is no {PROBE_NAME} here to send \
                 (beside vmgate, at {PACKAGED_PROBE} or named by {PROBE_VARIABLE})"
            )),
            ChildFailure::Failed { code: code::SSH, stderr } => {
                no_probe(format!("ssh: {}", stderr.trim_start_matches("ssh: ")))
            }
            other => no_probe(other.to_string()),
        }
    }
}

/// `USER@HOST`, `USER@HOST:PORT`, or the same behind `ssh://`; without a user, ssh's configuration has the word.
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

/// Arguments of a probe, for a shell.
pub(super) fn line(subject: Subject, arguments: &[String]) -> String {
    format!("probe {} {}", subject.command(), quoted(arguments))
}

/// Words for a shell, each in single quotes.
pub fn quoted(words: &[String]) -> String {
    words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect::<Vec<_>>().join(" ")
}

/// The probe to send: a file here, and what it must be when it arrives.
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
            return Err(format!("{size} bytes are too much for a probe"));
        }
        let mut hash = Sha256::new();
        io::copy(&mut file, &mut hash).map_err(|error| error.to_string())?;
        let digest = hash.finalize().iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        Ok(Self { path: path.to_owned(), size, digest })
    }

    /// Its content, to be sent.
    pub(super) fn open(&self) -> Result<File, String> {
        File::open(&self.path).map_err(|error| format!("{}: {error}", self.path.display()))
    }

    /// The script that receives, checks, runs and removes the program, with these arguments. What follows the program on
    /// standard input is the program's.
    pub(super) fn receive_and_run_script(&self, arguments: &str) -> String {
        self.receive_script(&format!("\"$d/vmgate\" {arguments}"))
    }

    /// The script that receives and checks the program, runs a script that finds it at `$d/vmgate`, and removes it.
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

/// The probe to send; none where only the host's own vmgate is left to try.
///
/// It is looked for once, however many hosts and guests it goes to.
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
    fn a_host_that_looks_like_an_option_is_a_host() {
        let uri: Uri = "qemu+ssh://hv1/system".parse().unwrap();
        let target = SshTarget::for_uri(&uri, "-oProxyCommand=touch /tmp/owned");
        let command = target.command(Duration::from_secs(5), &[]);
        let arguments: Vec<_> = command.get_args().collect();
        assert_eq!(arguments[arguments.len() - 2], "--");
    }
}
