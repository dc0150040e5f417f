//! `vmgate verdict`: signs a verdict so that it can be trusted elsewhere, and checks one that was signed.

use std::{
    env,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use vmgate_attest::{PrivateKey, PublicKey};
use vmgate_facts::text::with_causes;
use vmgate_verdict::ExitCode;

use super::{
    Failure, hook,
    options::GlobalOptions,
    output,
    session::{KEY_VARIABLE, Session},
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
        /// Destination: a libvirt URI, or [USER@]HOST[:PORT] for ssh
        host: String,
        /// Envelope, written by `verdict sign`
        file: PathBuf,
    },
    /// Verify an envelope, or one per line, and print the verdicts if a trusted key signed all of them
    Verify {
        /// Envelope, written by `verdict sign`
        file: PathBuf,
        /// Trusted public key, in PEM; may be repeated
        #[arg(long, value_name = "FILE", required = true)]
        key: Vec<PathBuf>,
    },
}

impl VerdictCommand {
    pub(super) fn run(&self, shared: &GlobalOptions) -> Result<ExitCode, Failure> {
        match &self.action {
            Action::Push { host, file } => push(host, file, shared),
            Action::Sign { file, key } => sign(file, key.as_deref()),
            Action::Verify { file, key } => verify(file, key),
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
    let key = match key {
        Some(file) => PrivateKey::from_pem(&file.display().to_string(), &read(file)?),
        None => match env::var(KEY_VARIABLE) {
            Ok(pem) => PrivateKey::from_pem(KEY_VARIABLE, &pem),
            Err(_) => return Err(Failure::usage(format!("no key: give --key FILE or set {KEY_VARIABLE}"))),
        },
    }
    .map_err(Failure::usage)?;
    let mut envelopes = Vec::new();
    for verdict in &verdicts {
        let envelope =
            vmgate_attest::sign(verdict, &key).map_err(|error| Failure::failed(with_causes(&error)))?;
        envelopes.push(serde_json::to_string(&envelope).map_err(Failure::failed)?);
    }
    output::to_stdout(|out| envelopes.iter().try_for_each(|envelope| writeln!(out, "{envelope}")))?;
    Ok(ExitCode::Go)
}

fn verify(file: &Path, keys: &[PathBuf]) -> Result<ExitCode, Failure> {
    let key = |file: &PathBuf| {
        PublicKey::from_pem(&file.display().to_string(), &read(file)?).map_err(Failure::usage)
    };
    let trusted = keys.iter().map(key).collect::<Result<Vec<_>, _>>()?;
    let text = read(file)?;
    let verdicts = envelopes(&text).into_iter().map(|envelope| {
        let attested = vmgate_attest::verify(envelope.as_bytes(), &trusted)
            .map_err(|error| Failure::usage(format!("{}: {}", file.display(), with_causes(&error))))?;
        Ok(attested.verdict)
    });
    let verdicts = verdicts.collect::<Result<Vec<_>, Failure>>()?;
    output::to_stdout(|out| report::verdicts(&verdicts, out))?;
    Ok(ExitCode::Go)
}

/// Envelopes in a text: one per line, as `sign` writes them, or one over several lines, as other tools do.
fn envelopes(text: &str) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let whole = |line: &&str| line.starts_with('{') && line.ends_with('}');
    if !lines.is_empty() && lines.iter().all(whole) { lines } else { vec![text] }
}

fn push(host: &str, file: &Path, shared: &GlobalOptions) -> Result<ExitCode, Failure> {
    let session = Session::open(shared)?;
    let uri = hook::host_named(host)?;
    let name = uri.host_for_people();
    let received = hook::push_verdict(&session.shell(&uri)?, name, read(file)?, session.timeout())
        .map_err(|why| why.into_failure(name))?;
    output::to_stdout(|out| {
        writeln!(
            out,
            "{name}: {} may migrate in once until {}, by verdict {}",
            received.vm, received.expires_at, received.verdict
        )
    })?;
    Ok(ExitCode::Go)
}

fn read(file: &Path) -> Result<String, Failure> {
    String::from_utf8(output::bytes_of(file)?).map_err(|error| output::unreadable(file, &error.utf8_error()))
}
