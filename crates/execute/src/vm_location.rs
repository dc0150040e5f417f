//! Location of a VM: both hosts are asked for its state, nothing is assumed.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use vmgate_collect::HostedVm;
use vmgate_facts::{Fact, VmState};
use vmgate_libvirt::RunState;
use vmgate_probe::qemu::QemuState;

use super::{HostConnection, Hosts, hosts::NoVm};

/// Time for the hosts to clean up after a migration, and to be reachable again, before their answer counts.
const SETTLING: Duration = Duration::from_secs(20);
/// Time between two queries.
const LOOK: Duration = Duration::from_millis(200);

/// libvirt's reasons for a paused domain that only a migration causes (virDomainPausedReason).
mod reason {
    pub(super) const MIGRATION: i32 = 2;
    pub(super) const STARTING_UP: i32 = 11;
    pub(super) const POST_COPY: i32 = 12;
    pub(super) const POST_COPY_FAILED: i32 = 13;
}

/// State of the VM on one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Presence {
    /// The VM runs on the host.
    Running,
    /// A migration holds the VM paused: the source's copy after the switchover, or the destination's before it.
    HeldByMigration,
    /// Post-copy failed: the VM's memory is spread over both hosts.
    PostCopyFailed,
    /// The VM is active on the host in another state.
    Active(VmState),
    /// The VM is defined on the host and shut off.
    ShutOff,
    /// The host does not know the VM.
    NotKnown,
    /// The host did not answer.
    NoAnswer(String),
}

/// Location of a VM: its state as each of both hosts reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmLocation {
    pub(super) source: Presence,
    pub(super) destination: Presence,
}

impl VmLocation {
    /// Asks both hosts once.
    pub(super) fn look(vm: &str, hosts: &Hosts) -> Self {
        Self { source: presence(vm, &hosts.source), destination: presence(vm, &hosts.destination) }
    }

    /// Asks both hosts until one of them alone has the VM, or [`SETTLING`] has passed.
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

    /// True if the VM runs on the source and is not active on the destination.
    pub(super) fn only_on_source(&self) -> bool {
        self.source == Presence::Running && self.destination.is_absent()
    }

    /// True if the VM runs on the destination and is not active on the source.
    pub(super) fn only_on_destination(&self) -> bool {
        self.destination == Presence::Running && self.source.is_absent()
    }
}

impl Presence {
    /// True if the host reports that the VM is not active.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::ShutOff | Self::NotKnown)
    }
}

fn presence(vm: &str, host: &HostConnection) -> Presence {
    let found = host.vm(vm).and_then(|found| match found {
        HostedVm::Libvirt(domain) => Ok(in_libvirt(domain.state()?)),
        HostedVm::Process(vm) => match vm.process.state {
            Fact::Known(state) => Ok(of_qemu(&state)),
            Fact::Unknown(why) => Err(NoVm::NoAnswer(why.reason)),
        },
    });
    found.unwrap_or_else(|error| match error {
        NoVm::NotThere(_) => Presence::NotKnown,
        NoVm::NoAnswer(why) => Presence::NoAnswer(why),
    })
}

fn in_libvirt(state: RunState) -> Presence {
    match (state.state, state.reason) {
        (VmState::Running, _) => Presence::Running,
        (VmState::ShutOff, _) => Presence::ShutOff,
        (VmState::Paused, reason::POST_COPY_FAILED) => Presence::PostCopyFailed,
        (VmState::Paused, reason::MIGRATION | reason::STARTING_UP | reason::POST_COPY) => {
            Presence::HeldByMigration
        }
        (state, _) => Presence::Active(state),
    }
}

/// Presence by QEMU's own word (`RunState` in its QMP reference).
fn of_qemu(state: &QemuState) -> Presence {
    if state.migration.status.as_deref() == Some("postcopy-paused") {
        return Presence::PostCopyFailed;
    }
    match state.status.as_str() {
        "running" => Presence::Running,
        "inmigrate" | "finish-migrate" | "postmigrate" => Presence::HeldByMigration,
        _ => Presence::Active(state.vm),
    }
}

impl fmt::Display for VmLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "on the source the VM {}, on the destination the VM {}", self.source, self.destination)
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
            Self::NoAnswer(why) => write!(f, "has an unknown state: the host did not answer ({why})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use vmgate_probe::qemu::QemuMigration;

    use super::*;

    #[test]
    fn a_qemu_that_waits_for_a_migration_or_has_sent_it_does_not_run() {
        let migration =
            |status: &str| QemuMigration { status: Some(status.to_owned()), ..QemuMigration::default() };
        let of =
            |status: &str, vm, migration| of_qemu(&QemuState { status: status.to_owned(), vm, migration });
        assert_eq!(of("running", VmState::Running, migration("active")), Presence::Running);
        for (held, migration) in
            [("inmigrate", "active"), ("finish-migrate", "device"), ("postmigrate", "completed")]
                .map(|(s, m)| (s, migration(m)))
        {
            assert_eq!(of(held, VmState::Paused, migration), Presence::HeldByMigration, "{held}");
        }
        assert_eq!(of("paused", VmState::Paused, migration("none")), Presence::Active(VmState::Paused));
        assert_eq!(
            of("guest-panicked", VmState::Crashed, migration("none")),
            Presence::Active(VmState::Crashed)
        );
        assert_eq!(of("running", VmState::Running, migration("postcopy-paused")), Presence::PostCopyFailed);
    }

    #[test]
    fn running_on_one_host_counts_only_if_the_other_one_says_it_is_not_there() {
        let silent = || Presence::NoAnswer("no answer".into());
        let at = |source, destination| VmLocation { source, destination };
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
