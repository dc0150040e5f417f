//! Facts of the guest, through the chosen access: its agent, or the guest probe.

use std::time::Duration;

use vmgate_facts::{Cause, Guest, Unknown, VmState};
use vmgate_libvirt::Domain;

use super::agent::{AgentGuest, AgentMethod};
use crate::{guest_probe as ways, guest_probe::GuestAccess};

/// Collects the guest's facts, for at most `timeout`. Also returns the method, for provenance.
pub(super) fn look(
    way: &GuestAccess,
    domain: Option<Domain>,
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
        GuestAccess::Wire => Err(Unknown::new(
            Cause::NotOnTheWire,
            "nobody looked into the guest, and its packets do not show it",
        )),
        GuestAccess::None(why) => Err(Unknown::new(Cause::NotAllowed, why.clone())),
    }
}

fn by_agent(
    domain: Option<Domain>,
    has_channel: bool,
    timeout: Duration,
) -> Result<(Guest, String), Unknown> {
    if !has_channel {
        return Err(Unknown::new(
            Cause::NoGuestAgent,
            "the VM has no guest agent channel (org.qemu.guest_agent.0)",
        ));
    }
    let Some(domain) = domain else {
        return Err(Unknown::new(
            Cause::NoLibvirt,
            "the guest agent is asked through libvirt, which does not have this VM: look into the guest with --guest \
             ssh://root@GUEST, or judge it by its packets with --guest wire",
        ));
    };
    let guest = AgentGuest::open(domain, timeout)?;
    let method = match guest.method() {
        AgentMethod::Exec => "guest-exec of a shell that reads /proc",
        AgentMethod::Files => "guest-file-read of /proc",
    };
    Ok((vmgate_probe::guest::look(&guest), method.to_owned()))
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
