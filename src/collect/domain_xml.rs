//! The VM's configuration, as far as it bears on a move, read from libvirt's domain XML.

use roxmltree::{Document, Node};

use super::text::plain;
use crate::fact::{Accelerator, CpuMode, HostDevice, VmDisk, VmNic};

/// Channel that QEMU's guest agent listens on.
const AGENT_CHANNEL: &str = "org.qemu.guest_agent.0";

/// What the domain XML says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DomainConfig {
    /// What executes the guest; absent for kinds that QEMU does not have.
    pub accelerator: Option<Accelerator>,
    /// Memory the VM has now.
    pub memory_bytes: Option<u64>,
    /// Most memory it may have, hotplug included.
    pub memory_max_bytes: Option<u64>,
    /// Pages that back its memory.
    pub backing: Backing,
    /// Virtual CPUs online.
    pub vcpus: Option<u32>,
    /// Architecture, such as `x86_64`.
    pub arch: Option<String>,
    /// Versioned machine type.
    pub machine_type: Option<String>,
    /// Path of the QEMU binary.
    pub emulator: Option<String>,
    /// `kvm`, `qemu` …, as libvirt writes it.
    pub virt_type: Option<String>,
    /// How the CPU is chosen.
    pub cpu_mode: CpuMode,
    /// The CPU model's name.
    pub cpu_model: Option<String>,
    /// The `<cpu>` element as it stands.
    pub cpu_xml: Option<String>,
    /// Whether the guest agent has its channel.
    pub has_agent_channel: bool,
    /// Network interfaces.
    pub nics: Vec<VmNic>,
    /// Disks that have a source.
    pub disks: Vec<VmDisk>,
    /// Devices that tie the VM to its host.
    pub host_devices: Vec<HostDevice>,
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
}

/// Reads a domain XML. The error is the parser's.
pub fn parse(xml: &str) -> Result<DomainConfig, roxmltree::Error> {
    let document = Document::parse(xml)?;
    let domain = document.root_element();
    let os_type = child(domain, "os").and_then(|os| child(os, "type"));
    let devices = child(domain, "devices");
    let devices_named =
        |name: &'static str| devices.into_iter().flat_map(move |devices| children(devices, name));
    let cpu = child(domain, "cpu");
    let virt_type = domain.attribute("type").map(plain);
    let memory = child(domain, "memory").and_then(bytes);
    let max_memory = child(domain, "maxMemory").and_then(bytes);
    Ok(DomainConfig {
        accelerator: match virt_type.as_deref() {
            Some("kvm") => Some(Accelerator::Kvm),
            Some("qemu") => Some(Accelerator::Tcg),
            _ => None,
        },
        memory_bytes: child(domain, "currentMemory").and_then(bytes).or(memory),
        memory_max_bytes: max_memory.max(memory),
        backing: backing(domain),
        vcpus: child(domain, "vcpu").and_then(vcpus),
        arch: os_type.and_then(|os| os.attribute("arch")).map(plain),
        machine_type: os_type.and_then(|os| os.attribute("machine")).map(plain),
        emulator: devices_named("emulator").find_map(|node| node.text()).map(plain),
        virt_type,
        cpu_mode: cpu.map_or(CpuMode::Default, cpu_mode),
        cpu_model: cpu.and_then(|cpu| child(cpu, "model")).and_then(|model| model.text()).map(plain),
        cpu_xml: cpu.and_then(|cpu| xml.get(cpu.range())).map(str::to_owned),
        has_agent_channel: devices_named("channel").any(|channel| {
            child(channel, "target").and_then(|target| target.attribute("name")) == Some(AGENT_CHANNEL)
        }),
        nics: devices_named("interface").map(nic).collect(),
        disks: devices_named("disk").filter_map(disk).collect(),
        host_devices: devices.map(host_devices).unwrap_or_default(),
    })
}

/// The first element of that name directly below.
pub(super) fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|node| node.has_tag_name(name))
}

/// Elements of that name directly below.
pub(super) fn children<'a, 'input>(
    node: Node<'a, 'input>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'input>> {
    node.children().filter(move |node| node.has_tag_name(name))
}

/// A size with libvirt's unit, which is KiB where none is given.
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
        _ => return None,
    })
}

fn backing(domain: Node) -> Backing {
    let Some(huge) = child(domain, "memoryBacking").and_then(|backing| child(backing, "hugepages")) else {
        return Backing::Ordinary;
    };
    let size = child(huge, "page").and_then(|page| {
        let size: u64 = page.attribute("size")?.parse().ok()?;
        size.checked_mul(unit(page.attribute("unit").unwrap_or("KiB"))?)
    });
    size.map_or(Backing::HugeOfDefaultSize, Backing::Huge)
}

fn vcpus(vcpu: Node) -> Option<u32> {
    vcpu.attribute("current").or_else(|| vcpu.text())?.trim().parse().ok()
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

fn nic(interface: Node) -> VmNic {
    let attribute = |element: &str, name: &str| {
        child(interface, element).and_then(|node| node.attribute(name)).map(plain)
    };
    let kind = interface.attribute("type").map(plain).unwrap_or_default();
    let source = ["bridge", "network", "dev", "path"].iter().find_map(|name| attribute("source", name));
    VmNic {
        mac: attribute("mac", "address").unwrap_or_default(),
        // For a libvirt network the live XML names its bridge too; the network is what the destination must have.
        source: if kind == "network" { attribute("source", "network").or(source) } else { source },
        kind,
        tap: attribute("target", "dev"),
        model: attribute("model", "type"),
        link_up: attribute("link", "state").as_deref() != Some("down"),
    }
}

fn disk(disk: Node) -> Option<VmDisk> {
    let source = child(disk, "source")?;
    let place = match (source.attribute("pool"), source.attribute("volume")) {
        (Some(pool), Some(volume)) => format!("{pool}/{volume}"),
        _ => {
            ["file", "dev", "name", "dir", "path"].iter().find_map(|name| source.attribute(*name))?.to_owned()
        }
    };
    Some(VmDisk {
        target: child(disk, "target").and_then(|node| node.attribute("dev")).map(plain).unwrap_or_default(),
        kind: disk.attribute("type").map(plain).unwrap_or_default(),
        source: plain(&place),
        cache: child(disk, "driver")
            .and_then(|node| node.attribute("cache"))
            .map_or_else(|| "default".to_owned(), plain),
        read_only: child(disk, "readonly").is_some(),
        shareable: child(disk, "shareable").is_some(),
    })
}

fn host_devices(devices: Node) -> Vec<HostDevice> {
    let mut found = Vec::new();
    for node in devices.children().filter(Node::is_element) {
        let device = |kind: &str, address: String| HostDevice { kind: plain(kind), address: plain(&address) };
        match node.tag_name().name() {
            "hostdev" => {
                found.push(device(node.attribute("type").unwrap_or("hostdev"), source_address(node)));
            }
            "interface" if node.attribute("type") == Some("hostdev") => {
                found.push(device("pci", source_address(node)));
            }
            "interface" if node.attribute("type") == Some("vdpa") => {
                let dev = child(node, "source").and_then(|source| source.attribute("dev"));
                found.push(device("vdpa", dev.unwrap_or_default().to_owned()));
            }
            "filesystem" => {
                let virtiofs =
                    child(node, "driver").and_then(|driver| driver.attribute("type")) == Some("virtiofs");
                let target = child(node, "target").and_then(|target| target.attribute("dir"));
                found.push(device(
                    if virtiofs { "virtiofs" } else { "9p" },
                    target.unwrap_or_default().to_owned(),
                ));
            }
            "shmem" => found.push(device("shmem", node.attribute("name").unwrap_or_default().to_owned())),
            _ => {}
        }
    }
    found
}

/// The address of a host device on the host: PCI, USB or mediated device.
fn source_address(node: Node) -> String {
    let Some(source) = child(node, "source") else {
        return String::new();
    };
    let vendor = child(source, "vendor").and_then(|vendor| vendor.attribute("id"));
    let product = child(source, "product").and_then(|product| product.attribute("id"));
    if let (Some(vendor), Some(product)) = (vendor, product) {
        return format!("{vendor}:{product}");
    }
    let Some(address) = child(source, "address") else {
        return source.attribute("dev").unwrap_or_default().to_owned();
    };
    let hex = |name: &str| address.attribute(name).map(|text| text.trim_start_matches("0x"));
    match (hex("domain"), hex("bus"), hex("slot"), hex("function")) {
        (Some(domain), Some(bus), Some(slot), Some(function)) => format!("{domain}:{bus}:{slot}.{function}"),
        _ => match (address.attribute("uuid"), address.attribute("bus"), address.attribute("device")) {
            (Some(uuid), ..) => uuid.to_owned(),
            (None, Some(bus), Some(device)) => format!("{bus}:{device}"),
            _ => String::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = r"<domain type='qemu' id='1'>
  <name>web1</name>
  <uuid>5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11</uuid>
  <maxMemory slots='4' unit='KiB'>1048576</maxMemory>
  <memory unit='KiB'>524288</memory>
  <currentMemory unit='KiB'>262144</currentMemory>
  <memoryBacking><hugepages><page size='2' unit='MiB'/></hugepages></memoryBacking>
  <vcpu placement='static' current='2'>4</vcpu>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
  <cpu mode='custom' match='exact' check='full'>
    <model fallback='forbid'>qemu64</model>
    <feature policy='require' name='x2apic'/>
  </cpu>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='none'/>
      <source file='/srv/web1.qcow2' index='1'/><target dev='vda' bus='virtio'/><shareable/>
    </disk>
    <disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>
    <disk type='network' device='disk'><source protocol='rbd' name='pool/img'><host name='ceph1'/></source>
      <target dev='vdb'/></disk>
    <disk type='volume' device='disk'><source pool='fast' volume='v1'/><target dev='vdc'/></disk>
    <interface type='bridge'>
      <mac address='52:54:00:12:34:56'/><source bridge='br0'/><target dev='vnet3'/><model type='virtio'/>
    </interface>
    <interface type='network'>
      <mac address='52:54:00:12:34:57'/><source network='default' bridge='virbr0'/><link state='down'/>
    </interface>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='connected'/></channel>
    <hostdev mode='subsystem' type='pci' managed='yes'><source>
      <address domain='0x0000' bus='0x3b' slot='0x00' function='0x1'/></source></hostdev>
    <hostdev mode='subsystem' type='mdev'><source><address uuid='c2177883-f1bb-47f0-914d-32a22e3a8804'/></source></hostdev>
    <hostdev mode='subsystem' type='usb'><source><vendor id='0x1234'/><product id='0xbeef'/></source></hostdev>
    <filesystem type='mount'><driver type='virtiofs'/><source dir='/s'/><target dir='share'/></filesystem>
    <shmem name='my_shmem0'/>
  </devices>
</domain>";

    #[test]
    fn a_live_configuration_is_read_whole() {
        let config = parse(XML).unwrap();
        assert_eq!(config.accelerator, Some(Accelerator::Tcg));
        assert_eq!(config.memory_bytes, Some(256 << 20));
        assert_eq!(config.memory_max_bytes, Some(1 << 30));
        assert_eq!(config.backing, Backing::Huge(2 << 20));
        assert_eq!(config.vcpus, Some(2));
        assert_eq!(config.machine_type.as_deref(), Some("pc-q35-7.2"));
        assert_eq!((config.cpu_mode, config.cpu_model.as_deref()), (CpuMode::Custom, Some("qemu64")));
        assert!(config.cpu_xml.unwrap().starts_with("<cpu mode='custom'"));
        assert!(config.has_agent_channel);
        let sources: Vec<_> = config.disks.iter().map(|disk| disk.source.as_str()).collect();
        assert_eq!(sources, ["/srv/web1.qcow2", "pool/img", "fast/v1"], "an empty drive is not a disk");
        assert_eq!((config.disks[0].cache.as_str(), config.disks[1].cache.as_str()), ("none", "default"));
        assert!(config.disks[0].shareable);
        assert_eq!(config.nics[0].tap.as_deref(), Some("vnet3"));
        assert_eq!(config.nics[1].source.as_deref(), Some("default"));
        assert!(config.nics[0].link_up && !config.nics[1].link_up);
        let ties: Vec<_> = config.host_devices.iter().map(|d| format!("{} {}", d.kind, d.address)).collect();
        assert_eq!(
            ties,
            [
                "pci 0000:3b:00.1",
                "mdev c2177883-f1bb-47f0-914d-32a22e3a8804",
                "usb 0x1234:0xbeef",
                "virtiofs share",
                "shmem my_shmem0"
            ]
        );
    }

    #[test]
    fn an_empty_domain_is_mostly_unknown_and_no_crash() {
        let config = parse("<domain/>").unwrap();
        assert_eq!(config, DomainConfig::default());
        assert!(parse("").is_err());
        assert!(parse("<domain><memory unit='EiB'>99999999999999999999</memory></domain>").is_ok());
    }
}
