//! Parts of the VM that migrate between these hosts: its components, its devices of the host, and failures known from the field.

use vmgate_facts::{Fact, Host, Trial, TrialAnswer, Vm, machine_version};
use vmgate_rules::catalogue::{Catalogues, Migrator, QemuAnswer};

/// Fills in what the catalogues tell, unless it is known.
pub(super) fn fill(
    vm: &mut Vm,
    (source, destination): (&Fact<Host>, &Fact<Host>),
    trial: &Fact<Option<Trial>>,
    catalogues: &Catalogues,
) {
    // Facts of an older vmgate have no version for a distribution's machine type.
    if matches!(vm.machine_version, Fact::Known(None)) {
        vm.machine_version = vm.machine_type.as_ref().and_then(|name| machine_version(name));
    }
    let migrator = Migrator {
        vm_qemu: vm.qemu_version.clone(),
        destination_qemu: destination.as_ref().and_then(|host| host.qemu_version.clone()),
        source_libvirt: source.as_ref().and_then(|host| host.libvirt_version.clone()),
        answer: QemuAnswer::of(vm),
        was_begun: trial
            .known()
            .is_some_and(|trial| trial.as_ref().is_some_and(|trial| trial.answer == TrialAnswer::Accepted)),
    };
    if let Fact::Known(components) = &mut vm.components {
        for component in components {
            catalogues.classify_component(component, &migrator);
        }
    }
    let devices_of = |host: &Fact<Host>| host.as_ref().and_then(|host| host.passthrough_devices.clone());
    let (here, there) = (devices_of(source), devices_of(destination));
    if let Fact::Known(devices) = &mut vm.host_devices {
        for device in devices {
            catalogues.classify_device(device, (&here, &there), &migrator);
        }
    }
    if vm.known_failures.known().is_none() {
        vm.known_failures = match (source, destination) {
            (Fact::Known(source), Fact::Known(destination)) => {
                Fact::Known(catalogues.known_failures_of(vm, source, destination))
            }
            (Fact::Unknown(why), _) | (_, Fact::Unknown(why)) => Fact::Unknown(why.clone()),
        };
    }
}
