//! Files that a domain names beside its disks and devices: scripts of interfaces, keys and settings of network images, lock areas,
//! and devices of the host with limits. The destination refuses the VM where one is missing.

use roxmltree::Node;
use vmgate_facts::{BootFile, text::plain};

use super::{child, children};

/// Elements with a file in an attribute, anywhere below a device, and the purpose of the file.
const BELOW_DEVICES: &[(&str, &str, &str)] = &[
    ("config", "file", "settings of ceph"),
    ("identity", "keyfile", "key of an image"),
    ("knownHosts", "path", "known hosts of an image"),
];

/// Elements of one kind of device with a file in an attribute.
const OF_DEVICES: &[(&str, &str, &str, &str)] = &[
    ("interface", "script", "path", "script of an interface"),
    ("interface", "downscript", "path", "script of an interface"),
    ("interface", "backend", "tap", "tap"),
    ("lease", "target", "path", "lease"),
];

/// Files, each once.
pub(super) fn of(domain: Node) -> Vec<BootFile> {
    let limited = child(domain, "blkiotune").into_iter().flat_map(|tune| children(tune, "device"));
    let limited = limited.filter_map(|device| Some(("blkiotune", child(device, "path")?.text()?)));
    let devices = child(domain, "devices").into_iter().flat_map(|devices| devices.children());
    let named = devices.filter(Node::is_element).flat_map(|device| {
        let own = OF_DEVICES.iter().filter(move |(kind, ..)| device.has_tag_name(*kind));
        let own = own.filter_map(move |(_, element, name, purpose)| {
            Some((*purpose, child(device, element)?.attribute(*name)?))
        });
        let below = device.descendants().filter(Node::is_element).filter_map(|node| {
            let (_, name, purpose) =
                BELOW_DEVICES.iter().find(|(element, ..)| node.has_tag_name(*element))?;
            Some((*purpose, node.attribute(*name)?))
        });
        own.chain(below)
    });
    let mut found: Vec<BootFile> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for (purpose, path) in limited.chain(named) {
        let path = plain(path.trim());
        if path.starts_with('/') && seen.insert((purpose, path.clone())) {
            found.push(BootFile { purpose: purpose.to_owned(), path });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_beside_disks_and_devices_are_found_once() {
        let xml = "<domain><blkiotune><device><path>/dev/sdb</path><weight>500</weight></device></blkiotune><devices>
            <disk><source protocol='rbd' name='p/i'><config file='/etc/ceph/x.conf'/></source></disk>
            <disk><source protocol='ssh' name='a'><knownHosts path='/k'/><identity keyfile='/id' username='u'/></source>
              <backingStore><source protocol='rbd'><config file='/etc/ceph/x.conf'/></source></backingStore></disk>
            <interface type='ethernet'><script path='/etc/up'/><downscript path='no'/><backend tap='/dev/tap-x'/></interface>
            <lease><lockspace>l</lockspace><target path='/leases' offset='0'/></lease></devices></domain>";
        let document = vmgate_facts::xml::parse(xml).unwrap();
        let files: Vec<String> = of(document.root_element())
            .iter()
            .map(|file| format!("{}: {}", file.purpose, file.path))
            .collect();
        assert_eq!(
            files,
            [
                "blkiotune: /dev/sdb",
                "settings of ceph: /etc/ceph/x.conf",
                "known hosts of an image: /k",
                "key of an image: /id",
                "script of an interface: /etc/up",
                "tap: /dev/tap-x",
                "lease: /leases",
            ]
        );
    }
}
