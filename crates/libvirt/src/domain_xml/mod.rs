//! Parser of libvirt's domain XML: the parts of the VM's configuration that matter for a move.

mod components;
mod devices;
mod elements;
mod hardware;
mod host_devices;
mod host_paths;
mod marks;
mod memory;
mod named_files;
mod opened;
mod requirements;
mod sockets;
pub mod twin;

use std::collections::HashMap;

pub use elements::{accounts as accounts_of_domain, place};
pub use opened::UserLabel;
use roxmltree::Node;
use vmgate_facts::{
    Accelerator, BootFile, CpuMode, Firmware, HostDevice, OpenedFile, Placement, Tpm, Uuid, VmComponent,
    VmDisk, VmListener, VmMarks, VmNic, VmPort, VmServer, text::plain,
};

/// Name of the channel on which QEMU's guest agent listens.
const AGENT_CHANNEL: &str = "org.qemu.guest_agent.0";

/// libvirt's figure for no memory limit (VIR_DOMAIN_MEMORY_PARAM_UNLIMITED, which is in KiB).
const UNLIMITED_BYTES: u64 = 9_007_199_254_740_991 << 10;

/// Configuration of a VM.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DomainConfig {
    /// The domain's name.
    pub name: Option<String>,
    /// The domain's UUID.
    pub uuid: Option<Uuid>,
    /// Marks of the program that defined the VM.
    pub marks: VmMarks,
    /// Accelerator (KVM or TCG); absent for hypervisors other than QEMU.
    pub accelerator: Option<Accelerator>,
    /// Present memory of the VM.
    pub memory_bytes: Option<u64>,
    /// Maximum memory of the VM. `<maxMemory>` is not it: that is address space for memory that may be plugged in later.
    pub memory_max_bytes: Option<u64>,
    /// Pages that back the VM's memory.
    pub backing: Backing,
    /// True if all memory is there from the start: allocated at once, or locked.
    pub populated: bool,
    /// Virtual CPUs online.
    pub vcpus: Option<u32>,
    /// Maximum number of virtual CPUs; QEMU starts with room for all of them.
    pub most_vcpus: Option<u32>,
    /// Architecture, such as `x86_64`.
    pub arch: Option<String>,
    /// Versioned machine type.
    pub machine_type: Option<String>,
    /// Path of the QEMU binary.
    pub emulator: Option<String>,
    /// `kvm`, `qemu` …, as libvirt writes it.
    pub virt_type: Option<String>,
    /// Mode of the CPU, such as host-passthrough.
    pub cpu_mode: CpuMode,
    /// The CPU model's name.
    pub cpu_model: Option<String>,
    /// The `<cpu>` element as text.
    pub cpu_xml: Option<String>,
    /// True if the VM has the guest agent's channel.
    pub has_agent_channel: bool,
    /// Network interfaces.
    pub nics: Vec<VmNic>,
    /// Disks that have a source.
    pub disks: Vec<VmDisk>,
    /// Devices that tie the VM to its host.
    pub host_devices: Vec<HostDevice>,
    /// Threads of one socket of the virtual CPU.
    pub threads_per_socket: u32,
    /// CPU features demanded by name.
    pub cpu_features: Vec<String>,
    /// Promised frequency of the time stamp counter.
    pub tsc_frequency_hertz: Option<u64>,
    /// Limit on the memory of the VM's process.
    pub memory_hard_limit_bytes: Option<u64>,
    /// NUMA nodes and CPUs of a host to which the VM is bound.
    pub placement: Placement,
    /// Firmware other than QEMU's BIOS.
    pub firmware: Option<Firmware>,
    /// The trusted platform module.
    pub tpm: Option<Tpm>,
    /// Kind of memory encryption.
    pub launch_security: Option<String>,
    /// Files that QEMU opens at its start.
    pub boot_files: Vec<BootFile>,
    /// Label that decides under which user QEMU runs.
    pub user_label: UserLabel,
    /// Files of devices that QEMU opens as its own user.
    device_files: Vec<OpenedFile>,
    /// Models of security labels.
    pub security_models: Vec<String>,
    /// Secrets, by UUID or usage.
    pub secrets: Vec<String>,
    /// Addresses at which QEMU listens.
    pub listeners: Vec<VmListener>,
    /// Ports at which QEMU listens by their number.
    pub fixed_ports: Vec<VmPort>,
    /// Servers that QEMU connects to at its start.
    pub servers: Vec<VmServer>,
    /// Number of displays whose port libvirt chooses.
    pub automatic_displays: u32,
    /// Fixed address of the vsock.
    pub vsock_cid: Option<u32>,
    /// Devices, image formats and settings, and elements that nothing here reads; a catalogue tells which of them migrate.
    pub components: Vec<VmComponent>,
}

/// Pages that back a VM's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backing {
    /// The host's ordinary pages.
    #[default]
    Ordinary,
    /// Huge pages of the host's default size.
    HugeOfDefaultSize,
    /// Huge pages of this many bytes.
    Huge(u64),
    /// Pages of several sizes, ordinary ones perhaps among them.
    Mixed,
}

/// True if the live XML of a VM says that a guest agent has opened its channel. libvirt knows it without a command to the agent.
pub fn agent_is_connected(xml: &str) -> bool {
    let Ok(document) = vmgate_facts::xml::parse(xml) else { return false };
    let devices = child(document.root_element(), "devices");
    let mut channels = devices.into_iter().flat_map(|devices| children(devices, "channel"));
    channels.any(|channel| {
        is_agent_channel(channel)
            && child(channel, "target").and_then(|target| target.attribute("state")) == Some("connected")
    })
}

fn is_agent_channel(channel: roxmltree::Node) -> bool {
    child(channel, "target").and_then(|target| target.attribute("name")) == Some(AGENT_CHANNEL)
}

/// Reads a domain XML. The error is the parser's.
pub fn parse(xml: &str) -> Result<DomainConfig, roxmltree::Error> {
    let document = vmgate_facts::xml::parse(xml)?;
    let domain = document.root_element();
    let os_type = child(domain, "os").and_then(|os| child(os, "type"));
    let devices = child(domain, "devices");
    let devices_named =
        |name: &'static str| devices.into_iter().flat_map(move |devices| children(devices, name));
    let cpu = child(domain, "cpu");
    let virt_type = domain.attribute("type").map(plain);
    let memory = child(domain, "memory").and_then(bytes);
    let uuid = child(domain, "uuid").and_then(|uuid| uuid.text()?.parse().ok());
    Ok(DomainConfig {
        name: child(domain, "name").and_then(|name| name.text()).map(plain),
        tpm: hardware::tpm(devices_named("tpm"), uuid.as_ref()),
        uuid,
        marks: marks::of(domain),
        accelerator: match virt_type.as_deref() {
            Some("kvm") => Some(Accelerator::Kvm),
            Some("qemu") => Some(Accelerator::Tcg),
            _ => None,
        },
        memory_bytes: child(domain, "currentMemory").and_then(bytes).or(memory),
        memory_max_bytes: memory,
        backing: memory::backing(domain),
        populated: memory::is_populated(domain),
        vcpus: child(domain, "vcpu")
            .and_then(|vcpu| vcpus(vcpu.attribute("current").or_else(|| vcpu.text()))),
        most_vcpus: child(domain, "vcpu").and_then(|vcpu| vcpus(vcpu.text())),
        arch: os_type.and_then(|os| os.attribute("arch")).map(plain),
        machine_type: os_type.and_then(|os| os.attribute("machine")).map(plain),
        emulator: devices_named("emulator").find_map(|node| node.text()).map(plain),
        virt_type,
        cpu_mode: cpu.map_or(CpuMode::Default, cpu_mode),
        cpu_model: cpu.and_then(|cpu| child(cpu, "model")).and_then(|model| model.text()).map(plain),
        cpu_xml: cpu.and_then(|cpu| xml.get(cpu.range())).map(str::to_owned),
        has_agent_channel: devices_named("channel").any(is_agent_channel),
        nics: devices_named("interface").map(devices::nic).collect(),
        disks: devices_named("disk").filter_map(devices::disk).collect(),
        host_devices: devices.map(host_devices::of).unwrap_or_default(),
        threads_per_socket: cpu.map_or(1, hardware::threads_per_socket),
        cpu_features: cpu.map(hardware::demanded_features).unwrap_or_default(),
        tsc_frequency_hertz: hardware::tsc_frequency(domain),
        memory_hard_limit_bytes: child(domain, "memtune")
            .and_then(|tune| child(tune, "hard_limit"))
            .and_then(bytes)
            .filter(|&limit| limit < UNLIMITED_BYTES),
        placement: hardware::placement(domain),
        firmware: hardware::firmware(domain),
        launch_security: child(domain, "launchSecurity").and_then(|node| node.attribute("type")).map(plain),
        boot_files: hardware::boot_files(domain)
            .into_iter()
            .chain(devices.map(requirements::backend_files).unwrap_or_default())
            .chain(host_paths::of(domain))
            .chain(named_files::of(domain))
            .collect(),
        user_label: opened::user_label(domain),
        device_files: devices.map(opened::device_files).unwrap_or_default(),
        security_models: requirements::security_models(domain),
        secrets: requirements::secrets(domain),
        listeners: devices.map(requirements::listeners).unwrap_or_default(),
        fixed_ports: devices.map(sockets::fixed_ports).unwrap_or_default(),
        servers: devices.map(sockets::servers).unwrap_or_default(),
        automatic_displays: devices.map(sockets::automatic_displays).unwrap_or_default(),
        vsock_cid: devices.and_then(sockets::fixed_cid),
        components: components::of(domain),
    })
}

impl DomainConfig {
    /// The configuration that a migration sends, with what only the live configuration tells: taps, block jobs, the backing
    /// chains that libvirt found with their formats, and the CPU that the guest really got, which the destination must give it (`check='none'` and
    /// optional features say only what was asked for).
    #[must_use]
    pub fn with_live(mut self, live: &Self) -> Self {
        let nics: HashMap<&str, &VmNic> = live.nics.iter().map(|nic| (nic.mac.as_str(), nic)).collect();
        for nic in &mut self.nics {
            if let Some(now) = nics.get(nic.mac.as_str()) {
                nic.tap.clone_from(&now.tap);
            }
        }
        let disks: HashMap<&str, &VmDisk> =
            live.disks.iter().map(|disk| (disk.target.as_str(), disk)).collect();
        for disk in &mut self.disks {
            if let Some(now) = disks.get(disk.target.as_str()) {
                disk.job.clone_from(&now.job);
                disk.backing_files.clone_from(&now.backing_files);
                disk.backing_formats.clone_from(&now.backing_formats);
            }
        }
        // Where a network gives a virtual function of its pool, only live XML shows the device.
        let from_pool = |device: &HostDevice| {
            device.kind == "pci" && !self.host_devices.iter().any(|sent| sent.address == device.address)
        };
        let host_devices = live
            .host_devices
            .iter()
            .map(|device| HostDevice { from_pool: from_pool(device), ..device.clone() })
            .collect();
        let images = live.components.iter().filter(|part| part.kind == components::IMAGE);
        let mut components = self.components;
        for image in images {
            if !components.contains(image) {
                components.push(image.clone());
            }
        }
        Self {
            memory_bytes: live.memory_bytes,
            vcpus: live.vcpus,
            cpu_xml: live.cpu_xml.clone().or(self.cpu_xml),
            components,
            host_devices,
            ..self
        }
    }
}

/// First child element of that name.
pub(super) fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|node| node.has_tag_name(name))
}

/// Child elements of that name.
pub(super) fn children<'a, 'input>(
    node: Node<'a, 'input>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'input>> {
    node.children().filter(move |node| node.has_tag_name(name))
}

/// Parses a size with libvirt's unit, which is KiB where none is given.
fn bytes(node: Node) -> Option<u64> {
    let number: u64 = node.text()?.trim().parse().ok()?;
    number.checked_mul(unit(node.attribute("unit").unwrap_or("KiB"))?)
}

/// Bytes in one of libvirt's units (virScaleInteger).
fn unit(name: &str) -> Option<u64> {
    Some(match name {
        "b" | "byte" | "bytes" => 1,
        "KB" => 1_000,
        "k" | "K" | "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "M" | "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "G" | "GiB" => 1 << 30,
        "TB" => 1_000_000_000_000,
        "T" | "TiB" => 1 << 40,
        "PB" => 1_000_000_000_000_000,
        "P" | "PiB" => 1 << 50,
        "EB" => 1_000_000_000_000_000_000,
        "E" | "EiB" => 1 << 60,
        _ => return None,
    })
}

fn vcpus(number: Option<&str>) -> Option<u32> {
    number?.trim().parse().ok()
}

fn cpu_mode(cpu: Node) -> CpuMode {
    match cpu.attribute("mode") {
        Some("host-model") => CpuMode::HostModel,
        Some("host-passthrough") => CpuMode::HostPassthrough,
        Some("maximum") => CpuMode::Maximum,
        Some("custom") => CpuMode::Custom,
        // libvirt reads a <cpu> without mode as custom where it names a model.
        _ if child(cpu, "model").is_some() => CpuMode::Custom,
        _ => CpuMode::Default,
    }
}

#[cfg(test)]
mod tests;
