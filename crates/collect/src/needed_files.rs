//! Files, programs and devices of a host that a VM needs, for both hosts' probes to inspect.

use std::collections::BTreeMap;

use vmgate_facts::OpenedFile;
use vmgate_libvirt::domain_xml::DomainConfig;
use vmgate_probe::host::DeviceAddress;

/// Absolute paths that these VMs need, sorted, each once.
pub(super) fn of<'a>(configs: impl IntoIterator<Item = &'a DomainConfig>) -> Vec<String> {
    let mut paths: Vec<String> = configs.into_iter().flat_map(of_one).collect();
    paths.sort();
    paths.dedup();
    paths
}

/// Programs that run these VMs, sorted, each once.
pub(super) fn programs<'a>(configs: impl IntoIterator<Item = &'a DomainConfig>) -> Vec<String> {
    let emulators = configs.into_iter().filter_map(|config| config.emulator.clone());
    let mut programs: Vec<String> = emulators.filter(|path| path.starts_with('/')).collect();
    programs.sort();
    programs.dedup();
    programs
}

/// Files that QEMU opens for these VMs, each path once: for the most that any VM needs, and by the least that libvirt does for it.
pub(super) fn opened<'a>(configs: impl IntoIterator<Item = &'a DomainConfig>) -> Vec<OpenedFile> {
    let mut files: BTreeMap<String, OpenedFile> = BTreeMap::new();
    for file in configs.into_iter().flat_map(DomainConfig::opened_files) {
        files
            .entry(file.path.clone())
            .and_modify(|other| {
                other.writes |= file.writes;
                other.given &= file.given;
            })
            .or_insert(file);
    }
    files.into_values().collect()
}

/// Ports of which a host is asked if they are bound: those that the VM binds, and those that it connects to.
pub(super) fn ports(config: &DomainConfig) -> Vec<u16> {
    let bound = config.fixed_ports.iter().map(|port| port.port);
    bound.chain(config.servers.iter().map(|server| server.port)).collect()
}

/// Devices that these VMs have from their host, sorted, each once.
pub(super) fn devices<'a>(configs: impl IntoIterator<Item = &'a DomainConfig>) -> Vec<DeviceAddress> {
    let all = configs.into_iter().flat_map(|config| &config.host_devices);
    let mut devices: Vec<DeviceAddress> = all
        .map(|device| DeviceAddress { kind: device.kind.clone(), address: device.address.clone() })
        .collect();
    devices.sort();
    devices.dedup();
    devices
}

fn of_one(config: &DomainConfig) -> Vec<String> {
    let on_host = config.disks.iter().filter(|disk| matches!(disk.kind.as_str(), "file" | "block" | "dir"));
    let disks = on_host.flat_map(|disk| std::iter::once(&disk.source).chain(&disk.backing_files));
    let boot = config.boot_files.iter().map(|file| &file.path);
    let firmware = config.firmware.iter().flat_map(|firmware| {
        std::iter::once(&firmware.loader).chain(&firmware.nvram).chain(&firmware.nvram_template)
    });
    let tpm = config.tpm.iter().filter_map(|tpm| tpm.state_folder.as_ref());
    let opened = config.opened_files().into_iter().map(|file| file.path);
    let named = disks.chain(boot).chain(firmware).chain(tpm).cloned();
    named.chain(opened).filter(|path| path.starts_with('/')).collect()
}
