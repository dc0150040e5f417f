//! Two ideal hosts for a VM: whatever it needs is present and healthy at both, so that only the VM itself can stand in its way.

use std::fs;

use vmgate_collect::fuzz;
use vmgate_facts::{
    Bridge, BridgeKind, DeviceModels, Fact, Facts, FileKind, Host, HostFile, HugePages, MachineType,
    NumaNode, ProgramBuild, VirtualNetwork, Vm,
};
use vmgate_libvirt::domain_xml::{Backing, DomainConfig};

const PLENTY: u64 = 1 << 52;
/// Build of QEMU at both hosts.
const BUILD: &str = "0b";

/// Facts of the fixture with another VM, between hosts that have all of it.
pub(crate) fn facts_of(config: &DomainConfig) -> Facts {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/fixtures/idle-vm.yaml");
    let mut facts: Facts = serde_yaml::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let (Fact::Known(usual), Fact::Known(source), Fact::Known(destination)) =
        (&facts.vm, &facts.source, &facts.destination)
    else {
        panic!("the fixture has a VM and two hosts")
    };
    let config = &with_volumes(config.clone());
    let mut vm = with_state_of(usual, fuzz::vm(config));
    vm.qemu_version = destination.qemu_version.clone();
    vm.qemu_build = Fact::Known(BUILD.to_owned());
    if config.backing == Backing::HugeOfDefaultSize {
        vm.huge_page_bytes = Fact::Known(Some(2 << 20));
    }
    // Both hosts are of one version.
    let source = Host {
        libvirt_version: destination.libvirt_version.clone(),
        qemu_version: destination.qemu_version.clone(),
        kernel_release: destination.kernel_release.clone(),
        ..source.clone()
    };
    let [source, mut destination] = [&source, destination].map(|host| ideal(host, config, &vm));
    // The hosts have nothing of each other but the files.
    destination.vms = Fact::Known(Vec::new());
    destination.active_vms = Fact::Known(Vec::new());
    facts.vm = Fact::Known(vm);
    facts.source = Fact::Known(source);
    facts.destination = Fact::Known(destination);
    facts
}

/// The configuration with its volumes as the files that libvirt finds for them.
fn with_volumes(mut config: DomainConfig) -> DomainConfig {
    for disk in config.disks.iter_mut().filter(|disk| disk.kind == "volume") {
        "file".clone_into(&mut disk.kind);
        disk.source = format!("/pools/{}", disk.volume.as_deref().unwrap_or_default());
    }
    config
}

/// The VM of a configuration, in the state of another: what libvirt, QEMU and measurements tell.
fn with_state_of(usual: &Vm, vm: Vm) -> Vm {
    Vm {
        name: usual.name.clone(),
        uuid: usual.uuid.clone(),
        state: usual.state.clone(),
        persistent: usual.persistent.clone(),
        job: usual.job.clone(),
        snapshots: usual.snapshots.clone(),
        qemu_version: usual.qemu_version.clone(),
        dirty_rate: usual.dirty_rate.clone(),
        dirty_windows: usual.dirty_windows.clone(),
        dirty_trace: usual.dirty_trace.clone(),
        resident_bytes: usual.resident_bytes.clone(),
        // QEMU was not asked: the configuration alone decides.
        migration_blockers: Fact::Known(None),
        ..vm
    }
}

fn known<T: Clone + Default>(fact: &Fact<T>) -> T {
    fact.known().cloned().unwrap_or_default()
}

fn ideal(host: &Host, config: &DomainConfig, vm: &Vm) -> Host {
    let sizes = [64 << 10, 1 << 20, 2 << 20, 16 << 20, 32 << 20, 512 << 20, 1 << 30, 16 << 30];
    let huge_pages: Vec<HugePages> = sizes
        .iter()
        .chain(known(&vm.huge_page_bytes).iter())
        .map(|&page_bytes| HugePages {
            page_bytes,
            free: PLENTY / page_bytes.max(1),
            mounted: Fact::Known(true),
        })
        .collect();
    let nodes = (0..64).chain(config.placement.numa_nodes.iter().copied()).map(|id| NumaNode {
        id,
        total_bytes: PLENTY,
        available_bytes: PLENTY,
        cpus: if id == 0 { config.placement.pinned_cpus.clone() } else { vec![id] },
        huge_pages: huge_pages.clone(),
    });
    let file = known(&host.files).first().cloned().unwrap();
    let mut host = Host {
        cpus: Fact::Known(1024),
        numa_nodes: Fact::Known(nodes.collect()),
        huge_pages: Fact::Known(huge_pages),
        machine_types: Fact::Known(
            config
                .machine_type
                .iter()
                .map(|name| MachineType { name: name.clone(), deprecated: false })
                .collect(),
        ),
        most_vcpus: Fact::Known(u32::MAX),
        cpu_models: Fact::Known(config.cpu_model.iter().cloned().collect()),
        offers_guest_cpu: Fact::Known(true),
        missing_cpu_features: Fact::Known(Vec::new()),
        forbidden_cpu_features: Fact::Known(Vec::new()),
        tpm_backends: Fact::Known(["passthrough", "emulator", "external"].map(str::to_owned).to_vec()),
        device_models: Fact::Known(device_models(config)),
        security_models: Fact::Known(config.security_models.clone()),
        configuration_refused: Fact::Known(None),
        program_builds: Fact::Known(
            config
                .emulator
                .iter()
                .map(|path| ProgramBuild { path: path.clone(), build: BUILD.to_owned() })
                .collect(),
        ),
        secrets: Fact::Known(config.secrets.clone()),
        files: Fact::Known(
            fuzz::needed_files(config).into_iter().map(|path| shared_file(&file, path)).collect(),
        ),
        ..host.clone()
    };
    if let Fact::Known(memory) = &mut host.memory {
        (memory.total_bytes, memory.available_bytes) = (PLENTY, PLENTY);
    }
    if let Some(frequency_hertz) = config.tsc_frequency_hertz {
        host.tsc = Fact::Known(Some(vmgate_facts::Tsc { frequency_hertz, scaling: true }));
    }
    with_networks(host, config)
}

fn device_models(config: &DomainConfig) -> Vec<DeviceModels> {
    let mut found: Vec<DeviceModels> = Vec::new();
    for component in &config.components {
        match found.iter_mut().find(|models| models.kind == component.kind) {
            Some(models) => models.models.push(component.model.clone()),
            None => found
                .push(DeviceModels { kind: component.kind.clone(), models: vec![component.model.clone()] }),
        }
    }
    found
}

/// A file as healthy as the fixture's, at another path.
fn shared_file(usual: &HostFile, path: String) -> HostFile {
    HostFile {
        kind: if path.starts_with("/dev/") { FileKind::Block } else { FileKind::File },
        identity: Some(format!("nfs {path}")),
        path,
        ..usual.clone()
    }
}

/// Networks, bridges, taps, filters, pools and addresses by the names that the VM has for them.
fn with_networks(mut host: Host, config: &DomainConfig) -> Host {
    let pools = config.disks.iter().filter_map(|disk| disk.volume.as_deref()?.split_once('/'));
    host.storage_pools = Fact::Known(pools.map(|(pool, _)| pool.to_owned()).collect());
    host.network_filters = Fact::Known(config.nics.iter().filter_map(|nic| nic.filter.clone()).collect());
    let (mut nics, mut networks, mut bridges) = (known(&host.nics), Vec::new(), known(&host.bridges));
    let bridge = bridges.first().cloned().unwrap();
    let usual = nics.iter().find(|nic| nic.name == "br0").cloned().unwrap();
    let _network = known(&host.virtual_networks).first().cloned().unwrap();
    for nic in &config.nics {
        if let Some(tap) = nic.tap.as_ref().filter(|_| nic.tap_must_exist) {
            nics.push(vmgate_facts::Nic { name: tap.clone(), ..usual.clone() });
        }
        let Some(source) = &nic.source else { continue };
        nics.retain(|nic| nic.name != *source || nic.name == "br0");
        if !nics.iter().any(|nic| nic.name == *source) {
            nics.push(vmgate_facts::Nic { name: source.clone(), mtu_bytes: 9000, ..usual.clone() });
        }
        let ovs = nic.virtual_port.as_deref() == Some("openvswitch");
        let kind = if ovs { BridgeKind::OpenVswitch } else { BridgeKind::Linux };
        bridges.retain(|bridge| bridge.name != *source);
        bridges.push(Bridge { name: source.clone(), kind, vlan_aware: true, ..bridge.clone() });
        networks.push(VirtualNetwork {
            name: source.clone(),
            bridge: Some(source.clone()),
            forward: Fact::Known(if source == "default" { "nat" } else { "bridge" }.to_owned()),
            mtu_bytes: None,
            virtual_port: nic.virtual_port.clone(),
            port_groups: config.nics.iter().filter_map(|nic| nic.port_group.clone()).collect(),
        });
    }
    let answering = config.servers.iter().map(|server| vmgate_facts::BoundPort {
        protocol: vmgate_facts::PortProtocol::Tcp,
        address: "0.0.0.0".to_owned(),
        port: server.port,
    });
    host.bound_ports = Fact::Known(answering.collect());
    let addresses = config.listeners.iter().map(|listener| format!("{}/24", listener.address));
    if let Some(nic) = nics.iter_mut().find(|nic| nic.name == "br0") {
        nic.addresses.extend(addresses);
    }
    host.networks = Fact::Known(networks.iter().map(|network| network.name.clone()).collect());
    host.virtual_networks = Fact::Known(networks);
    host.nics = Fact::Known(nics);
    host.bridges = Fact::Known(bridges);
    host
}
