//! `vmgate verdict`: signs a verdict so that it can be trusted elsewhere, and checks one that was signed.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use vmgate_attest::{CLOCK_SKEW, NoAuthority, Permit};
use vmgate_facts::text::{plain, with_causes};
use vmgate_hook::HookConfig;
use vmgate_verdict::{Decision, ExitCode, VALID_FOR, Verdict};

use super::{
    Failure,
    hook::{self, WithdrawnPermits},
    key_files,
    options::GlobalOptions,
    output,
    session::Session,
};
use crate::report;

#[derive(Debug, Args)]
pub(super) struct VerdictCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Sign a verdict, or each of a list: prints one DSSE envelope (in-toto Statement, Ed25519) per line
    Sign {
        /// Verdict, written by --output json or yaml
        file: PathBuf,
        /// Private key, PKCS#8 in PEM; if not given, the variable VMGATE_SIGNING_KEY holds the key
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Send a signed verdict to a destination with vmgate's hook, where it permits the VM to migrate in once
    Push {
        /// Destination: a libvirt URI, its name under `hosts` in vmgate.yaml, or [USER@]HOST[:PORT] for ssh
        host: String,
        /// Envelope, written by `verdict sign`
        file: PathBuf,
    },
    /// Withdraw verdicts that wait at a destination with vmgate's hook, so that they let no VM in any more
    Withdraw {
        /// Destination: a libvirt URI, its name under `hosts` in vmgate.yaml, or [USER@]HOST[:PORT] for ssh
        host: String,
        /// Digest of the verdict, as `verdict push` printed it
        #[arg(required_unless_present = "vm", conflicts_with = "vm")]
        verdict: Option<String>,
        /// All verdicts of the VM with this UUID
        #[arg(long, value_name = "UUID")]
        vm: Option<String>,
    },
    /// Verify an envelope, or one per line, and print the verdicts if a trusted key signed all of them
    Verify {
        /// Envelope, written by `verdict sign`
        file: PathBuf,
        /// Trusted public key, in PEM; may be repeated
        #[arg(long, value_name = "FILE", required = true)]
        key: Vec<PathBuf>,
        /// Also check what a host demands in this hook.yaml; its `keys` are named after the files given with --key
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
    },
}

impl VerdictCommand {
    pub(super) fn run(&self, shared: &GlobalOptions) -> Result<ExitCode, Failure> {
        match &self.action {
            Action::Push { host, file } => push(host, file, shared),
            Action::Withdraw { host, verdict, vm } => {
                withdraw(host, verdict.as_deref(), vm.as_deref(), shared)
            }
            Action::Sign { file, key } => sign(file, key.as_deref()),
            Action::Verify { file, key, policy } => verify(file, key, policy.as_deref()),
        }
    }
}

fn sign(file: &Path, key: Option<&Path>) -> Result<ExitCode, Failure> {
    let verdicts =
        vmgate_verdict::read(&file.display().to_string(), read(file)?.as_bytes()).map_err(Failure::usage)?;
    if verdicts.is_empty() {
        return Err(Failure::usage(format!(
            "{}: holds no verdict to sign: check a move first",
            file.display()
        )));
    }
    let key = key_files::signing_key(key)?;
    let now = Timestamp::now();
    let sign = |verdict: &Verdict| {
        match (verdict.check_authority(now), verdict.decision) {
            // A NO-GO without facts permits nothing; it is a record all the same.
            (Ok(()), _) | (Err(NoAuthority::StaleFacts { .. }), Decision::NoGo(_)) => {
                hook::signed(verdict, &key)
            }
            (Err(why), _) => Err(Failure::usage(format!(
                "{}: not signed: {}: {why}",
                file.display(),
                verdict.moved.vm.label()
            ))),
        }
    };
    let envelopes = verdicts.iter().map(sign).collect::<Result<Vec<_>, _>>()?;
    output::to_stdout(|out| envelopes.iter().try_for_each(|envelope| writeln!(out, "{envelope}")))?;
    Ok(ExitCode::Go)
}

fn verify(file: &Path, keys: &[PathBuf], policy: Option<&Path>) -> Result<ExitCode, Failure> {
    let trusted = keys.iter().map(|file| key_files::public_key(file)).collect::<Result<Vec<_>, _>>()?;
    let policy = policy.map(read_policy).transpose()?;
    let text = read(file)?;
    let refused = |why: &dyn std::fmt::Display| Failure::usage(format!("{}: {why}", file.display()));
    let mut verdicts = Vec::new();
    for envelope in envelopes(&text) {
        let bytes = envelope.as_bytes();
        let attested =
            vmgate_attest::verify(bytes, &trusted).map_err(|error| refused(&with_causes(&error)))?;
        if let Some(policy) = &policy {
            let permit =
                vmgate_attest::verify(bytes, &trusted).map_err(|error| refused(&with_causes(&error)))?;
            let signer = keys.iter().zip(&trusted).find(|(_, key)| key.id() == permit.key_id);
            let name = signer.and_then(|(file, _)| file.file_name()).unwrap_or_default().to_string_lossy();
            policy.check(&permit, &name, Timestamp::now()).map_err(|why| refused(&why))?;
        }
        verdicts.push(attested.verdict);
    }
    output::to_stdout(|out| report::verdicts(&verdicts, out))?;
    Ok(ExitCode::Go)
}

/// Settings of a host, from a copy of its hook.yaml.
fn read_policy(file: &Path) -> Result<HookConfig, Failure> {
    HookConfig::parse(&key_files::public_text(file)?)
        .map_err(|why| Failure::usage(format!("{}: {why}", file.display())))
}

/// Envelopes in a text: one per line, as `sign` writes them, or one over several lines, as other tools do.
fn envelopes(text: &str) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let whole = |line: &&str| line.starts_with('{') && line.ends_with('}');
    if !lines.is_empty() && lines.iter().all(whole) { lines } else { vec![text] }
}

fn push(host: &str, file: &Path, shared: &GlobalOptions) -> Result<ExitCode, Failure> {
    let session = Session::open(shared)?;
    let uri = session.host_named(host)?;
    let name = uri.host_for_people();
    let envelope = read(file)?;
    let refused = |why: &dyn std::fmt::Display| {
        Failure::usage(format!("{}: not sent to {name}: {why}", file.display()))
    };
    // The hook decides, by its own clock and keys. Refused here first, because an older hook does not know of it.
    let permit: Permit =
        vmgate_attest::read_unverified(envelope.as_bytes()).map_err(|why| refused(&with_causes(&why)))?;
    permit.validity().check(Timestamp::now(), CLOCK_SKEW, VALID_FOR).map_err(|why| refused(&why))?;
    let received =
        hook::push(&session.shell(&uri)?, name, envelope, &session).map_err(|why| why.into_failure(name))?;
    if received.no_go {
        let cancelled = received.cancelled.len();
        output::to_stdout(|out| {
            writeln!(
                out,
                "{name}: {} may not migrate in; {cancelled} waiting verdicts are cancelled",
                received.vm
            )
        })?;
        return Ok(ExitCode::Go);
    }
    output::to_stdout(|out| {
        writeln!(
            out,
            "{name}: {} may migrate in once until {}, by verdict {}",
            received.vm, received.expires_at, received.verdict
        )
    })?;
    Ok(ExitCode::Go)
}

fn withdraw(
    host: &str,
    verdict: Option<&str>,
    vm: Option<&str>,
    shared: &GlobalOptions,
) -> Result<ExitCode, Failure> {
    let session = Session::open(shared)?;
    let uri = session.host_named(host)?;
    let name = uri.host_for_people();
    let which = match (verdict, vm) {
        (Some(digest), _) => WithdrawnPermits::One(digest),
        (None, Some(uuid)) => WithdrawnPermits::OfVm(uuid),
        (None, None) => return Err(Failure::usage("give the digest of a verdict, or --vm UUID")),
    };
    let withdrawn =
        hook::withdraw(&session.shell(&uri)?, name, which, &session).map_err(|why| why.into_failure(name))?;
    output::to_stdout(|out| {
        if withdrawn.is_empty() {
            writeln!(out, "{name}: no such verdict waits there; nothing was withdrawn")?;
        }
        withdrawn.iter().try_for_each(|digest| {
            writeln!(out, "{name}: the verdict {} is withdrawn and lets no VM in", plain(digest))
        })
    })?;
    Ok(ExitCode::Go)
}

fn read(file: &Path) -> Result<String, Failure> {
    String::from_utf8(output::bytes_of(file)?).map_err(|error| output::unreadable(file, &error.utf8_error()))
}
