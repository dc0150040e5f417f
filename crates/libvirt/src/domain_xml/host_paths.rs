//! Paths that must exist at a host before libvirt starts the VM there, and that follow from what the VM uses: device nodes of the
//! kernel and sockets of other programs.

use roxmltree::Node;
use vmgate_facts::{BootFile, text::plain};

use super::{child, children};

/// Paths, each with the purpose that names it.
pub(super) fn of(domain: Node) -> Vec<BootFile> {
    let mut found: Vec<BootFile> = Vec::new();
    let mut needs = |purpose: &str, path: &str| {
        let file = BootFile { purpose: purpose.to_owned(), path: plain(path.trim()) };
        if file.path.starts_with('/') && !found.contains(&file) {
            found.push(file);
        }
    };
    if domain.attribute("type") == Some("kvm") {
        needs("KVM", "/dev/kvm");
    }
    tuning(domain, &mut needs);
    let devices = || child(domain, "devices").into_iter().flat_map(|devices| devices.children());
    for device in devices() {
        of_device(device, &mut needs);
    }
    // libvirt opens vhost-net for an accelerated guest alone, and goes on without it where nobody asks for it
    // (qemuInterfaceOpenVhostNet).
    if domain.attribute("type") == Some("kvm") {
        for path in devices().filter_map(demanded_vhost_net) {
            needs("vhost", path);
        }
    }
    found
}

/// Settings of the host that the VM is given parts of.
fn tuning(domain: Node, needs: &mut impl FnMut(&str, &str)) {
    let tune = child(domain, "cputune");
    if tune.is_some_and(|tune| child(tune, "cachetune").is_some() || child(tune, "memorytune").is_some()) {
        needs("cache or memory bandwidth allocation (resctrl)", "/sys/fs/resctrl/schemata");
    }
}

fn of_device(device: Node, needs: &mut impl FnMut(&str, &str)) {
    let source = child(device, "source");
    match device.tag_name().name() {
        "interface" => of_interface(device, needs),
        "graphics" => {
            let listens = children(device, "listen").filter_map(|listen| listen.attribute("socket"));
            for socket in device.attribute("socket").into_iter().chain(listens) {
                if let Some((folder, _)) = socket.rsplit_once('/') {
                    needs("folder of a display's socket", folder);
                }
            }
        }
        "disk" => {
            // A disk on the network may have its server behind a socket of this host.
            for host in source.into_iter().flat_map(|source| children(source, "host")) {
                if let Some(socket) = host.attribute("socket") {
                    needs("socket of a disk", socket);
                }
            }
            // libvirt starts a managed helper by itself.
            let helper = source.and_then(|source| child(source, "reservations"));
            let socket = helper.and_then(|helper| child(helper, "source"));
            if helper.and_then(|helper| helper.attribute("managed")) == Some("no")
                && let Some(path) = socket.and_then(|socket| socket.attribute("path"))
            {
                needs("socket of the helper for persistent reservations", path);
            }
        }
        "memory" if device.attribute("model") == Some("sgx-epc") => {
            needs("SGX", "/dev/sgx_vepc");
            needs("SGX", "/dev/sgx_provision");
        }
        "tpm" => {
            let backend = child(device, "backend");
            let kind = backend.and_then(|backend| backend.attribute("type"));
            if kind == Some("passthrough")
                && let Some(path) =
                    backend.and_then(|end| child(end, "device")).and_then(|of| of.attribute("path"))
            {
                needs("tpm", path);
            }
            // An external TPM is another program's, behind a socket.
            if kind == Some("external")
                && let Some(path) =
                    backend.and_then(|end| child(end, "source")).and_then(|of| of.attribute("path"))
            {
                needs("socket of a TPM", path);
            }
        }
        _ => {}
    }
}

fn of_interface(interface: Node, needs: &mut impl FnMut(&str, &str)) {
    let kind = interface.attribute("type").unwrap_or_default();
    let source = child(interface, "source");
    if matches!(kind, "bridge" | "network" | "ethernet") {
        needs("tap", "/dev/net/tun");
    }
    if kind == "vhostuser"
        && let Some(path) = source.and_then(|source| source.attribute("path"))
    {
        let client = source.and_then(|source| source.attribute("mode")) != Some("server");
        match path.rsplit_once('/') {
            _ if client => needs("socket of an interface", path),
            Some((folder, _)) => needs("folder of an interface's socket", folder),
            None => {}
        }
    }
    if kind == "vdpa"
        && let Some(path) = source.and_then(|source| source.attribute("dev"))
    {
        needs("vdpa", path);
    }
}

/// Device of the kernel's back end, where an interface cannot do without.
fn demanded_vhost_net<'a>(interface: Node<'a, '_>) -> Option<&'a str> {
    let is_tap = matches!(interface.attribute("type"), Some("bridge" | "network" | "ethernet" | "direct"));
    let demanded = child(interface, "driver")?.attribute("name") == Some("vhost");
    let path = child(interface, "backend").and_then(|backend| backend.attribute("vhost"));
    (interface.has_tag_name("interface") && is_tap && demanded).then(|| path.unwrap_or("/dev/vhost-net"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_has_its_purpose() {
        let xml = "<domain type='kvm'>
            <cputune><cachetune vcpus='0'/></cputune>
            <devices>
            <interface type='bridge'><source bridge='br0'/><driver name='vhost'/></interface>
            <interface type='ethernet'><backend vhost='/dev/not-asked-for'/></interface>
            <interface type='ethernet'><driver name='vhost'/><backend vhost='/dev/vhost-9'/></interface>
            <interface type='vhostuser'><source type='unix' path='/run/ovs/a' mode='client'/></interface>
            <interface type='vhostuser'><source type='unix' path='/run/vm/b' mode='server'/></interface>
            <interface type='user'/>
            <disk type='network'><source protocol='nbd' name='x'><host transport='unix' socket='/run/nbd'/></source></disk>
            <disk type='block'><source dev='/dev/sdb'><reservations managed='no'>
              <source type='unix' path='/run/pr' mode='client'/></reservations></source></disk>
            <disk type='block'><source dev='/dev/sdc'><reservations managed='yes'>
              <source type='unix' path='/run/own' mode='client'/></reservations></source></disk>
            <graphics type='vnc' socket='/srv/vnc/a'><listen type='socket' socket='/srv/vnc/a'/></graphics>
            <memory model='sgx-epc'/><tpm model='tpm-tis'><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>
            </devices></domain>";
        let document = vmgate_facts::xml::parse(xml).unwrap();
        let found: Vec<_> = of(document.root_element())
            .iter()
            .map(|file| format!("{}: {}", file.purpose, file.path))
            .collect();
        assert_eq!(
            found,
            [
                "KVM: /dev/kvm",
                "cache or memory bandwidth allocation (resctrl): /sys/fs/resctrl/schemata",
                "tap: /dev/net/tun",
                "socket of an interface: /run/ovs/a",
                "folder of an interface's socket: /run/vm",
                "socket of a disk: /run/nbd",
                "socket of the helper for persistent reservations: /run/pr",
                "folder of a display's socket: /srv/vnc",
                "SGX: /dev/sgx_vepc",
                "SGX: /dev/sgx_provision",
                "tpm: /dev/tpm0",
                "vhost: /dev/vhost-net",
                "vhost: /dev/vhost-9",
            ]
        );
        let emulated = xml.replace("kvm", "qemu");
        let emulated = vmgate_facts::xml::parse(&emulated).unwrap();
        assert!(of(emulated.root_element()).iter().all(|file| file.purpose != "vhost"));
    }
}
