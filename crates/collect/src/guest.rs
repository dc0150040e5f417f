//! The guest's facts, by the way in that was chosen: its agent, or the guest probe.

use std::time::Duration;

use super::agent::{AgentGuest, Means};
use crate::{guest_probe as ways, guest_probe::GuestWay};
use vmgate_facts::{Cause, Guest, Unknown, VmState};
use vmgate_libvirt::{Domain, LibvirtError, Trouble};
use vmgate_reach::agent::{AgentChannel, AgentFailure};

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
    Ok((vmgate_probe::guest::look(&guest), method.to_owned()))
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
