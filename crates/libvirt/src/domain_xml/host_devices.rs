//! Devices that tie a VM to its host: passed through, shared, or served by another process there.

use roxmltree::Node;
use vmgate_facts::{Cause, Fact, HostDevice, text::plain};

use super::{child, devices::device_address};

/// Devices of the VM that belong to its host, in the order of the configuration.
pub(super) fn of(devices: Node) -> Vec<HostDevice> {
    devices.children().filter(Node::is_element).filter_map(one).collect()
}

fn one(node: Node) -> Option<HostDevice> {
    let attribute = |element: &str, name: &str| child(node, element).and_then(|child| child.attribute(name));
    let of_source = |name: &str| attribute("source", name).unwrap_or_default().to_owned();
    let element = node.tag_name().name();
    let (kind, model, address) = match (element, node.attribute("type")) {
        ("hostdev", Some("pci")) | ("interface", Some("hostdev")) => ("pci", None, source_address(node)),
        // Channel and crypto devices of s390 are mediated devices, too.
        ("hostdev", Some("mdev")) => match node.attribute("model") {
            Some(model @ ("vfio-ccw" | "vfio-ap")) => ("mdev", Some(model), source_address(node)),
            _ => ("mdev", None, source_address(node)),
        },
        ("hostdev", kind) => (kind.unwrap_or("hostdev"), Some(""), source_address(node)),
        ("interface", Some("vdpa")) | ("disk", Some("vhostvdpa")) => {
            ("vdpa", Some(element), of_source("dev"))
        }
        ("interface" | "disk" | "video", _) if is_vhost_user(node) => {
            ("vhost-user", Some(element), of_source("path"))
        }
        ("disk", Some("nvme")) => ("nvme", Some(""), source_address(node)),
        ("filesystem", _) if attribute("driver", "type") == Some("virtiofs") => {
            // With a socket somebody else than libvirt runs virtiofsd.
            let external = attribute("source", "socket").is_some();
            let model = if external { "external" } else { "launched" };
            ("virtiofs", Some(model), attribute("target", "dir").unwrap_or_default().to_owned())
        }
        ("filesystem", _) => ("9p", Some(""), attribute("target", "dir").unwrap_or_default().to_owned()),
        ("shmem", _) => {
            let role = node.attribute("role").unwrap_or("peer");
            ("shmem", Some(role), node.attribute("name").unwrap_or_default().to_owned())
        }
        ("channel" | "serial" | "console", Some("qemu-vdagent")) => ("qemu-vdagent", Some(""), String::new()),
        _ => return None,
    };
    Some(HostDevice {
        kind: plain(kind),
        address: plain(&address),
        teamed: attribute("teaming", "type") == Some("transient"),
        model: match model {
            Some(model) => Fact::Known(plain(model)),
            None => Fact::unknown(
                Cause::NoHostProbe,
                format!("only the host probe can tell which driver of the source's kernel holds {address}"),
            ),
        },
        optional: matches!(attribute("source", "startupPolicy"), Some("optional" | "requisite")),
        ..HostDevice::default()
    })
}

/// True for a device whose back end is another process, reached by a socket.
fn is_vhost_user(node: Node) -> bool {
    node.attribute("type") == Some("vhostuser")
        || child(node, "driver").and_then(|driver| driver.attribute("name")) == Some("vhostuser")
}

/// Address of a host device on the host: PCI, USB, SCSI or mediated device.
fn source_address(node: Node) -> String {
    let Some(source) = child(node, "source") else {
        return String::new();
    };
    let vendor = child(source, "vendor").and_then(|vendor| vendor.attribute("id"));
    let product = child(source, "product").and_then(|product| product.attribute("id"));
    if let (Some(vendor), Some(product)) = (vendor, product) {
        return format!("{vendor}:{product}");
    }
    let address = child(source, "address").map(device_address).unwrap_or_default();
    // A SCSI device has its adapter's name beside the address, a host adapter of its own its WWPN, a character device its path.
    let adapter = child(source, "adapter").and_then(|adapter| adapter.attribute("name"));
    let named = ["dev", "wwpn", "name", "protocol"].iter().find_map(|name| source.attribute(*name));
    let parts = [adapter, Some(address.as_str()), if address.is_empty() { named } else { None }];
    parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_decides_beside_the_kind_is_read() {
        let xml = "<devices>
            <hostdev mode='subsystem' type='pci'><source><address domain='0x0000' bus='0x3b' slot='0x10' function='0x2'/></source></hostdev>
            <hostdev mode='subsystem' type='mdev' model='vfio-ap'><source><address uuid='u-1'/></source></hostdev>
            <hostdev mode='subsystem' type='mdev' model='vfio-pci'><source><address uuid='u-2'/></source></hostdev>
            <hostdev mode='subsystem' type='usb'><source startupPolicy='optional'><vendor id='0x1050'/><product id='0x0407'/></source></hostdev>
            <hostdev mode='subsystem' type='scsi'><source><adapter name='scsi_host0'/><address bus='0' target='1' unit='2'/></source></hostdev>
            <interface type='vdpa'><source dev='/dev/vhost-vdpa-0'/></interface>
            <interface type='vhostuser'><source type='unix' path='/run/ovs.sock' mode='client'/></interface>
            <video><driver name='vhostuser'/><model type='virtio'/></video>
            <filesystem type='mount'><driver type='virtiofs'/><source socket='/run/fs.sock'/><target dir='a'/></filesystem>
            <filesystem type='mount'><driver type='virtiofs'/><source dir='/s'/><target dir='b'/></filesystem>
            <shmem name='m' role='master'><model type='ivshmem-plain'/></shmem><shmem name='p'/>
            <interface type='bridge'><source bridge='br0'/></interface></devices>";
        let document = vmgate_facts::xml::parse(xml).unwrap();
        let found: Vec<_> = of(document.root_element())
            .iter()
            .map(|device| {
                let model = device.model.known().map_or("?", String::as_str);
                let optional = if device.optional { " optional" } else { "" };
                format!("{}/{model} {}{optional}", device.kind, device.address)
            })
            .collect();
        assert_eq!(
            found,
            [
                "pci/? 0000:3b:10.2",
                "mdev/vfio-ap u-1",
                "mdev/? u-2",
                "usb/ 0x1050:0x0407 optional",
                "scsi/ scsi_host0 0:1:2",
                "vdpa/interface /dev/vhost-vdpa-0",
                "vhost-user/interface /run/ovs.sock",
                "vhost-user/video ",
                "virtiofs/external a",
                "virtiofs/launched b",
                "shmem/master m",
                "shmem/peer p",
            ]
        );
    }
}
