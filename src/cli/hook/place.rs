//! Which host is meant, and how its vmgate is asked.

use std::time::Duration;

use clap::Args;
use serde::de::DeserializeOwned;

use super::super::{Failure, session::Session};
use vmgate_facts::Uri;
use vmgate_facts::Version;
use vmgate_hook::HookPlacement;
use vmgate_hook::requests::HookRequest;
#[cfg(feature = "libvirt")]
use vmgate_libvirt::{Hypervisor, capabilities};
use vmgate_reach::{HostShell, Program, ShellError};

/// The first libvirt that runs every hook of a folder.
#[cfg(feature = "libvirt")]
const RUNS_FOLDERS: &str = "6.5.0";
/// Room for the program on its way, beside the time for an answer.
const SENDING: Duration = Duration::from_mins(1);

/// One host.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(in crate::cli) struct HookHost {
    /// The host: a libvirt URI, or [USER@]HOST[:PORT] for ssh
    host: Option<String>,
    /// This machine
    #[arg(long)]
    local: bool,
}

/// The URI of a host that was named with or without one.
pub(in crate::cli) fn host_named(text: &str) -> Result<Uri, Failure> {
    let uri = if text.contains("://") { text.to_owned() } else { format!("qemu+ssh://{text}/system") };
    uri.parse().map_err(|error| Failure::usage(format!("{text}: {error}")))
}

impl HookHost {
    /// What people call it.
    pub(super) fn name(&self) -> String {
        match self.uri() {
            Ok(uri) => uri.host_for_people().to_owned(),
            Err(_) => self.host.clone().unwrap_or_default(),
        }
    }

    fn uri(&self) -> Result<Uri, Failure> {
        host_named(self.host.as_deref().unwrap_or("qemu:///system"))
    }

    pub(super) fn shell(&self, session: &Session) -> Result<HostShell, Failure> {
        session.shell(&self.uri()?)
    }

    /// The host's UUID, and how a hook stands beside others in its libvirt.
    #[cfg(feature = "libvirt")]
    pub(super) fn asked_of_libvirt(&self, session: &Session) -> Result<(String, HookPlacement), Failure> {
        let host = Hypervisor::open(&self.uri()?, session.timeout()).map_err(Failure::failed)?;
        let uuid = uuid_of(&host).map_err(Failure::failed)?;
        let version = host.libvirt_version().map_err(Failure::failed)?;
        let folders = RUNS_FOLDERS.parse::<Version>().is_ok_and(|first| version >= first);
        Ok((uuid, if folders { HookPlacement::Folder } else { HookPlacement::Chained }))
    }
}

/// The host's UUID in its capabilities.
#[cfg(feature = "libvirt")]
pub(in crate::cli) fn uuid_of(host: &Hypervisor) -> Result<String, String> {
    let xml = host.capabilities_xml().map_err(|error| error.to_string())?;
    let uuid = capabilities::parse(&xml).ok().and_then(|capabilities| capabilities.uuid);
    uuid.ok_or_else(|| format!("libvirt on {} does not tell the host's UUID", host.name()))
}

/// Why a host's vmgate did not do what it was asked for.
#[derive(Debug)]
pub(in crate::cli) enum NotDone {
    /// The hook is not installed there.
    NoHook,
    /// It was not reached, or answered something else.
    NotAsked(String),
    /// It refused, and said why.
    Refused(String),
}

impl NotDone {
    pub(in crate::cli) fn into_failure(self, host: &str) -> Failure {
        match self {
            Self::NoHook => Failure::usage(format!(
                "{host}: vmgate's hook is not installed there; install it with: vmgate hook install"
            )),
            Self::NotAsked(why) => Failure::failed(format!("{host}: {why}")),
            Self::Refused(why) => Failure::usage(format!("{host}: {why}")),
        }
    }
}

/// Asks the host's vmgate, and reads its answer.
pub(in crate::cli) fn ask<T: DeserializeOwned>(
    shell: &HostShell,
    host: &str,
    program: Program,
    request: &HookRequest,
    timeout: Duration,
) -> Result<T, NotDone> {
    let input = serde_json::to_vec(request).map_err(|error| NotDone::NotAsked(error.to_string()))?;
    let limit = if program == Program::Sent { timeout.saturating_add(SENDING) } else { timeout };
    let arguments = ["hook".to_owned(), "host".to_owned()];
    let answer = shell.run(program, &arguments, &input, limit).map_err(|error| match error {
        ShellError::NotInstalled => NotDone::NoHook,
        ShellError::Unreachable(why) => NotDone::NotAsked(why),
        ShellError::Refused(why) => NotDone::Refused(why),
    })?;
    serde_json::from_slice(&answer).map_err(|error| {
        NotDone::NotAsked(format!(
            "vmgate on {host} is another version and answered something else ({error}); update it with: vmgate hook install"
        ))
    })
}
