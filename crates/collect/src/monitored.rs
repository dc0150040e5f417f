//! VMs and hosts without libvirt: a VM by its monitor, and what a host's processes and its QEMU tell in libvirt's place.

use vmgate_facts::{Cause, Fact, Host, Unknown, Uri, Uuid};
use vmgate_probe::{
    host::DeviceAddress,
    qemu::{MONITOR, MonitoredVm},
};

use super::{CollectError, CollectRequest, host_probes::SourceDetails, transport::Answer, vm::FoundVm};

impl CollectRequest {
    /// Socket of the VM's monitor, for a VM that is named by it.
    pub fn monitor(&self) -> Option<&str> {
        self.vm.strip_prefix(MONITOR)
    }

    /// UUID of a VM that is named by its monitor, which a verdict does not know; none for another.
    pub fn vm_uuid(&self) -> Option<Result<Uuid, CollectError>> {
        let socket = self.monitor()?;
        Some(
            look(self, socket)
                .and_then(|found| found.facts.uuid.into_result().map_err(|why| failed(self, why))),
        )
    }
}

fn failed(request: &CollectRequest, why: Unknown) -> CollectError {
    let host = request.from.host_for_people().to_owned();
    CollectError::Monitor { host, vm: request.vm.clone(), why }
}

/// Name that other hosts resolve to migrate to a host without libvirt: the one at which it is reached, by which managers know it.
pub(super) fn hostname(uri: &Uri) -> String {
    uri.host.clone().unwrap_or_else(|| uri.host_for_people().to_owned())
}

/// The VM whose monitor the request names, as the source's probe sees it.
pub(super) fn look(request: &CollectRequest, socket: &str) -> Result<FoundVm, CollectError> {
    let seen = request.source_probe.monitored_vm(socket, request.timeout).and_then(found);
    seen.map_err(|why| failed(request, why))
}

/// The VM that a probe has seen by its monitor.
pub(super) fn found(seen: MonitoredVm) -> Result<FoundVm, Unknown> {
    let Fact::Known(state) = seen.vm.state else {
        return Err(Unknown::new(Cause::Malformed, "the probe does not tell the VM's state"));
    };
    Ok(FoundVm {
        facts: seen.vm.clone(),
        config: None,
        migratable_xml: Err(Unknown::new(Cause::NoLibvirt, "libvirt does not have this VM")),
        state,
        uuid: seen.vm.uuid.known().cloned(),
        monitored: Some(seen),
    })
}

/// Details of the VM for the probes.
pub(super) fn details(seen: &MonitoredVm, source_name: Option<String>) -> SourceDetails {
    let vm = &seen.vm;
    let on_host = |kind: &str| matches!(kind, "file" | "block" | "dir");
    let disks = list(&vm.disks).iter().filter(|disk| on_host(&disk.kind));
    let mut files: Vec<String> =
        disks.flat_map(|disk| std::iter::once(&disk.source).chain(&disk.backing_files)).cloned().collect();
    files.extend(list(&vm.boot_files).iter().map(|file| file.path.clone()));
    let firmware = vm.firmware.known().into_iter().flatten();
    files.extend(firmware.flat_map(|firmware| {
        std::iter::once(firmware.loader.clone()).chain(firmware.nvram.clone()).collect::<Vec<_>>()
    }));
    files.sort();
    files.dedup();
    let ports = list(&vm.fixed_ports).iter().map(|port| port.port);
    SourceDetails {
        source_name,
        vms: vm.uuid.known().cloned().into_iter().collect(),
        files,
        opened: list(&vm.opened_files).to_vec(),
        ports: ports.chain(list(&vm.servers).iter().map(|server| server.port)).collect(),
        // Its manager starts it under the same user on every host.
        qemu_user: Some(seen.user.clone()),
        programs: vec![seen.needs.program.clone()],
        devices: list(&vm.host_devices)
            .iter()
            .map(|device| DeviceAddress { kind: device.kind.clone(), address: device.address.clone() })
            .collect(),
        needs: Some(seen.needs.clone()),
    }
}

fn list<T>(fact: &Fact<Vec<T>>) -> &[T] {
    fact.known().map(Vec::as_slice).unwrap_or_default()
}

/// The host with its identity and the VMs that its processes show, where no libvirt tells them.
pub(super) fn with_running(mut host: Host, uri: &Uri, answer: &Result<Answer, Unknown>) -> Host {
    if uri.names_libvirt() {
        return host;
    }
    let (machine_id, running) = match answer {
        Ok(answer) => (answer.probe.machine_id.clone(), answer.probe.running.clone()),
        Err(why) => (Fact::Unknown(why.clone()), Fact::Unknown(why.clone())),
    };
    host.uuid = machine_id;
    host.hostname = Fact::Known(uri.host_for_people().to_owned());
    host.active_vms = running.as_ref().map(|running| running.vms.iter().map(|vm| vm.uuid.clone()).collect());
    host.jobs = running.as_ref().map(|running| running.jobs.clone());
    host.claims = running.as_ref().and_then(|running| running.claims.clone());
    host.vms = running.map(|running| running.vms);
    host
}

/// The destination with what its QEMU offers to a VM that libvirt does not have.
pub(super) fn with_offer(mut host: Host, seen: &MonitoredVm, answer: &Result<Answer, Unknown>) -> Host {
    let offer = match answer {
        Ok(answer) => answer.probe.qemu_offer.clone(),
        Err(why) => Fact::Unknown(why.clone()),
    };
    let needed = seen.vm.machine_type.known();
    host.qemu_version = offer.as_ref().and_then(|offer| offer.version.clone());
    host.machine_types = offer.as_ref().map(|offer| offer.machine_types.clone());
    host.most_vcpus = offer.as_ref().and_then(|offer| {
        let types = offer.machine_types.iter().zip(&offer.most_vcpus);
        types.into_iter().find(|(machine, _)| Some(&machine.name) == needed).map_or_else(
            || Fact::unknown(Cause::NotSupported, "the destination's QEMU does not have the machine type"),
            |(_, most)| Fact::Known(*most),
        )
    });
    host.cpu_models = offer.as_ref().map(|offer| offer.cpu_models.clone());
    host.missing_cpu_features = offer.as_ref().and_then(|offer| offer.missing_cpu_features.clone());
    host.offers_guest_cpu = host.missing_cpu_features.as_ref().map(Vec::is_empty);
    // QEMU ignores a feature that the host has beside those of the model.
    host.forbidden_cpu_features = Fact::Known(Vec::new());
    host.tpm_backends = offer.map(|offer| offer.tpm_backends);
    let no_libvirt = || Unknown::new(Cause::NoLibvirt, "libvirt does not have this VM");
    host.device_models = Fact::Unknown(no_libvirt());
    host.configuration_refused = Fact::Unknown(no_libvirt());
    host
}
