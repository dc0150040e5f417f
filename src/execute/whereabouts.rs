//! Where a VM runs: asked of both hosts, never assumed.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use super::{Hosts, Line};
use crate::{
    collect::libvirt::{LibvirtError, LibvirtErrorKind, RunState},
    fact::VmState,
};

/// How long the hosts get to tidy up after a migration, and to be reached again, before their answer counts.
const SETTLING: Duration = Duration::from_secs(20);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// libvirt's reasons for a paused domain that only a migration gives (virDomainPausedReason).
mod reason {
    pub(super) const MIGRATION: i32 = 2;
    pub(super) const STARTING_UP: i32 = 11;
    pub(super) const POST_COPY: i32 = 12;
    pub(super) const POST_COPY_FAILED: i32 = 13;
}

/// What one host says of the VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Presence {
    /// It runs there.
    Running,
    /// A migration holds it there: the source's copy after it was handed over, or the destination's before.
    HeldByMigration,
    /// Post-copy failed: what the VM is, is spread over both hosts.
    PostCopyFailed,
    /// It is active there in another state.
    Active(VmState),
    /// It is defined there and shut off.
    ShutOff,
    /// It is not known there.
    NotKnown,
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
    pub(super) fn look(vm: &str, hosts: &Hosts) -> Self {
        Self { source: presence(vm, &hosts.source), destination: presence(vm, &hosts.destination) }
    }

    /// Asks both hosts until one of them alone has the VM, or the time to settle is over.
    pub(super) fn settle(vm: &str, hosts: &Hosts) -> Self {
        let start = Instant::now();
        loop {
            let seen = Self::look(vm, hosts);
            if seen.only_on_source() || seen.only_on_destination() || start.elapsed() > SETTLING {
                return seen;
            }
            thread::sleep(LOOK);
        }
    }

    /// It runs on the source and is not active on the destination.
    pub(super) fn only_on_source(&self) -> bool {
        self.source == Presence::Running && self.destination.is_absent()
    }

    /// It runs on the destination and is not active on the source.
    pub(super) fn only_on_destination(&self) -> bool {
        self.destination == Presence::Running && self.source.is_absent()
    }
}

impl Presence {
    /// The host says that the VM is not active there.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::ShutOff | Self::NotKnown)
    }
}

fn presence(vm: &str, host: &Line) -> Presence {
    match host.domain(vm).and_then(|domain| domain.state()) {
        Ok(RunState { state: VmState::Running, .. }) => Presence::Running,
        Ok(RunState { state: VmState::ShutOff, .. }) => Presence::ShutOff,
        Ok(RunState { state: VmState::Paused, reason: reason::POST_COPY_FAILED }) => Presence::PostCopyFailed,
        Ok(RunState {
            state: VmState::Paused,
            reason: reason::MIGRATION | reason::STARTING_UP | reason::POST_COPY,
        }) => Presence::HeldByMigration,
        Ok(RunState { state, .. }) => Presence::Active(state),
        Err(LibvirtError { kind: LibvirtErrorKind::NoSuchVm(_), .. }) => Presence::NotKnown,
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
            Self::Running => f.write_str("runs"),
            Self::HeldByMigration => f.write_str("is held paused by the migration"),
            Self::PostCopyFailed => f.write_str("is paused by a post-copy that failed"),
            Self::Active(VmState::Paused) => f.write_str("is paused"),
            Self::Active(_) => f.write_str("is active but does not run"),
            Self::ShutOff => f.write_str("is shut off"),
            Self::NotKnown => f.write_str("is not known"),
            Self::NotTold(why) => write!(f, "could not be asked for ({why})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_on_one_host_counts_only_if_the_other_one_says_it_is_not_there() {
        let silent = || Presence::NotTold("no answer".into());
        let at = |source, destination| Whereabouts { source, destination };
        for absent in [Presence::ShutOff, Presence::NotKnown] {
            assert!(at(Presence::Running, absent.clone()).only_on_source());
            assert!(at(absent, Presence::Running).only_on_destination());
        }
        for unclear in [
            at(Presence::Running, Presence::Running),
            at(Presence::Running, silent()),
            at(silent(), Presence::Running),
            at(Presence::ShutOff, Presence::NotKnown),
            at(Presence::Running, Presence::HeldByMigration),
            at(Presence::HeldByMigration, Presence::Running),
            at(Presence::Active(VmState::Paused), Presence::NotKnown),
            at(Presence::NotKnown, Presence::Active(VmState::Paused)),
        ] {
            assert!(!unclear.only_on_source() && !unclear.only_on_destination(), "{unclear}");
        }
    }
}
