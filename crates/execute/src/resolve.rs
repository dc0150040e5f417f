//! Resolution of an interrupted migration: leaves the VM running once, where the state on both hosts allows no doubt.
//!
//! libvirt's migration protocol (v3) leaves these halves when one side or the client is lost: the source holds its copy
//! paused until it is told how the destination fared, and the destination holds its copy paused until it is told to run.
//! A paused half is removed only while the other side is seen running; the source's copy runs again only where the
//! destination never can have.

use std::{
    thread,
    time::{Duration, Instant},
};

use vmgate_libvirt::JobOperation;

use super::{Hosts, VmLocation, vm_location::Presence};
use crate::hand;

/// Time for libvirt to clean up after each step.
const SETTLING: Duration = Duration::from_secs(20);
/// Longest delay between the ledger's record of a migration and the start of its libvirt job.
const JOB_SLACK: Duration = Duration::from_secs(15);

/// Action that makes a VM run on one host alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remedy {
    /// The VM runs on the destination: the paused copy on the source is a remainder.
    EndSourceCopy,
    /// The VM runs on the source: the copy on the destination has never run.
    EndDestinationCopy,
    /// The destination does not know the VM, so it never ran there: the copy on the source is resumed.
    ResumeSource,
}

/// Asks both hosts until one of them alone runs the VM, and applies a [`Remedy`] where there is no doubt.
pub(super) fn settle(vm: &str, hosts: &Hosts) -> VmLocation {
    let seen = VmLocation::settle(vm, hosts);
    let Some(remedy) = remedy(&seen, was_persistent(vm, hosts)) else { return seen };
    apply(remedy, &seen, vm, hosts);
    VmLocation::settle(vm, hosts)
}

/// The same after a trial, in which the destination is never told to run its copy: whatever is held there is a remainder, and
/// the source's copy runs on.
pub(super) fn settle_trial(vm: &str, hosts: &Hosts) -> VmLocation {
    let mut seen = VmLocation::settle(vm, hosts);
    // At most one remedy for each host.
    for _ in 0..2 {
        // Somebody's migration that has begun since is not touched.
        let job = hosts.source.domain(vm).and_then(|domain| domain.job_info());
        let Some(remedy) = trial_remedy(&seen).filter(|_| matches!(job, Ok(None))) else { return seen };
        apply(remedy, &seen, vm, hosts);
        seen = VmLocation::settle(vm, hosts);
    }
    seen
}

fn apply(remedy: Remedy, seen: &VmLocation, vm: &str, hosts: &Hosts) {
    let taken = match remedy {
        Remedy::EndSourceCopy => {
            hosts.source.domain(vm).and_then(|domain| {
                hand::destroy(&domain)?;
                // As the end of the migration would have done.
                if domain.is_persistent().unwrap_or(false) { hand::undefine(&domain) } else { Ok(()) }
            })
        }
        Remedy::EndDestinationCopy => hosts.destination.domain(vm).and_then(|domain| hand::destroy(&domain)),
        Remedy::ResumeSource => hosts.source.domain(vm).and_then(|domain| hand::resume(&domain)),
    };
    match taken {
        Ok(()) => tracing::warn!("{seen}; done: {}", remedy.words()),
        Err(error) => tracing::warn!("{seen}; failed: {}: {error}", remedy.words()),
    }
}

/// Aborts the job of a migration that began `ago` and has no driver any more, which leaves the VM on the source. A job
/// that began later belongs to somebody else: it is left alone, and the result is false.
pub(super) fn end_job(vm: &str, hosts: &Hosts, ago: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < SETTLING {
        let Ok(Some(job)) = hosts.source.domain(vm).and_then(|domain| domain.job_info()) else { return true };
        let ours = job.operation == JobOperation::MigrationOut
            && job.elapsed.is_none_or(|elapsed| elapsed + JOB_SLACK >= ago);
        if !ours {
            return false;
        }
        // Refused where it has just ended, which the next look shows.
        let _ = hosts.source.domain(vm).and_then(|domain| hand::abort_job(&domain));
        thread::sleep(Duration::from_millis(500));
    }
    true
}

/// True if the source has a persistent definition of the VM: the destination then gets one before the VM runs there.
fn was_persistent(vm: &str, hosts: &Hosts) -> bool {
    hosts.source.domain(vm).and_then(|domain| domain.is_persistent()).unwrap_or(false)
}

fn remedy(seen: &VmLocation, persistent: bool) -> Option<Remedy> {
    match (&seen.source, &seen.destination) {
        (Presence::HeldByMigration, Presence::Running) => Some(Remedy::EndSourceCopy),
        (Presence::Running, Presence::HeldByMigration) => Some(Remedy::EndDestinationCopy),
        // libvirt stores the definition at the destination before it lets the guest run there
        // (qemuMigrationDstFinish). A transient VM leaves no such trace, so it is left to people.
        (Presence::HeldByMigration, Presence::NotKnown) if persistent => Some(Remedy::ResumeSource),
        _ => None,
    }
}

/// Remedy after a trial. A copy that runs on the destination is none of a trial's, so nothing is done then.
fn trial_remedy(seen: &VmLocation) -> Option<Remedy> {
    match (&seen.source, &seen.destination) {
        (Presence::HeldByMigration | Presence::Running, Presence::HeldByMigration) => {
            Some(Remedy::EndDestinationCopy)
        }
        (Presence::HeldByMigration, absent) if absent.is_absent() => Some(Remedy::ResumeSource),
        _ => None,
    }
}

impl Remedy {
    fn words(self) -> &'static str {
        match self {
            Self::EndSourceCopy => "ending the paused copy on the source",
            Self::EndDestinationCopy => "ending the copy on the destination, which never ran",
            Self::ResumeSource => {
                "resuming the copy on the source, because the VM never ran on the destination"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use vmgate_facts::VmState;

    use super::*;

    #[test]
    fn after_a_trial_the_source_runs_on_and_what_runs_at_the_destination_is_not_touched() {
        use Presence::{HeldByMigration, NoAnswer, NotKnown, Running, ShutOff};
        let remedy = |source, destination| trial_remedy(&VmLocation { source, destination });
        assert_eq!(remedy(HeldByMigration, NotKnown), Some(Remedy::ResumeSource));
        assert_eq!(remedy(HeldByMigration, ShutOff), Some(Remedy::ResumeSource));
        assert_eq!(remedy(HeldByMigration, HeldByMigration), Some(Remedy::EndDestinationCopy));
        assert_eq!(remedy(Running, HeldByMigration), Some(Remedy::EndDestinationCopy));
        for (source, destination) in [
            (HeldByMigration, Running),
            (HeldByMigration, NoAnswer("no".into())),
            (Running, Running),
            (Running, NotKnown),
            (NotKnown, HeldByMigration),
        ] {
            assert_eq!(remedy(source, destination), None);
        }
    }

    #[test]
    fn nothing_is_done_unless_the_other_side_is_certain() {
        let all = [
            Presence::Running,
            Presence::HeldByMigration,
            Presence::PostCopyFailed,
            Presence::Active(VmState::Paused),
            Presence::ShutOff,
            Presence::NotKnown,
            Presence::NoAnswer("no answer".to_owned()),
        ];
        let mut done = Vec::new();
        for source in &all {
            for destination in &all {
                for persistent in [false, true] {
                    let seen = VmLocation { source: source.clone(), destination: destination.clone() };
                    if let Some(remedy) = remedy(&seen, persistent) {
                        done.push((source.clone(), destination.clone(), persistent, remedy));
                    }
                }
            }
        }
        let held = Presence::HeldByMigration;
        assert_eq!(
            done,
            [
                (Presence::Running, held.clone(), false, Remedy::EndDestinationCopy),
                (Presence::Running, held.clone(), true, Remedy::EndDestinationCopy),
                (held.clone(), Presence::Running, false, Remedy::EndSourceCopy),
                (held.clone(), Presence::Running, true, Remedy::EndSourceCopy),
                (held, Presence::NotKnown, true, Remedy::ResumeSource),
            ]
        );
    }
}
