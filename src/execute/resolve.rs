//! From what both hosts say to a VM that runs once, where that can be reached without any doubt.
//!
//! libvirt's migration protocol (v3) leaves these halves when one side or the client is lost: the source holds its copy
//! paused until it is told how the destination fared, and the destination holds its copy paused until it is told to run.
//! A paused half is removed only while the other side is seen running; the source's copy runs again only where the
//! destination never can have.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{Hosts, Whereabouts, whereabouts::Presence};
use crate::collect::libvirt::JobOperation;

/// How long libvirt gets to tidy up after each step.
const SETTLING: Duration = Duration::from_secs(20);
/// How much later than the ledger says a migration's job may begin.
const JOB_SLACK: Duration = Duration::from_secs(15);

/// What can be done about a VM that does not run on one host alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remedy {
    /// It runs on the destination: the source's copy is what is left of it there.
    EndSourceCopy,
    /// It runs on the source: the destination's copy has never run.
    EndDestinationCopy,
    /// The destination does not know it, so that it never ran there: the source's copy goes on.
    ResumeSource,
}

/// Asks both hosts until one of them alone runs the VM, and helps where there is no doubt.
pub(super) fn settle(vm: &str, hosts: &Hosts) -> Whereabouts {
    let seen = Whereabouts::settle(vm, hosts);
    let Some(remedy) = remedy(&seen, was_persistent(vm, hosts)) else { return seen };
    let taken = match remedy {
        Remedy::EndSourceCopy => {
            hosts.source.domain(vm).and_then(|domain| {
                domain.destroy()?;
                // As the end of the migration would have done.
                if domain.is_persistent().unwrap_or(false) { domain.undefine() } else { Ok(()) }
            })
        }
        Remedy::EndDestinationCopy => hosts.destination.domain(vm).and_then(|domain| domain.destroy()),
        Remedy::ResumeSource => hosts.source.domain(vm).and_then(|domain| domain.resume()),
    };
    match taken {
        Ok(()) => tracing::warn!("{seen}: {}", remedy.words()),
        Err(error) => tracing::warn!("{seen}: {} failed: {error}", remedy.words()),
    }
    Whereabouts::settle(vm, hosts)
}

/// Ends the job of a migration that began `ago` and that nobody drives any more, which leaves the VM where it was. A job
/// that began later is somebody else's: it is left alone, and this is false.
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
        let _ = hosts.source.domain(vm).and_then(|domain| domain.abort_job());
        thread::sleep(Duration::from_millis(500));
    }
    true
}

/// Whether the source has the VM's definition, so that the destination would have got it before it ran there.
fn was_persistent(vm: &str, hosts: &Hosts) -> bool {
    hosts.source.domain(vm).and_then(|domain| domain.is_persistent()).unwrap_or(false)
}

fn remedy(seen: &Whereabouts, persistent: bool) -> Option<Remedy> {
    match (&seen.source, &seen.destination) {
        (Presence::HeldByMigration, Presence::Running) => Some(Remedy::EndSourceCopy),
        (Presence::Running, Presence::HeldByMigration) => Some(Remedy::EndDestinationCopy),
        // libvirt stores the definition at the destination before it lets the guest run there
        // (qemuMigrationDstFinish). A transient VM leaves no such trace, so it is left to people.
        (Presence::HeldByMigration, Presence::NotKnown) if persistent => Some(Remedy::ResumeSource),
        _ => None,
    }
}

impl Remedy {
    fn words(self) -> &'static str {
        match self {
            Self::EndSourceCopy => "the paused copy on the source is ended",
            Self::EndDestinationCopy => "the copy on the destination, which never ran, is ended",
            Self::ResumeSource => "it never ran on the destination and goes on at the source",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::VmState;

    #[test]
    fn nothing_is_done_unless_the_other_side_is_certain() {
        let all = [
            Presence::Running,
            Presence::HeldByMigration,
            Presence::PostCopyFailed,
            Presence::Active(VmState::Paused),
            Presence::ShutOff,
            Presence::NotKnown,
            Presence::NotTold("no answer".to_owned()),
        ];
        let mut done = Vec::new();
        for source in &all {
            for destination in &all {
                for persistent in [false, true] {
                    let seen = Whereabouts { source: source.clone(), destination: destination.clone() };
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
