//! The guest's facts, by the way in that was chosen: its agent, or the guest probe.

use std::time::Duration;

use super::{
    agent::{AgentChannel, AgentFailure, AgentGuest, Means},
    libvirt::{Domain, LibvirtError, Trouble},
    probe,
    transport::{GuestWay, guest as ways},
};
use vmgate_facts::{Cause, Guest, Unknown, VmState};

impl AgentChannel for Domain {
    fn command(&self, json: &str, patience: Duration) -> Result<String, AgentFailure> {
        self.agent_command(json, patience).map_err(|error| {
            let LibvirtError { trouble, .. } = &error;
            match trouble {
                Trouble::AgentSilent(words) => AgentFailure::Silent(words.clone()),
                Trouble::AgentRefused(words) => AgentFailure::Refused(words.clone()),
                Trouble::TimedOut(limit) => AgentFailure::NoWay(Unknown::new(
                    Cause::TimedOut,
                    format!("the guest agent did not answer within {} s", limit.as_secs_f64()),
                )),
                _ => AgentFailure::NoWay(error.into()),
            }
        })
    }
}

/// Looks into the guest, for at most `timeout`. Says how it was done.
pub(super) fn look(
    way: &GuestWay,
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
        GuestWay::Agent => by_agent(domain, has_channel, timeout),
        GuestWay::Ssh(target) => ways::over_ssh(target, attribute, timeout),
        GuestWay::Exec(words) => ways::by_command(words, timeout),
        GuestWay::None(why) => Err(Unknown::new(Cause::NotAllowed, why.clone())),
    }
}

fn by_agent(domain: Domain, has_channel: bool, timeout: Duration) -> Result<(Guest, String), Unknown> {
    if !has_channel {
        return Err(Unknown::new(Cause::NoGuestAgent, "the VM has no channel for a guest agent"));
    }
    let guest = AgentGuest::open(domain, timeout)?;
    let method = match guest.means() {
        Means::Exec => "guest-exec of a shell that reads /proc",
        Means::Files => "guest-file-read of /proc",
    };
    Ok((probe::guest::look(&guest), method.to_owned()))
}

/// Why nothing is learnt of a VM that does not run.
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
