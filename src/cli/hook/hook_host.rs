//! The host of a hook command, and requests to vmgate on it.

use std::time::Duration;

use clap::Args;
use serde::de::DeserializeOwned;
use vmgate_facts::{
    Uri,
    text::{ShownCommand, plain},
};
#[cfg(feature = "libvirt")]
use vmgate_facts::{Uuid, Version};
#[cfg(feature = "libvirt")]
use vmgate_hook::HookPlacement;
use vmgate_hook::requests::{HookRequest, NotSupported};
#[cfg(feature = "libvirt")]
use vmgate_libvirt::Hypervisor;
use vmgate_reach::{HostShell, Program, ShellError};

use super::super::{Failure, session::Session};

/// First version of libvirt that runs every hook in a folder.
#[cfg(feature = "libvirt")]
const RUNS_FOLDERS: &str = "6.5.0";
/// Time for sending the program, in addition to the time for an answer.
const SENDING: Duration = Duration::from_mins(1);

/// Options for one host.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(in crate::cli) struct HookHost {
    /// Host: a libvirt URI, its name under `hosts` in vmgate.yaml, or [USER@]HOST[:PORT] for ssh
    host: Option<String>,
    /// This machine
    #[arg(long)]
    local: bool,
}

impl HookHost {
    pub(super) fn uri(&self, session: &Session) -> Result<Uri, Failure> {
        session.host_named(self.host.as_deref().unwrap_or("qemu:///system"))
    }
}

/// UUID of a host, and the placement of hooks that its libvirt supports.
#[cfg(feature = "libvirt")]
pub(super) fn uuid_and_placement(uri: &Uri, session: &Session) -> Result<(Uuid, HookPlacement), Failure> {
    let host = Hypervisor::open(uri, session.timeout()).map_err(Failure::failed)?;
    let uuid = host.uuid().map_err(Failure::failed)?;
    let version = host.libvirt_version().map_err(Failure::failed)?;
    let folders = RUNS_FOLDERS.parse::<Version>().is_ok_and(|first| version >= first);
    Ok((uuid, if folders { HookPlacement::Folder } else { HookPlacement::Chained }))
}

/// Error of a request to vmgate on a host.
#[derive(Debug)]
pub(in crate::cli) enum HookHostError {
    /// The hook is not installed on the host.
    NoHook,
    /// The host could not be reached, or its answer could not be parsed.
    Unreachable(String),
    /// The host refused the request, for this reason.
    Refused(String),
}

impl HookHostError {
    pub(in crate::cli) fn into_failure(self, host: &str) -> Failure {
        match self {
            Self::NoHook => Failure::usage(format!(
                "{host}: vmgate's hook is not installed on this host; install it with: vmgate hook install"
            )),
            Self::Unreachable(why) => Failure::failed(format!("{host}: {why}")),
            Self::Refused(why) => Failure::usage(format!("{host}: {why}")),
        }
    }
}

/// Sends a request to vmgate on the host, and parses the answer.
pub(in crate::cli) fn ask<T: DeserializeOwned>(
    shell: &HostShell,
    host: &str,
    program: Program,
    request: &HookRequest,
    timeout: Duration,
) -> Result<T, HookHostError> {
    let input = serde_json::to_vec(request).map_err(|error| HookHostError::Unreachable(error.to_string()))?;
    let limit = if program == Program::Sent { timeout.saturating_add(SENDING) } else { timeout };
    let arguments = ["hook".to_owned(), "host".to_owned()];
    let answer = shell.run(program, &arguments, &input, limit).map_err(|error| match error {
        ShellError::NotInstalled => HookHostError::NoHook,
        ShellError::Unreachable(why) => HookHostError::Unreachable(why),
        ShellError::Refused(why) => HookHostError::Refused(why),
    })?;
    read_answer(&answer, host)
}

fn read_answer<T: DeserializeOwned>(answer: &[u8], host: &str) -> Result<T, HookHostError> {
    if let Ok(there) = serde_json::from_slice::<NotSupported>(answer) {
        return Err(HookHostError::Refused(format!(
            "vmgate {} is installed there and does not support this request ({}): update the hook with: {}",
            plain(&there.program),
            plain(&there.not_supported),
            ShownCommand::new("vmgate hook install").operand(host)
        )));
    }
    serde_json::from_slice(answer).map_err(|error| {
        HookHostError::Unreachable(format!(
            "another version of vmgate is installed there, and its answer cannot be read ({error}): update the hook with: \
             {}",
            ShownCommand::new("vmgate hook install").operand(host)
        ))
    })
}

#[cfg(test)]
mod tests {
    use vmgate_hook::HookStatus;

    use super::*;

    #[test]
    fn a_hook_that_does_not_know_a_request_is_to_be_updated() {
        for answer in [r#"{"program": "0.1.0", "not_supported": "unknown variant"}"#, "{}"] {
            let refused = read_answer::<HookStatus>(answer.as_bytes(), "hv2").unwrap_err();
            let (HookHostError::Refused(why) | HookHostError::Unreachable(why)) = refused else { panic!() };
            let command = why.rsplit_once("update the hook with: ").unwrap().1;
            assert!(["vmgate hook install hv2", "vmgate hook install 'hv2'"].contains(&command), "{why}");
        }
    }
}
