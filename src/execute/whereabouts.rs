//! Where a VM runs: asked of both hosts, never assumed.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use crate::{
    collect::libvirt::{Hypervisor, LibvirtError, RunState, Trouble},
    fact::VmState,
};

/// How long the hosts get to tidy up after a migration before their answer counts.
const SETTLING: Duration = Duration::from_secs(10);

/// What one host says of the VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Presence {
    /// It is active there, in this state.
    Active(VmState),
    /// It is not active there: not known, or known and shut off.
    Inactive,
    /// The host did not say.
    NotTold(String),
}

/// Where the VM is, by both hosts' own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whereabouts {
    pub(super) source: Presence,
    pub(super) destination: Presence,
}

impl Whereabouts {
    /// Asks both hosts once.
    fn look(vm: &str, source: &Hypervisor, destination: &Hypervisor) -> Self {
        Self { source: presence(vm, source), destination: presence(vm, destination) }
    }

    /// Asks both hosts until one of them alone has the VM, or the time to settle is over.
    pub(super) fn settle(vm: &str, source: &Hypervisor, destination: &Hypervisor) -> Self {
        let start = Instant::now();
        loop {
            let seen = Self::look(vm, source, destination);
            if seen.only_on_source() || seen.only_on_destination() || start.elapsed() > SETTLING {
                return seen;
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// It runs on the source and is not active on the destination.
    pub(super) fn only_on_source(&self) -> bool {
        self.source == Presence::Active(VmState::Running) && self.destination == Presence::Inactive
    }

    /// It runs on the destination and is not active on the source.
    pub(super) fn only_on_destination(&self) -> bool {
        self.destination == Presence::Active(VmState::Running) && self.source == Presence::Inactive
    }
}

fn presence(vm: &str, host: &Hypervisor) -> Presence {
    match host.domain(vm).and_then(|domain| domain.state()) {
        Ok(RunState { state: VmState::ShutOff, .. })
        | Err(LibvirtError { trouble: Trouble::NoSuchVm(_), .. }) => Presence::Inactive,
        Ok(RunState { state, .. }) => Presence::Active(state),
        Err(error) => Presence::NotTold(error.to_string()),
    }
}

impl fmt::Display for Whereabouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "on the source it {}, on the destination it {}", self.source, self.destination)
    }
}

impl fmt::Display for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Active(VmState::Running) => f.write_str("runs"),
            Self::Active(VmState::Paused) => f.write_str("is paused"),
            Self::Active(_) => f.write_str("is active but does not run"),
            Self::Inactive => f.write_str("is not active"),
            Self::NotTold(why) => write!(f, "could not be asked for ({why})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(source: Presence, destination: Presence) -> Whereabouts {
        Whereabouts { source, destination }
    }

    #[test]
    fn running_on_one_host_counts_only_if_the_other_one_says_it_is_not_there() {
        let running = Presence::Active(VmState::Running);
        let silent = Presence::NotTold("no answer".into());
        assert!(at(running.clone(), Presence::Inactive).only_on_source());
        assert!(at(Presence::Inactive, running.clone()).only_on_destination());
        for unclear in [
            at(running.clone(), running.clone()),
            at(running.clone(), silent.clone()),
            at(silent, running.clone()),
            at(Presence::Inactive, Presence::Inactive),
            at(Presence::Active(VmState::Paused), Presence::Inactive),
            at(Presence::Inactive, Presence::Active(VmState::Paused)),
        ] {
            assert!(!unclear.only_on_source() && !unclear.only_on_destination(), "{unclear}");
        }
    }
}
