//! Interfaces and disks of a VM, and devices that bind the VM to its host.

use roxmltree::Node;
use vmgate_facts::{HostDevice, VmDisk, VmNic, text::plain};

use super::{child, children};

/// Deepest backing chain that is read; libvirt's own limit is 200.
const DEEPEST_CHAIN: usize = 200;

/// Parses an interface.
pub(super) fn nic(interface: Node) -> VmNic {
    let attribute = |element: &str, name: &str| {
        child(interface, element).and_then(|node| node.attribute(name)).map(plain)
    };
    let kind = interface.attribute("type").map(plain).unwrap_or_default();
    let source = ["bridge", "network", "dev", "path"].iter().find_map(|name| attribute("source", name));
    let tags = child(interface, "vlan").into_iter().flat_map(|vlan| children(vlan, "tag"));
    VmNic {
        mac: attribute("mac", "address").unwrap_or_default(),
        // For a libvirt network the live XML names its bridge too; the network is what the destination must have.
        source: if kind == "network" { attribute("source", "network").or(source) } else { source },
        kind,
        tap: attribute("target", "dev"),
        model: attribute("model", "type"),
        link_up: attribute("link", "state").as_deref() != Some("down"),
        mtu_bytes: attribute("mtu", "size").and_then(|size| size.parse().ok()),
        vlan_tags: tags.filter_map(|tag| tag.attribute("id")?.parse().ok()).collect(),
        port_group: attribute("source", "portgroup"),
        virtual_port: attribute("virtualport", "type"),
        filter: attribute("filterref", "filter"),
    }
}

/// Parses a disk; none where it has no medium.
pub(super) fn disk(disk: Node) -> Option<VmDisk> {
    let source = child(disk, "source")?;
    let mirror = child(disk, "mirror").map(|mirror| mirror.attribute("job").unwrap_or("copy"));
    Some(VmDisk {
        target: child(disk, "target").and_then(|node| node.attribute("dev")).map(plain).unwrap_or_default(),
        kind: disk.attribute("type").map(plain).unwrap_or_default(),
        source: source_name(source)?,
        cache: child(disk, "driver")
            .and_then(|node| node.attribute("cache"))
            .map_or_else(|| "default".to_owned(), plain),
        read_only: child(disk, "readonly").is_some(),
        shareable: child(disk, "shareable").is_some(),
        device: disk.attribute("device").map_or_else(|| "disk".to_owned(), plain),
        transient: child(disk, "transient").is_some(),
        optional: source.attribute("startupPolicy") == Some("optional"),
        backing_files: backing_files(disk),
        job: mirror.map(plain),
    })
}

/// Path or name of a disk's source.
fn source_name(source: Node) -> Option<String> {
    match (source.attribute("pool"), source.attribute("volume")) {
        (Some(pool), Some(volume)) => Some(plain(&format!("{pool}/{volume}"))),
        _ => {
            ["file", "dev", "name", "dir", "path"].iter().find_map(|name| source.attribute(*name)).map(plain)
        }
    }
}

/// Files and block devices of the backing chain, without images on the network.
fn backing_files(disk: Node) -> Vec<String> {
    let first = child(disk, "backingStore");
    std::iter::successors(first, |store| child(*store, "backingStore"))
        .take(DEEPEST_CHAIN)
        .filter(|store| matches!(store.attribute("type"), Some("file" | "block")))
        .filter_map(|store| source_name(child(store, "source")?))
        .collect()
}

/// Devices that cannot migrate with the VM as they are.
pub(super) fn host_devices(devices: Node) -> Vec<HostDevice> {
    devices.children().filter(Node::is_element).filter_map(host_device).collect()
}

fn host_device(node: Node) -> Option<HostDevice> {
    let attribute = |element: &str, name: &str| child(node, element).and_then(|child| child.attribute(name));
    let kind = node.attribute("type");
    let (kind, address) = match (node.tag_name().name(), kind) {
        ("hostdev", kind) => (kind.unwrap_or("hostdev"), source_address(node)),
        ("interface", Some("hostdev")) => ("pci", source_address(node)),
        ("interface", Some("vdpa")) | ("disk", Some("vhostvdpa")) => {
            ("vdpa", attribute("source", "dev").unwrap_or_default().to_owned())
        }
        ("interface" | "disk", Some("vhostuser")) => {
            ("vhost-user", attribute("source", "path").unwrap_or_default().to_owned())
        }
        ("disk", Some("nvme")) => ("nvme", source_address(node)),
        ("filesystem", _) => {
            let kind = if attribute("driver", "type") == Some("virtiofs") { "virtiofs" } else { "9p" };
            (kind, attribute("target", "dir").unwrap_or_default().to_owned())
        }
        ("shmem", _) => ("shmem", node.attribute("name").unwrap_or_default().to_owned()),
        ("channel" | "serial" | "console", Some("qemu-vdagent")) => ("qemu-vdagent", String::new()),
        _ => return None,
    };
    Some(HostDevice {
        kind: plain(kind),
        address: plain(&address),
        teamed: attribute("teaming", "type") == Some("transient"),
    })
}

/// Address of a host device on the host: PCI, USB or mediated device.
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
