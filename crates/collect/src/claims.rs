//! Claims on a host's memory: by VMs that run there, are migrating in now, or are planned to move there first.

use vmgate_facts::{Cause, Fact, HostJob, HostVm, HugePageClaim, MemoryClaims, Unknown, Uuid, text::plain};
use vmgate_libvirt::{
    Domain, GuestSummary, JobStats, LibvirtError, LibvirtErrorKind, ask_each,
    domain_xml::{self, Backing},
};

/// A VM that is planned to move to the destination before the one that is judged. Known only to the caller: nothing on
/// the hosts shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedMove {
    /// The VM's name.
    pub vm: String,
    /// Maximum memory of the VM.
    pub memory_bytes: u64,
    /// Size of the huge pages that back it; none for ordinary pages.
    pub huge_page_bytes: Option<u64>,
}

/// VMs of a host, their jobs, and their claims on memory.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct VmsAndClaims {
    pub(super) vms: Fact<Vec<HostVm>>,
    pub(super) active: Fact<Vec<Uuid>>,
    pub(super) jobs: Fact<Vec<HostJob>>,
    pub(super) claims: Fact<MemoryClaims>,
}

/// Name of the job operation of a VM that migrates in.
const INCOMING: &str = "migration-in";
/// Name of the job operation of a VM that is busy with what libvirt does not tell. It may be coming in.
const NO_KNOWN_KIND: &str = "other";

/// Facts of the VMs of a host. Asks each running one for its job, and each that migrates in for its memory.
pub(super) fn of(guests: Fact<&[GuestSummary]>) -> VmsAndClaims {
    let jobs = guests.clone().and_then(|guests| jobs(guests).into());
    let listed =
        guests.clone().and_then(|guests| guests.iter().map(listed).collect::<Result<Vec<_>, _>>().into());
    let active = listed.as_ref().map(|vms| {
        let mut uuids: Vec<Uuid> = vms.iter().filter(|vm| vm.active).map(|vm| vm.uuid.clone()).collect();
        uuids.sort();
        uuids
    });
    let claims = guests.and_then(|guests| jobs.as_ref().and_then(|jobs| claims(guests, jobs).into()));
    VmsAndClaims { vms: listed, active, jobs, claims }
}

fn listed(guest: &GuestSummary) -> Result<HostVm, Unknown> {
    let name = plain(&guest.name);
    match &guest.uuid {
        Some(uuid) => Ok(HostVm { name, uuid: uuid.clone(), active: guest.active }),
        None => Err(Unknown::new(Cause::Malformed, format!("VM {name} has a UUID that identifies nothing"))),
    }
}

fn jobs(guests: &[GuestSummary]) -> Result<Vec<HostJob>, Unknown> {
    let active: Vec<&GuestSummary> = guests.iter().filter(|guest| guest.active).collect();
    let found = ask_each(&active, |guest| {
        let operation = running_job(guest.domain.job_info())?;
        Ok(operation.map(|operation| HostJob { vm: plain(&guest.name), operation: operation.to_owned() }))
    });
    found.into_iter().filter_map(Result::transpose).collect()
}

/// Operation of the job that runs, in libvirt's answer. A VM that went away meanwhile has none. One that libvirt is at work on and
/// cannot be asked about, such as one whose start hangs, has a job of no known kind; any other error says nothing about it.
fn running_job(answer: Result<Option<JobStats>, LibvirtError>) -> Result<Option<&'static str>, Unknown> {
    use LibvirtErrorKind::{Busy, NoSuchVm, NotSupported, WrongState};
    match answer {
        Ok(job) => Ok(job.filter(|job| job.end.is_none()).map(|job| job.operation.name())),
        Err(LibvirtError { kind: Busy(_), .. }) => Ok(Some(NO_KNOWN_KIND)),
        Err(LibvirtError { kind: NoSuchVm(_) | WrongState(_) | NotSupported(_), .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn claims(guests: &[GuestSummary], jobs: &[HostJob]) -> Result<MemoryClaims, Unknown> {
    let memory_of = |guest: &GuestSummary| {
        let why = || {
            Unknown::new(
                Cause::NotSupported,
                format!("libvirt reports no memory for VM {}", plain(&guest.name)),
            )
        };
        guest.memory_max_bytes.ok_or_else(why)
    };
    let sum = |bytes: Vec<u64>| bytes.into_iter().fold(0, u64::saturating_add);
    let running = guests.iter().filter(|guest| guest.active);
    let comes_in = |guest: &&GuestSummary| {
        let name = plain(&guest.name);
        jobs.iter().any(|job| [INCOMING, NO_KNOWN_KIND].contains(&job.operation.as_str()) && job.vm == name)
    };
    let incoming: Vec<&GuestSummary> = guests.iter().filter(comes_in).collect();
    let yet_to_fill = |guest: &&GuestSummary| Ok(yet_to_fill(guest, memory_of(guest)?));
    Ok(MemoryClaims {
        running_bytes: sum(running.map(memory_of).collect::<Result<_, Unknown>>()?),
        incoming_bytes: sum(incoming.iter().map(yet_to_fill).collect::<Result<_, Unknown>>()?),
        vms: incoming.iter().map(|guest| plain(&guest.name)).collect(),
        ..MemoryClaims::default()
    })
}

/// Ordinary memory that an incoming VM has yet to take: its maximum, less what its process already holds.
fn yet_to_fill(guest: &GuestSummary, memory_max_bytes: u64) -> u64 {
    let on_huge_pages = backing(&guest.domain).is_some_and(|backing| backing != Backing::Ordinary);
    if on_huge_pages {
        return 0;
    }
    memory_max_bytes.saturating_sub(guest.resident_bytes.unwrap_or(0))
}

fn backing(domain: &Domain) -> Option<Backing> {
    domain_xml::parse(&domain.xml().ok()?).ok().map(|config| config.backing)
}

/// The claims with the moves that are planned to come first.
pub(super) fn with_planned(claims: MemoryClaims, planned: &[PlannedMove]) -> MemoryClaims {
    planned.iter().fold(claims, |mut claims, planned| {
        let bytes = planned.memory_bytes;
        match planned.huge_page_bytes {
            None => claims.planned_bytes = claims.planned_bytes.saturating_add(bytes),
            Some(page_bytes) => {
                let same = claims.planned_huge_pages.iter_mut().find(|claim| claim.page_bytes == page_bytes);
                match same {
                    Some(claim) => claim.claimed_bytes = claim.claimed_bytes.saturating_add(bytes),
                    None => {
                        claims.planned_huge_pages.push(HugePageClaim { page_bytes, claimed_bytes: bytes });
                    }
                }
            }
        }
        claims.vms.push(planned.vm.clone());
        claims
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_does_not_tell_is_not_no_job() {
        let answer =
            |kind| running_job(Err(LibvirtError { host: "hv2".into(), action: "read the job".into(), kind }));
        assert_eq!(answer(LibvirtErrorKind::NoSuchVm(Vec::new())), Ok(None), "the VM has ended meanwhile");
        let busy = answer(LibvirtErrorKind::Busy("cannot acquire state change lock".into()));
        assert_eq!(busy, Ok(Some("other")), "one VM whose start hangs does not hide the others' jobs");
        let why = answer(LibvirtErrorKind::TimedOut(std::time::Duration::from_secs(1))).unwrap_err();
        assert_eq!(why.cause, Cause::TimedOut);
        assert!(answer(LibvirtErrorKind::ConnectionLost(String::new())).is_err());
    }

    #[test]
    fn planned_moves_add_up_by_the_kind_of_page() {
        let planned = |vm: &str, memory_bytes, huge_page_bytes| PlannedMove {
            vm: vm.into(),
            memory_bytes,
            huge_page_bytes,
        };
        let claims = with_planned(
            MemoryClaims { incoming_bytes: 5, ..MemoryClaims::default() },
            &[
                planned("a", 1, None),
                planned("b", 2, None),
                planned("c", 4, Some(2 << 20)),
                planned("d", 8, Some(2 << 20)),
                planned("e", 16, Some(1 << 30)),
            ],
        );
        assert_eq!((claims.incoming_bytes, claims.planned_bytes), (5, 3));
        let huge: Vec<_> =
            claims.planned_huge_pages.iter().map(|c| (c.page_bytes, c.claimed_bytes)).collect();
        assert_eq!(huge, [(2 << 20, 12), (1 << 30, 16)]);
        assert_eq!(claims.vms, ["a", "b", "c", "d", "e"]);
    }
}
