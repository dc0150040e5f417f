//! Facts of the guest, through the chosen access: its agent, or the guest probe.

use std::time::Duration;

use super::{
    agent::{AgentChannel, AgentFailure, AgentGuest, AgentMethod},
    libvirt::{Domain, LibvirtError, LibvirtErrorKind},
    probe,
    transport::{GuestAccess, guest as ways},
};
use crate::fact::{Cause, Guest, Unknown, VmState};

impl AgentChannel for Domain {
    fn command(&self, json: &str, patience: Duration) -> Result<String, AgentFailure> {
        self.agent_command(json, patience).map_err(|error| {
            let LibvirtError { kind, .. } = &error;
            match kind {
                LibvirtErrorKind::AgentSilent(words) => AgentFailure::Silent(words.clone()),
                LibvirtErrorKind::AgentRefused(words) => AgentFailure::Refused(words.clone()),
                LibvirtErrorKind::TimedOut(limit) => AgentFailure::Unavailable(Unknown::new(
                    Cause::TimedOut,
                    format!("the guest agent did not answer within {} s", limit.as_secs_f64()),
                )),
                _ => AgentFailure::Unavailable(error.into()),
            }
        })
    }
}

/// Collects the guest's facts, for at most `timeout`. Also returns the method, for provenance.
pub(super) fn look(
    way: &GuestAccess,
    domain: Domain,
    state: VmState,
    has_channel: bool,
    attribute: Option<Duration>,
    timeout: Duration,
) -> Result<(Guest, String), Unknown> {
    if state != VmState::Running {
        return Err(not_running(state));
    }
    match way {
        GuestAccess::Agent => by_agent(domain, has_channel, timeout),
        GuestAccess::Ssh(target) => ways::over_ssh(target, attribute, timeout),
        GuestAccess::Exec(words) => ways::by_command(words, timeout),
        GuestAccess::None(why) => Err(Unknown::new(Cause::NotAllowed, why.clone())),
    }
}

fn by_agent(domain: Domain, has_channel: bool, timeout: Duration) -> Result<(Guest, String), Unknown> {
    if !has_channel {
        return Err(Unknown::new(
            Cause::NoGuestAgent,
            "the VM has no guest agent channel (org.qemu.guest_agent.0)",
        ));
    }
    let guest = AgentGuest::open(domain, timeout)?;
    let method = match guest.method() {
        AgentMethod::Exec => "guest-exec of a shell that reads /proc",
        AgentMethod::Files => "guest-file-read of /proc",
    };
    Ok((probe::guest::look(&guest), method.to_owned()))
}

/// Reason why nothing is collected from a VM that does not run.
pub(super) fn not_running(state: VmState) -> Unknown {
    let words = match state {
        VmState::Running => "running",
        VmState::Paused => "paused",
        VmState::ShuttingDown => "shutting down",
        VmState::ShutOff => "shut off",
        VmState::Crashed => "crashed",
        VmState::Suspended => "suspended",
    };
    Unknown::new(Cause::GuestNotRunning, format!("the VM is {words}"))
}
