//! `vmgate hook`: makes a destination refuse migrations without a verdict, and shows what each host enforces.

mod hook_host;
#[cfg(feature = "libvirt")]
mod overrides;
mod permits;
#[cfg(feature = "libvirt")]
mod status;

#[cfg(feature = "libvirt")]
use std::path::{Path, PathBuf};
use std::{env, fs, io};

#[cfg(feature = "libvirt")]
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use serde::de::DeserializeOwned;
use vmgate_facts::{Uri, Uuid, text::plain};
#[cfg(feature = "libvirt")]
use vmgate_hook::{
    EnforcementMode, HookActivation, HookPlacement, InstallReport, InstallRequest, OnError, SignerKey,
};
use vmgate_hook::{Override, PROGRAM, RemovalReport, requests::HookRequest};
use vmgate_reach::Program;
use vmgate_verdict::ExitCode;

#[cfg(feature = "libvirt")]
use super::key_files;
use super::{Failure, options::GlobalOptions, output, session::Session};
use crate::cli::hook::hook_host::HookHost;
#[cfg(feature = "libvirt")]
pub(super) use crate::cli::hook::permits::DestinationPermits;
pub(super) use crate::cli::hook::permits::{WithdrawnPermits, push, signed, withdraw};

#[derive(Debug, Args)]
pub(super) struct Hook {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Install the hook on a host, which lets migrations in only with a signed verdict; run this again to update the hook
    #[cfg(feature = "libvirt")]
    #[command(visible_alias = "update")]
    Install {
        #[command(flatten)]
        host: HookHost,
        /// Public key, in PEM, that the host shall trust; may be repeated, and adds to the trusted keys of the host
        #[arg(long, value_name = "FILE")]
        key: Vec<PathBuf>,
        /// Refuse migrations without a verdict, or only log them [default: unchanged, enforce at the first install]
        #[arg(long, value_name = "MODE")]
        #[arg(value_parser = named::<EnforcementMode>(["enforce", "audit-only"]))]
        mode: Option<EnforcementMode>,
        /// Result where nothing can be decided: closed refuses, open admits [default: unchanged, closed at the first install]
        #[arg(long, value_name = "HOW")]
        #[arg(value_parser = named::<OnError>(["closed", "open"]))]
        on_error: Option<OnError>,
        /// Longest time for a decision, in seconds, from 0.1 to 60 [default: unchanged, 5 at the first install]
        #[arg(long, value_name = "SECONDS")]
        time_limit: Option<f64>,
        /// Make libvirt look for hooks again if needed; this reloads its daemon and restarts nothing
        #[arg(long)]
        reload: bool,
        /// Replace the single hook /etc/libvirt/hooks/qemu and call the previous one from there, as is always done for
        /// libvirt before 6.5
        #[arg(long)]
        chain: bool,
    },
    /// Remove the hook; other hooks stay unchanged
    Remove {
        #[command(flatten)]
        host: HookHost,
        /// Also remove settings, keys and verdicts; the log stays
        #[arg(long)]
        purge: bool,
    },
    /// Show what hosts enforce: version, mode, keys, and the last decisions
    #[cfg(feature = "libvirt")]
    Status(status::HookStatusCommand),
    /// In an emergency, let migrations in without a verdict for some minutes; this is logged
    Override {
        #[command(flatten)]
        host: HookHost,
        /// Reason of the override
        #[arg(long, value_name = "TEXT", required_unless_present = "withdraw")]
        reason: Option<String>,
        /// Person who answers for the override
        #[arg(long, value_name = "NAME", required_unless_present = "withdraw")]
        by: Option<String>,
        /// Duration in minutes, from 1 to 1440
        #[arg(long, value_name = "N", required_unless_present = "withdraw")]
        minutes: Option<u32>,
        /// Only for the VM with this UUID
        #[arg(long, value_name = "UUID")]
        vm: Option<Uuid>,
        /// End the present override
        #[arg(long, conflicts_with_all = ["reason", "minutes", "vm"])]
        withdraw: bool,
    },
}

impl Hook {
    pub(super) fn run(&self, shared: &GlobalOptions) -> Result<ExitCode, Failure> {
        let session = Session::open(shared)?;
        match &self.action {
            #[cfg(feature = "libvirt")]
            Action::Status(of) => of.run(&session),
            #[cfg(feature = "libvirt")]
            Action::Install { host, key, mode, on_error, time_limit, reload, chain } => {
                let host = &host.uri(&session)?;
                let (uuid, place) = hook_host::uuid_and_placement(host, &session)?;
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
                print_installation(host.host_for_people(), &installed)
            }
            Action::Remove { host, purge } => {
                let host = &host.uri(&session)?;
                let request = HookRequest::Remove { purge: *purge, by: operator() };
                let removed: RemovalReport = ask(&session, host, Program::Installed(PROGRAM), &request)?;
                output::to_stdout(|out| {
                    writeln!(
                        out,
                        "{}: the hook is removed ({})",
                        host.host_for_people(),
                        removed.changed.join(", ")
                    )?;
                    print_other_hooks(out, &removed.others)
                })?;
                Ok(ExitCode::Go)
            }
            Action::Override { host, withdraw: true, by, .. } => {
                let host = &host.uri(&session)?;
                let by = by.clone().unwrap_or_else(operator);
                let there: bool =
                    ask(&session, host, Program::Installed(PROGRAM), &HookRequest::Withdraw { by })?;
                let text = if there { "the override is withdrawn" } else { "there was no override" };
                output::to_stdout(|out| writeln!(out, "{}: {text}", host.host_for_people()))?;
                Ok(ExitCode::Go)
            }
            Action::Override { host, reason, by, minutes, vm, withdraw: false } => {
                let (Some(reason), Some(by), Some(minutes)) = (reason, by, minutes) else {
                    return Err(Failure::usage("an override needs --reason, --by and --minutes"));
                };
                let host = &host.uri(&session)?;
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
                    overrides::write_down(&session, host.host_for_people(), &status);
                }
                let whom = set.vm.as_ref().map_or_else(|| "every VM".to_owned(), |vm| format!("VM {vm}"));
                output::to_stdout(|out| {
                    writeln!(
                        out,
                        "{}: {whom} is let in without a verdict until {}; this is logged",
                        host.host_for_people(),
                        set.until
                    )
                })?;
                Ok(ExitCode::Go)
            }
        }
    }
}

/// Sends a request to vmgate on the host, and parses the answer.
fn ask<T: DeserializeOwned>(
    session: &Session,
    host: &Uri,
    program: Program,
    request: &HookRequest,
) -> Result<T, Failure> {
    let (shell, name) = (session.shell(host)?, host.host_for_people());
    hook_host::ask(&shell, name, program, request, session.timeout()).map_err(|why| why.into_failure(name))
}

#[cfg(feature = "libvirt")]
fn print_installation(host: &str, installed: &InstallReport) -> Result<ExitCode, Failure> {
    output::to_stdout(|out| {
        if installed.changed.is_empty() {
            writeln!(out, "{host}: the hook is installed, and nothing had to be changed")?;
        } else {
            writeln!(out, "{host}: the hook is installed ({})", installed.changed.join(", "))?;
        }
        print_other_hooks(out, &installed.others)?;
        match activation_text(&installed.known) {
            (true, text) => writeln!(out, "{host}: {text}"),
            (false, text) => writeln!(out, "{host}: NOT YET ENFORCED: {text}"),
        }
    })?;
    Ok(ExitCode::Go)
}

/// True if libvirt runs the hook, and the state in words.
#[cfg(feature = "libvirt")]
fn activation_text(known: &HookActivation) -> (bool, String) {
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
                "libvirt looks for hooks only when it starts or reloads, and there was none before. Run on the host: {command} (or \
                 install again with --reload); this stops no VM"
            ),
        ),
    }
}

fn print_other_hooks(out: &mut dyn io::Write, others: &[String]) -> io::Result<()> {
    if others.is_empty() {
        return Ok(());
    }
    writeln!(out, "other hooks on the host keep working: {}", others.join(", "))
}

#[cfg(feature = "libvirt")]
fn signer_key(file: &Path) -> Result<SignerKey, Failure> {
    let pem = key_files::public_text(file)?;
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    Ok(SignerKey { name: format!("{stem}.pem"), pem })
}

/// User and machine that run vmgate, from the environment.
pub(super) fn operator() -> String {
    let named = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let user = named("SUDO_USER").or_else(|| named("USER")).or_else(|| named("LOGNAME"));
    let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    plain(&format!("{}@{}", user.as_deref().unwrap_or("somebody"), machine.trim()))
}

/// Parser of an enum's names, which help and errors list.
#[cfg(feature = "libvirt")]
fn named<T>(names: [&'static str; 2]) -> impl TypedValueParser<Value = T>
where
    T: DeserializeOwned + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(names).try_map(|name| serde_json::from_value(name.into()))
}
