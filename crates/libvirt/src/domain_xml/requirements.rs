//! Further requirements of a domain XML on a host: secrets, labels, addresses to listen at, and files or folders of back ends.

use std::collections::BTreeSet;

use roxmltree::Node;
use vmgate_facts::{BootFile, VmListener, text::plain};

use super::{
    child, children,
    sockets::{connects_again, kind_of, sources},
};

/// Folders that libvirt fills by itself on every host.
const MANAGED_BY_LIBVIRT: &[&str] = &["/var/lib/libvirt/qemu/", "/run/libvirt/", "/var/run/libvirt/"];

/// Models of the VM's security labels, those of single devices included, without `none`.
pub(super) fn security_models(domain: Node) -> Vec<String> {
    let labels = domain.descendants().filter(|node| node.has_tag_name("seclabel"));
    let labelled = labels.filter(|label| label.attribute("type") != Some("none"));
    let models: BTreeSet<String> = labelled.filter_map(|label| label.attribute("model")).map(plain).collect();
    models.into_iter().filter(|model| model != "none").collect()
}

/// Secrets by UUID or usage.
pub(super) fn secrets(domain: Node) -> Vec<String> {
    let references =
        domain.descendants().filter(|node| node.has_tag_name("secret") || node.has_tag_name("encryption"));
    let named = references
        .filter_map(|node| ["uuid", "usage", "secret"].iter().find_map(|name| node.attribute(*name)));
    named.map(plain).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Addresses at which QEMU listens: displays, and character devices that are servers.
pub(super) fn listeners(devices: Node) -> Vec<VmListener> {
    let elements = || devices.children().filter(Node::is_element);
    let displays = elements().filter(|node| node.has_tag_name("graphics")).flat_map(|graphics| {
        let device = graphics.attribute("type").unwrap_or("display");
        let addresses: Vec<&str> = children(graphics, "listen")
            .filter(|listen| listen.attribute("type") == Some("address"))
            .filter_map(|listen| listen.attribute("address"))
            .collect();
        // Without an element, the attribute of old libvirt stands for it.
        let old = graphics.attribute("listen").filter(|_| child(graphics, "listen").is_none());
        addresses.into_iter().chain(old).map(move |address| (device, address)).collect::<Vec<_>>()
    });
    let servers = elements().flat_map(|device| {
        let sources = device.descendants().filter(|node| node.has_tag_name("source"));
        let binds = sources.filter(|source| source.attribute("mode") == Some("bind"));
        binds.filter_map(move |source| Some((device.tag_name().name(), source.attribute("host")?)))
    });
    // An interface of type server waits for the other VM, one of type udp for its packets.
    let links = elements().filter(|node| node.has_tag_name("interface")).filter_map(|interface| {
        let source = child(interface, "source")?;
        let end = match interface.attribute("type")? {
            "server" => source,
            "udp" => child(source, "local")?,
            _ => return None,
        };
        Some(("interface", end.attribute("address")?))
    });
    let found: BTreeSet<(&str, &str)> = displays.chain(servers).chain(links).collect();
    let listener = |(device, address)| VmListener { device: plain(device), address: plain(address) };
    found.into_iter().map(listener).collect()
}

/// Files, devices and folders of back ends that must exist when QEMU starts.
pub(super) fn backend_files(devices: Node) -> Vec<BootFile> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut needs = |purpose: String, path: &str| {
        let path = plain(path.trim());
        let managed = MANAGED_BY_LIBVIRT.iter().any(|folder| path.starts_with(folder));
        let is_new = seen.insert((purpose.clone(), path.clone()));
        if path.starts_with('/') && !managed && is_new {
            found.push(BootFile { purpose, path });
        }
    };
    for device in devices.children().filter(Node::is_element) {
        let kind = device.tag_name().name();
        match kind {
            "serial" | "console" | "parallel" | "channel" | "redirdev" | "smartcard" | "rng" => {
                let backend = child(device, "backend");
                for source in sources(device) {
                    let Some(path) = source.attribute("path") else { continue };
                    match (kind_of(device), source.attribute("mode")) {
                        (Some("unix"), Some("connect")) if connects_again(source) => {}
                        (Some("dev"), _) | (Some("unix"), Some("connect")) => needs(kind.to_owned(), path),
                        (Some("file" | "pipe" | "unix"), _) => {
                            needs(format!("folder of {kind}"), folder_of(path));
                        }
                        _ => {}
                    }
                }
                for log in children(device, "log").filter_map(|log| log.attribute("file")) {
                    needs(format!("folder of {kind} log"), folder_of(log));
                }
                let random = backend.filter(|end| kind == "rng" && end.attribute("model") == Some("random"));
                if let Some(path) = random.and_then(|end| end.text()) {
                    needs(kind.to_owned(), path);
                }
            }
            "input" => {
                let source = child(device, "source");
                if let Some(path) =
                    source.and_then(|source| source.attribute("dev").or_else(|| source.attribute("evdev")))
                {
                    needs(kind.to_owned(), path);
                }
            }
            // Another process serves the device at a socket, which QEMU connects to; as a server QEMU makes it.
            "interface" | "disk" if device.attribute("type") == Some("vhostuser") => {
                if let Some(source) = child(device, "source")
                    && let Some(path) = source.attribute("path")
                {
                    match source.attribute("mode") {
                        Some("server") => needs(format!("folder of {kind}"), folder_of(path)),
                        _ => needs(kind.to_owned(), path),
                    }
                }
            }
            "interface" | "disk" if matches!(device.attribute("type"), Some("vdpa" | "vhostvdpa")) => {
                if let Some(node) = child(device, "source").and_then(|source| source.attribute("dev")) {
                    needs(kind.to_owned(), node);
                }
            }
            "filesystem" => {
                let source = child(device, "source");
                if let Some(path) =
                    source.and_then(|source| source.attribute("socket").or_else(|| source.attribute("dir")))
                {
                    needs(kind.to_owned(), path);
                }
            }
            "vsock" => needs(kind.to_owned(), "/dev/vhost-vsock"),
            "graphics" => {
                if let Some(node) = child(device, "gl").and_then(|gl| gl.attribute("rendernode")) {
                    needs("graphics".to_owned(), node);
                }
            }
            _ => {}
        }
    }
    found
}

fn folder_of(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) => "/",
        Some((folder, _)) => folder,
        None => path,
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    const XML: &str = "<domain><seclabel type='dynamic' model='apparmor'/><seclabel type='none' model='selinux'/>
        <seclabel type='dynamic' model='dac'/><devices>
        <disk type='file'><source file='/a'><encryption format='luks'><secret type='passphrase' uuid='u-1'/></encryption></source></disk>
        <disk type='network'><source protocol='rbd' name='p/i'><auth username='x'><secret type='ceph' usage='ceph x'/></auth></source></disk>
        <graphics type='vnc' port='-1' autoport='yes' listen='10.0.0.1'><listen type='address' address='10.0.0.1'/></graphics>
        <graphics type='spice' listen='0.0.0.0'/><graphics type='vnc'><listen type='socket'/></graphics>
        <serial type='tcp'><source mode='bind' host='10.0.0.2' service='4555'/></serial>
        <serial type='tcp'><source mode='connect' host='10.0.0.3' service='4555'/></serial>
        <interface type='server'><source address='10.0.0.4' port='5558'/></interface>
        <interface type='udp'><source address='10.0.0.5' port='1'><local address='10.0.0.6' port='2'/></source></interface>
        <console type='file'><source path='/var/log/guests/c.log'/><log file='/var/log/other/x.log'/></console>
        <channel type='unix'><source mode='bind' path='/var/lib/libvirt/qemu/channel/x'/></channel>
        <channel type='unix'><source mode='connect' path='/run/app.sock'/></channel>
        <channel type='unix'><source mode='connect' path='/run/later.sock'><reconnect enabled='yes' timeout='9'/></source></channel>
        <serial type='dev'><source path='/dev/ttyS0'/></serial>
        <rng model='virtio'><backend model='random'>/dev/hwrng</backend></rng>
        <rng model='virtio'><backend model='egd' type='unix'><source mode='connect' path='/run/egd'/></backend></rng>
        <interface type='vhostuser'><source type='unix' path='/run/ovs.sock' mode='client'/></interface>
        <interface type='vhostuser'><source type='unix' path='/run/sw/vm.sock' mode='server'/></interface>
        <interface type='vdpa'><source dev='/dev/vhost-vdpa-0'/></interface>
        <filesystem type='mount'><driver type='virtiofs'/><source socket='/run/fs.sock'/><target dir='a'/></filesystem>
        <input type='evdev'><source dev='/dev/input/event3' grab='all'/></input>
        <vsock model='virtio'><cid auto='yes'/></vsock>
        <graphics type='egl-headless'><gl rendernode='/dev/dri/renderD128'/></graphics></devices></domain>";

    #[test]
    fn labels_secrets_addresses_and_files_are_found() {
        let document = vmgate_facts::xml::parse(XML).unwrap();
        let domain = document.root_element();
        let devices = child(domain, "devices").unwrap();
        assert_eq!(security_models(domain), ["apparmor", "dac"]);
        assert_eq!(secrets(domain), ["ceph x", "u-1"]);
        let listeners: Vec<_> =
            listeners(devices).iter().map(|l| format!("{} {}", l.device, l.address)).collect();
        assert_eq!(
            listeners,
            ["interface 10.0.0.4", "interface 10.0.0.6", "serial 10.0.0.2", "spice 0.0.0.0", "vnc 10.0.0.1"]
        );
        let files: Vec<_> =
            backend_files(devices).iter().map(|f| format!("{}: {}", f.purpose, f.path)).collect();
        assert_eq!(
            files,
            [
                "folder of console: /var/log/guests",
                "folder of console log: /var/log/other",
                "channel: /run/app.sock",
                "serial: /dev/ttyS0",
                "rng: /dev/hwrng",
                "rng: /run/egd",
                "interface: /run/ovs.sock",
                "folder of interface: /run/sw",
                "interface: /dev/vhost-vdpa-0",
                "filesystem: /run/fs.sock",
                "input: /dev/input/event3",
                "vsock: /dev/vhost-vsock",
                "graphics: /dev/dri/renderD128",
            ]
        );
    }
}
