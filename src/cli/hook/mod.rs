//! `vmgate hook`: makes a destination refuse migrations without a verdict, and tells what each host enforces.

#[cfg(feature = "libvirt")]
mod overrides;
mod place;
#[cfg(feature = "libvirt")]
mod status;

#[cfg(feature = "libvirt")]
use std::path::{Path, PathBuf};
use std::{
    env, fs,
    io::{self, Read},
    time::Duration,
};

use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use serde::de::DeserializeOwned;
use std::str::FromStr;
use strum::VariantNames;

#[cfg(feature = "libvirt")]
use super::session::KEY_VARIABLE;
use super::{Failure, options::Shared, output, session::Session};
use crate::cli::hook::place::HookHost;
use vmgate_facts::Uri;
use vmgate_facts::text::plain;
use vmgate_facts::text::with_causes;
#[cfg(feature = "libvirt")]
use vmgate_hook::{InstallRequest, InstallReport, HookActivation, EnforcementMode, OnError, HookPlacement, SignerKey};
use vmgate_hook::{
    Override, PROGRAM, ReceivedVerdict, RemovalReport,
    requests::HookRequest,
};
use vmgate_reach::{HostShell, Program};
use vmgate_verdict::ExitCode;
use vmgate_verdict::Verdict;

#[cfg(feature = "libvirt")]
pub(super) use crate::cli::hook::place::uuid_of;
pub(super) use crate::cli::hook::place::{NotDone, host_named};

#[derive(Debug, Args)]
pub(super) struct Hook {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Let migrations into a host only with a signed verdict; run it again to update
    #[cfg(feature = "libvirt")]
    #[command(visible_alias = "update")]
    Install {
        #[command(flatten)]
        host: HookHost,
        /// Public key whose signatures the host is to trust, in PEM; may be repeated, and adds to those it trusts
        #[arg(long, value_name = "FILE")]
        key: Vec<PathBuf>,
        /// Refuse migrations without a verdict, or only write them down [default: as it is, at first enforce]
        #[arg(long, value_name = "MODE")]
        #[arg(value_parser = named::<EnforcementMode>())]
        mode: Option<EnforcementMode>,
        /// What happens where nothing can be decided [default: as it is, at first closed]
        #[arg(long, value_name = "HOW")]
        #[arg(value_parser = named::<OnError>())]
        on_error: Option<OnError>,
        /// Longest time for a decision, in seconds, from 0.1 to 60 [default: as it is, at first 5]
        #[arg(long, value_name = "SECONDS")]
        time_limit: Option<f64>,
        /// Make libvirt look for hooks again where it must; this reloads its daemon, and restarts nothing
        #[arg(long)]
        reload: bool,
        /// Stand in the place of the one hook /etc/libvirt/hooks/qemu and call the one that was there, as is done for
        /// libvirt before 6.5
        #[arg(long)]
        chain: bool,
    },
    /// Remove the hook; other hooks are left as they were
    Remove {
        #[command(flatten)]
        host: HookHost,
        /// Remove settings, keys and verdicts too; the log stays
        #[arg(long)]
        purge: bool,
    },
    /// Tell what hosts enforce: version, mode, keys, and the last decisions
    #[cfg(feature = "libvirt")]
    Status(status::StatusOf),
    /// In an emergency, let migrations in without a verdict for some minutes; it is logged
    Override {
        #[command(flatten)]
        host: HookHost,
        /// Why
        #[arg(long, value_name = "TEXT", required_unless_present = "withdraw")]
        reason: Option<String>,
        /// Who answers for it
        #[arg(long, value_name = "NAME", required_unless_present = "withdraw")]
        by: Option<String>,
        /// For how long, from 1 to 1440
        #[arg(long, value_name = "N", required_unless_present = "withdraw")]
        minutes: Option<u32>,
        /// Only for the VM with this UUID
        #[arg(long, value_name = "UUID")]
        vm: Option<String>,
        /// End the override that stands
        #[arg(long, conflicts_with_all = ["reason", "minutes", "vm"])]
        withdraw: bool,
    },
}

impl Hook {
    pub(super) fn run(&self, shared: &Shared) -> Result<ExitCode, Failure> {
        let session = Session::open(shared)?;
        match &self.what {
            #[cfg(feature = "libvirt")]
            What::Status(of) => of.run(&session),
            #[cfg(feature = "libvirt")]
            What::Install { host, key, mode, on_error, time_limit, reload, chain } => {
                let (uuid, place) = host.asked_of_libvirt(&session)?;
                let wanted = InstallRequest {
                    host_uuid: uuid,
                    place: if *chain { HookPlacement::Chained } else { place },
                    keys: key.iter().map(|file| signer_key(file)).collect::<Result<_, _>>()?,
                    mode: *mode,
                    on_error: *on_error,
                    time_limit_seconds: *time_limit,
                    reload: *reload,
                    by: operator(),
                };
                let installed: InstallReport =
                    ask(&session, host, Program::Sent, &HookRequest::Install(wanted))?;
                say_installed(&host.name(), &installed)
            }
            What::Remove { host, purge } => {
                let request = HookRequest::Remove { purge: *purge, by: operator() };
                let removed: RemovalReport = ask(&session, host, Program::Installed(PROGRAM), &request)?;
                output::to_stdout(|out| {
                    writeln!(out, "{}: the hook is removed ({})", host.name(), removed.changed.join(", "))?;
                    say_others(out, &removed.others)
                })?;
                Ok(ExitCode::Go)
            }
            What::Override { host, withdraw: true, by, .. } => {
                let by = by.clone().unwrap_or_else(operator);
                let there: bool =
                    ask(&session, host, Program::Installed(PROGRAM), &HookRequest::Withdraw { by })?;
                let text = if there { "the override is withdrawn" } else { "there was no override" };
                output::to_stdout(|out| writeln!(out, "{}: {text}", host.name()))?;
                Ok(ExitCode::Go)
            }
            What::Override { host, reason, by, minutes, vm, withdraw: false } => {
                let (Some(reason), Some(by), Some(minutes)) = (reason, by, minutes) else {
                    return Err(Failure::usage("an override needs --reason, --by and --minutes"));
                };
                let request = HookRequest::Override {
                    minutes: *minutes,
                    reason: reason.clone(),
                    by: by.clone(),
                    vm: vm.clone(),
                };
                let set: Override = ask(&session, host, Program::Installed(PROGRAM), &request)?;
                #[cfg(feature = "libvirt")]
                if let Ok(status) =
                    ask(&session, host, Program::Installed(PROGRAM), &HookRequest::Status { lines: 0 })
                {
                    overrides::write_down(&session, &host.name(), &status);
                }
                let whom =
                    set.vm.as_ref().map_or_else(|| "every VM".to_owned(), |vm| format!("VM {}", plain(vm)));
                output::to_stdout(|out| {
                    writeln!(
                        out,
                        "{}: {whom} is let in without a verdict until {}; it is logged",
                        host.name(),
                        set.until
                    )
                })?;
                Ok(ExitCode::Go)
            }
        }
    }
}

/// Asks the host's vmgate, and reads its answer.
fn ask<T: DeserializeOwned>(
    session: &Session,
    host: &HookHost,
    program: Program,
    request: &HookRequest,
) -> Result<T, Failure> {
    let shell = host.shell(session)?;
    place::ask(&shell, &host.name(), program, request, session.timeout())
        .map_err(|why| why.into_failure(&host.name()))
}

/// Brings a signed verdict to a host that demands it.
pub(super) fn bring(
    shell: &HostShell,
    host: &str,
    envelope: String,
    timeout: Duration,
) -> Result<ReceivedVerdict, NotDone> {
    let request = HookRequest::Receive { envelope, by: operator() };
    place::ask(shell, host, Program::Installed(PROGRAM), &request, timeout)
}

/// Signs vmgate's own verdict and brings it to a destination that demands it. Where that does not work it is only
/// warned of: the hook there has the last word, and a VM that it refuses stays where it runs.
#[cfg(feature = "libvirt")]
pub(super) fn bring_own(verdict: &Verdict, destination: &Uri, session: &Session) -> Result<(), Failure> {
    let host = destination.host_for_people();
    let shell = session.shell(destination)?;
    let demands = format!("[ -x {PROGRAM} ] && echo hook || echo none");
    match shell.read(&demands, session.timeout()) {
        Ok(answer) if answer.starts_with(b"hook") => {}
        Ok(_) => return Ok(()),
        Err(why) => {
            tracing::warn!("{host}: whether it demands a signed verdict is not known: {why}");
            return Ok(());
        }
    }
    let Some(key) = session.signing_key()? else {
        tracing::warn!(
            "{host} has vmgate's hook, and there is no key to sign the verdict with: set signing_key in vmgate.yaml or \
             {KEY_VARIABLE}; only a verdict that was pushed before lets the VM in"
        );
        return Ok(());
    };
    let envelope =
        vmgate_attest::sign(verdict, &key).map_err(|error| Failure::failed(with_causes(&error)))?;
    let envelope = serde_json::to_string(&envelope).map_err(Failure::failed)?;
    match bring(&shell, host, envelope, session.timeout()) {
        Ok(received) => tracing::info!("{host} has the signed verdict {}", received.verdict),
        Err(why) => tracing::warn!("{}; the hook there decides without it", why.into_failure(host).text),
    }
    Ok(())
}

#[cfg(feature = "libvirt")]
fn say_installed(host: &str, installed: &InstallReport) -> Result<ExitCode, Failure> {
    output::to_stdout(|out| {
        if installed.changed.is_empty() {
            writeln!(out, "{host}: the hook is installed, and nothing had to be changed")?;
        } else {
            writeln!(out, "{host}: the hook is installed ({})", installed.changed.join(", "))?;
        }
        say_others(out, &installed.others)?;
        match known_words(&installed.known) {
            (true, text) => writeln!(out, "{host}: {text}"),
            (false, text) => writeln!(out, "{host}: NOT YET ENFORCED: {text}"),
        }
    })?;
    Ok(ExitCode::Go)
}

/// Whether libvirt runs the hook, in words.
#[cfg(feature = "libvirt")]
fn known_words(known: &HookActivation) -> (bool, String) {
    match known {
        HookActivation::Active => {
            (true, "libvirt runs the hook from now on; no restart is needed".to_owned())
        }
        HookActivation::AtStart => {
            (true, "libvirt does not run, and will find the hook when it starts".to_owned())
        }
        HookActivation::AfterReload { command } => (
            false,
            format!(
                "libvirt looks for hooks when it starts or reloads, and none was there before. Run there: {command} (or \
                 install again with --reload); it stops no VM"
            ),
        ),
    }
}

fn say_others(out: &mut dyn io::Write, others: &[String]) -> io::Result<()> {
    if others.is_empty() {
        return Ok(());
    }
    writeln!(out, "other hooks there go on working: {}", others.join(", "))
}

#[cfg(feature = "libvirt")]
fn signer_key(file: &Path) -> Result<SignerKey, Failure> {
    let pem = fs::read_to_string(file)
        .map_err(|error| Failure::usage(format!("{}: cannot be read: {error}", file.display())))?;
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    Ok(SignerKey { name: format!("{stem}.pem"), pem })
}

/// Who runs vmgate, as far as the environment tells.
pub(super) fn operator() -> String {
    let named = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let user = named("SUDO_USER").or_else(|| named("USER")).or_else(|| named("LOGNAME"));
    let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    plain(&format!("{}@{}", user.as_deref().unwrap_or("somebody"), machine.trim()))
}

/// Reads one of an enum's names, which help and errors list.
fn named<T>() -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err = strum::ParseError> + VariantNames + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(T::VARIANTS).try_map(|name| name.parse::<T>())
}
