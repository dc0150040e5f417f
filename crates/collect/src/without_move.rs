//! Facts of a VM and its host without a move: evidence to keep after something went wrong with the VM.

use std::time::Duration;

use jiff::Timestamp;
use vmgate_facts::{Cause, Fact, Facts, Unknown, Uri};
use vmgate_libvirt::{Domain, Hypervisor, LibvirtError};
use vmgate_probe::host::HostQuestions;

use super::{
    dirty_measurement::DirtyMeasurement,
    guest, host, needed_files,
    transport::Transport,
    vm::{self, Monitor},
};
use crate::guest_probe::GuestAccess;

/// Collects the facts of a VM and its host, which stands as the source. Measures nothing, and fails only without the VM's
/// state: what cannot be learnt is unknown.
pub fn collect_without_move(
    domain: &Domain,
    (hypervisor, uri): (&Hypervisor, &Uri),
    (probe, into): (&Transport, &GuestAccess),
    timeout: Duration,
    now: Timestamp,
) -> Result<Facts, LibvirtError> {
    let found = vm::look(domain, Monitor::Forbidden)?;
    let answers = host::ask(hypervisor, uri, Fact::from(hypervisor.hostname()));
    let questions = HostQuestions {
        vms: found.uuid.clone().into_iter().collect(),
        files: needed_files::of(&found.config),
        programs: needed_files::programs(&found.config),
        devices: needed_files::devices(&found.config),
        ..HostQuestions::default()
    };
    let probed = probe.probe_host(&questions, timeout);
    let arch = found.config.as_ref().and_then(|config| config.arch.as_deref());
    let emulator = answers.offer(arch).known().and_then(|offer| offer.emulator.clone());
    let source = answers.with_probe(arch, &probed);
    let not_measured = Unknown::new(
        Cause::NotCollected,
        "no measurements: these facts are evidence after a failure of the VM",
    );
    let vm = vm::complete(&found, &source, &probed, emulator.as_deref());
    let has_channel = found.config.as_ref().is_none_or(|config| config.has_agent_channel);
    let seen = guest::look(into, Some(domain.clone()), found.state, has_channel, None, timeout);
    let nowhere =
        || Fact::unknown(Cause::NotCollected, "these facts are of a VM on its host, without a destination");
    Ok(Facts {
        vm: Fact::Known(DirtyMeasurement::unknown(&not_measured).into_vm(vm)),
        guest: seen.map(|(guest, _)| guest).into(),
        source: Fact::Known(source),
        destination: nowhere(),
        ..Facts::empty(now)
    })
}
