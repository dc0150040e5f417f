//! Interfaces and disks of a VM.

use roxmltree::Node;
use vmgate_facts::{VmDisk, VmNic, text::plain};

use super::{child, children};

/// Deepest backing chain that is read; libvirt's own limit is 200.
const DEEPEST_CHAIN: usize = 200;

/// Beginnings of the names that libvirt chooses for devices of interfaces; it does not keep such a name.
const NAMED_BY_LIBVIRT: [&str; 4] = ["vnet", "macvtap", "macvlan", "vif"];

/// Parses an interface.
pub(super) fn nic(interface: Node) -> VmNic {
    let attribute = |element: &str, name: &str| {
        child(interface, element).and_then(|node| node.attribute(name)).map(plain)
    };
    // For an interface of a libvirt network, live XML tells the network's bridge or device, too. The destination resolves
    // the network by its name.
    let network = attribute("source", "network");
    let kind = match network {
        Some(_) => "network".to_owned(),
        None => interface.attribute("type").map(plain).unwrap_or_default(),
    };
    let source =
        network.or_else(|| ["bridge", "dev", "path"].iter().find_map(|name| attribute("source", name)));
    let tags = child(interface, "vlan").into_iter().flat_map(|vlan| children(vlan, "tag"));
    let makes_device = matches!(kind.as_str(), "bridge" | "network" | "ethernet" | "direct")
        && attribute("target", "managed").as_deref() != Some("no");
    VmNic {
        mac: attribute("mac", "address").unwrap_or_default(),
        source,
        kind,
        tap: attribute("target", "dev"),
        tap_named: makes_device
            && attribute("target", "dev")
                .is_some_and(|name| !NAMED_BY_LIBVIRT.iter().any(|prefix| name.starts_with(prefix))),
        tap_must_exist: attribute("target", "managed").as_deref() == Some("no"),
        model: attribute("model", "type"),
        link_up: attribute("link", "state").as_deref() != Some("down"),
        mtu_bytes: attribute("mtu", "size").and_then(|size| size.parse().ok()),
        vlan_tags: tags.filter_map(|tag| tag.attribute("id")?.parse().ok()).collect(),
        port_group: attribute("source", "portgroup"),
        virtual_port: attribute("virtualport", "type"),
        direct_mode: attribute("source", "mode"),
        filter: attribute("filterref", "filter"),
    }
}

/// Parses a disk; none where it has no medium.
pub(super) fn disk(disk: Node) -> Option<VmDisk> {
    let source = child(disk, "source")?;
    let device = disk.attribute("device").map_or_else(|| "disk".to_owned(), plain);
    let removable = matches!(device.as_str(), "cdrom" | "floppy");
    let mirror = child(disk, "mirror").map(|mirror| mirror.attribute("job").unwrap_or("copy"));
    Some(VmDisk {
        target: child(disk, "target").and_then(|node| node.attribute("dev")).map(plain).unwrap_or_default(),
        kind: disk.attribute("type").map(plain).unwrap_or_default(),
        source: source_name(source)?,
        volume: volume(source),
        cache: child(disk, "driver")
            .and_then(|node| node.attribute("cache"))
            .map_or_else(|| "default".to_owned(), plain),
        read_only: child(disk, "readonly").is_some(),
        shareable: child(disk, "shareable").is_some(),
        device,
        transient: child(disk, "transient").is_some(),
        // libvirt leaves out a missing medium of a drive on migration; a missing disk always stops it
        // (qemuDomainCheckDiskStartupPolicy).
        optional: removable && matches!(source.attribute("startupPolicy"), Some("optional" | "requisite")),
        format: child(disk, "driver").and_then(|driver| driver.attribute("type")).map(plain),
        backing_formats: backing_formats(disk),
        backing_files: backing_files(disk),
        job: mirror.map(plain),
    })
}

/// Path or name of a disk's source. An export on the network may have no name, and then has its server's.
fn source_name(source: Node) -> Option<String> {
    if let Some(volume) = volume(source) {
        return Some(volume);
    }
    let named = ["file", "dev", "name", "dir", "path"].iter().find_map(|name| source.attribute(*name));
    let host = || {
        let host = child(source, "host")?;
        host.attribute("name").or_else(|| host.attribute("socket"))
    };
    match source.attribute("protocol") {
        Some(protocol) => Some(plain(
            named
                .map_or_else(|| format!("{protocol}:{}", host().unwrap_or_default()), str::to_owned)
                .as_str(),
        )),
        None => named.map(plain).or_else(|| {
            let address = device_address(child(source, "address")?);
            (!address.is_empty()).then_some(address)
        }),
    }
}

/// Storage pool and volume.
fn volume(source: Node) -> Option<String> {
    Some(plain(&format!("{}/{}", source.attribute("pool")?, source.attribute("volume")?)))
}

/// Elements of the backing chain, nearest first.
pub(super) fn backing_chain<'a, 'input>(disk: Node<'a, 'input>) -> impl Iterator<Item = Node<'a, 'input>> {
    std::iter::successors(child(disk, "backingStore"), |store| child(*store, "backingStore"))
        .take(DEEPEST_CHAIN)
}

/// Formats of the images of the backing chain.
fn backing_formats(disk: Node) -> Vec<String> {
    backing_chain(disk).filter_map(|store| child(store, "format")?.attribute("type")).map(plain).collect()
}

/// Files and block devices of the backing chain, without images on the network, and the data files of qcow2 images.
fn backing_files(disk: Node) -> Vec<String> {
    let own_data = child(disk, "source").and_then(|source| child(source, "dataStore"));
    let stores = backing_chain(disk).flat_map(|store| {
        let data = child(store, "source").and_then(|source| child(source, "dataStore"));
        std::iter::once(store).chain(data)
    });
    own_data
        .into_iter()
        .chain(stores)
        .filter(|store| matches!(store.attribute("type"), Some("file" | "block")))
        .filter_map(|store| source_name(child(store, "source")?))
        .collect()
}

/// Address of a PCI, USB, SCSI or mediated device.
pub(super) fn device_address(address: Node) -> String {
    let attribute = |name: &str| address.attribute(name);
    let hex = |name: &str| attribute(name).map(|text| text.trim_start_matches("0x"));
    if let (Some(domain), Some(bus), Some(slot), Some(function)) =
        (hex("domain"), hex("bus"), hex("slot"), hex("function"))
    {
        return format!("{domain}:{bus}:{slot}.{function}");
    }
    if let Some(uuid) = attribute("uuid") {
        return uuid.to_owned();
    }
    ["bus", "device", "target", "unit"]
        .iter()
        .filter_map(|name| attribute(name))
        .collect::<Vec<_>>()
        .join(":")
}
