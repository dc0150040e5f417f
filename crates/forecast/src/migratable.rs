//! Parts of the VM that migrate between these hosts: its components, its devices of the host, the servers that it needs, and
//! failures known from the field.

use std::net::IpAddr;

use vmgate_facts::{
    Cause, Fact, Guest, Host, PortProtocol, Trial, TrialAnswer, Vm, VmServer, machine_version,
};
use vmgate_rules::catalogue::{Catalogues, Migrator, QemuAnswer};

/// Fills in what the catalogues tell, unless it is known.
pub(super) fn fill(
    (vm, guest): (&mut Vm, &Fact<Guest>),
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
    if let Fact::Known(servers) = &mut vm.servers {
        for server in servers.iter_mut().filter(|server| server.answers.known().is_none()) {
            server.answers = destination.as_ref().and_then(|host| answers(server, host));
        }
    }
    if vm.known_failures.known().is_none() {
        vm.known_failures = match (source, destination) {
            (Fact::Known(source), Fact::Known(destination)) => {
                Fact::Known(catalogues.known_failures_of((vm, guest), source, destination))
            }
            (Fact::Unknown(why), _) | (_, Fact::Unknown(why)) => Fact::Unknown(why.clone()),
        };
    }
}

/// True if the host listens at a server's address, which must be one of its own.
fn answers(server: &VmServer, host: &Host) -> Fact<bool> {
    let elsewhere = || {
        let why = format!(
            "{} is not an address of the destination, and vmgate connects to nobody else's server to find out if {} takes the \
             destination's QEMU",
            server.address, server.port
        );
        Fact::unknown(Cause::NotAllowed, why)
    };
    let Ok(address) = server.address.parse::<IpAddr>() else { return elsewhere() };
    let (nics, bound) = match (&host.nics, &host.bound_ports) {
        (Fact::Known(nics), Fact::Known(bound)) => (nics, bound),
        (Fact::Unknown(why), _) | (_, Fact::Unknown(why)) => return Fact::Unknown(why.clone()),
    };
    let is = |text: &str| text.parse::<IpAddr>().is_ok_and(|other| other == address);
    let own = nics.iter().flat_map(|nic| &nic.addresses).any(|own| is(own.split('/').next().unwrap_or(own)));
    if !(own || address.is_loopback() || address.is_unspecified()) {
        return elsewhere();
    }
    let everywhere = |text: &str| text.parse::<IpAddr>().is_ok_and(|other| other.is_unspecified());
    Fact::Known(bound.iter().any(|port| {
        port.protocol == PortProtocol::Tcp
            && port.port == server.port
            && (is(&port.address) || everywhere(&port.address) || address.is_unspecified())
    }))
}

#[cfg(test)]
mod tests {
    use vmgate_facts::BoundPort;

    use super::*;

    #[test]
    fn only_the_destinations_own_addresses_are_judged() {
        let nic = serde_json::json!({"name": "eth0", "kind": "physical", "up": true, "speed_bytes_per_second": null, "mtu_bytes": 1500,
            "master": null, "lower": [], "addresses": ["10.0.0.2/24"], "errors": 0, "duplex": null, "vlan_id": null, "bond": null});
        let bound = |address: &str, port| BoundPort {
            protocol: PortProtocol::Tcp,
            address: address.to_owned(),
            port,
        };
        let host = Host {
            nics: Fact::Known(vec![serde_json::from_value(nic).unwrap()]),
            bound_ports: Fact::Known(vec![bound("127.0.0.1", 1), bound("0.0.0.0", 2), bound("10.0.0.2", 3)]),
            ..Host::default()
        };
        let answer = |address: &str, port| {
            let server = VmServer {
                device: "serial".to_owned(),
                address: address.to_owned(),
                port,
                answers: Fact::default(),
            };
            answers(&server, &host).known().copied()
        };
        assert_eq!([1, 2, 3].map(|port| answer("127.0.0.1", port)), [Some(true), Some(true), Some(false)]);
        assert_eq!([1, 2, 3].map(|port| answer("10.0.0.2", port)), [Some(false), Some(true), Some(true)]);
        assert_eq!(answer("10.0.0.9", 1), None);
        assert_eq!(answer("logs.example.org", 1), None);
    }
}
