//! Ports and socket addresses that the destination's QEMU must get by their number: fixed ports of displays and serial
//! ports, the address of a vsock, and servers that it connects to. What libvirt chooses anew on every host is only counted.

use roxmltree::Node;
use vmgate_facts::{Fact, PortProtocol, VmPort, VmServer, text::plain};

use super::{child, children};

/// Address of displays without one, unless qemu.conf names another (vnc_listen, spice_listen).
const LOOPBACK: &str = "127.0.0.1";

/// Elements with a character device that may be a server.
const CHARACTER_DEVICES: [&str; 7] =
    ["serial", "console", "parallel", "channel", "redirdev", "smartcard", "rng"];

/// Ports that the configuration fixes, each once.
pub(super) fn fixed_ports(devices: Node) -> Vec<VmPort> {
    let mut found: Vec<VmPort> = Vec::new();
    for device in devices.children().filter(Node::is_element) {
        let ports = match device.tag_name().name() {
            "graphics" => of_display(device),
            name if CHARACTER_DEVICES.contains(&name) => of_character_device(device),
            _ => Vec::new(),
        };
        for port in ports {
            // The first console is the first serial port once more.
            let same = |other: &VmPort| {
                (other.protocol, &other.address, other.port) == (port.protocol, &port.address, port.port)
            };
            if !found.iter().any(same) {
                found.push(port);
            }
        }
    }
    found
}

/// Number of displays whose port libvirt chooses.
pub(super) fn automatic_displays(devices: Node) -> u32 {
    let displays = children(devices, "graphics").filter(|display| {
        matches!(display.attribute("type"), Some("vnc" | "spice"))
            && !addresses(*display).is_empty()
            && is_automatic(*display)
    });
    u32::try_from(displays.count()).unwrap_or(u32::MAX)
}

/// The fixed address of the VM's vsock.
pub(super) fn fixed_cid(devices: Node) -> Option<u32> {
    let cid = child(child(devices, "vsock")?, "cid")?;
    if cid.attribute("auto") == Some("yes") { None } else { cid.attribute("address")?.parse().ok() }
}

fn is_automatic(display: Node) -> bool {
    let chosen = |name| matches!(display.attribute(name), None | Some("-1" | "0"));
    match display.attribute("autoport") {
        Some("yes") => true,
        Some(_) => false,
        None => chosen("port") && chosen("tlsPort"),
    }
}

/// Addresses of a display; none where it listens on no port at all.
fn addresses(display: Node) -> Vec<String> {
    let mut listens = children(display, "listen").peekable();
    if listens.peek().is_none() {
        return vec![display.attribute("listen").map_or_else(|| LOOPBACK.to_owned(), plain)];
    }
    let on_ports = listens.filter(|listen| matches!(listen.attribute("type"), Some("address" | "network")));
    on_ports.map(|listen| listen.attribute("address").map_or_else(|| LOOPBACK.to_owned(), plain)).collect()
}

fn of_display(display: Node) -> Vec<VmPort> {
    let kind = display.attribute("type").unwrap_or_default();
    let mut ports = Vec::new();
    if matches!(kind, "vnc" | "spice") && !is_automatic(display) {
        ports.extend([("port", kind.to_owned()), ("tlsPort", format!("{kind} tls"))]);
    }
    // libvirt sends the number of a websocket, also one that it has chosen itself at the source.
    ports.push(("websocket", format!("{kind} websocket")));
    let fixed = ports.into_iter().filter_map(|(name, device)| {
        let port: u16 = display.attribute(name)?.parse().ok()?;
        (port > 0).then_some((device, port))
    });
    let addresses = addresses(display);
    fixed
        .flat_map(|(device, port)| {
            addresses.iter().map(move |address| VmPort {
                device: plain(&device),
                protocol: PortProtocol::Tcp,
                address: numeric(address),
                port,
            })
        })
        .collect()
}

fn of_character_device(device: Node) -> Vec<VmPort> {
    let protocol = match kind_of(device) {
        Some("tcp") => PortProtocol::Tcp,
        Some("udp") => PortProtocol::Udp,
        _ => return Vec::new(),
    };
    let binds = sources(device).filter(|source| source.attribute("mode") == Some("bind"));
    binds
        .filter_map(|source| {
            Some(VmPort {
                device: device.tag_name().name().to_owned(),
                protocol,
                address: numeric(source.attribute("host").unwrap_or("0.0.0.0")),
                port: source.attribute("service")?.parse().ok()?,
            })
        })
        .collect()
}

/// Servers that QEMU connects to at its start, each once. With `<reconnect>` it starts without them, and tries again.
pub(super) fn servers(devices: Node) -> Vec<VmServer> {
    let clients = devices
        .children()
        .filter(|device| CHARACTER_DEVICES.contains(&device.tag_name().name()))
        .filter(|device| kind_of(*device) == Some("tcp"));
    let mut found: Vec<VmServer> = Vec::new();
    for device in clients {
        let ends = sources(device)
            .filter(|source| source.attribute("mode") == Some("connect") && !connects_again(*source));
        let servers = ends.filter_map(|source| {
            Some(VmServer {
                device: device.tag_name().name().to_owned(),
                address: numeric(source.attribute("host").unwrap_or(LOOPBACK)),
                port: source.attribute("service")?.parse().ok()?,
                answers: Fact::default(),
            })
        });
        for server in servers {
            // The first console is the first serial port once more.
            if !found.iter().any(|other| (&other.address, other.port) == (&server.address, server.port)) {
                found.push(server);
            }
        }
    }
    found
}

/// Back end of a character device, such as `tcp`; that of a random number generator is in an element of its own.
pub(super) fn kind_of<'a>(device: Node<'a, '_>) -> Option<&'a str> {
    let backend = || child(device, "backend").and_then(|end| end.attribute("type"));
    device.attribute("type").filter(|kind| *kind != "random").or_else(backend)
}

/// Sources of a character device.
pub(super) fn sources<'a, 'input>(device: Node<'a, 'input>) -> impl Iterator<Item = Node<'a, 'input>> {
    std::iter::once(device).chain(child(device, "backend")).flat_map(|end| children(end, "source"))
}

/// True if QEMU goes on without the server that a source names, and tries again.
pub(super) fn connects_again(source: Node) -> bool {
    child(source, "reconnect").is_some_and(|again| again.attribute("enabled") == Some("yes"))
}

fn numeric(address: &str) -> String {
    if address == "localhost" { LOOPBACK.to_owned() } else { plain(address) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(devices: &str) -> (Vec<String>, u32, Option<u32>) {
        let xml = format!("<devices>{devices}</devices>");
        let document = vmgate_facts::xml::parse(&xml).unwrap();
        let devices = document.root_element();
        let ports = fixed_ports(devices);
        let port = |p: &VmPort| format!("{} {:?} {}:{}", p.device, p.protocol, p.address, p.port);
        (ports.iter().map(port).collect(), automatic_displays(devices), fixed_cid(devices))
    }

    #[test]
    fn ports_that_libvirt_chooses_are_not_fixed() {
        let automatic = "<graphics type='vnc' port='5900' autoport='yes' listen='0.0.0.0'/>
            <graphics type='spice'/><graphics type='spice' port='-1' tlsPort='-1'/>
            <graphics type='vnc' autoport='no' port='5999'><listen type='socket' socket='/run/s'/></graphics>
            <graphics type='egl-headless'/><vsock model='virtio'><cid auto='yes' address='3'/></vsock>
            <serial type='tcp'><source mode='connect' host='10.0.0.3' service='4555'/></serial>";
        assert_eq!(shown(automatic), (Vec::new(), 3, None));
    }

    #[test]
    fn a_server_is_needed_unless_qemu_tries_again() {
        let xml = "<devices><serial type='tcp'><source mode='connect' host='localhost' service='4555'/></serial>
            <console type='tcp'><source mode='connect' host='localhost' service='4555'/></console>
            <channel type='tcp'><source mode='connect' host='logs.example.org' service='514'>
              <reconnect enabled='no'/></source></channel>
            <rng model='virtio'><backend model='egd' type='tcp'><source mode='connect' host='::1' service='708'/></backend></rng>
            <serial type='tcp'><source mode='connect' host='10.0.0.3' service='1'><reconnect enabled='yes' timeout='9'/></source></serial>
            <serial type='tcp'><source mode='bind' host='10.0.0.3' service='2'/></serial>
            <serial type='udp'><source mode='connect' host='10.0.0.3' service='3'/></serial></devices>";
        let document = vmgate_facts::xml::parse(xml).unwrap();
        let servers = servers(document.root_element());
        let shown: Vec<_> =
            servers.iter().map(|one| format!("{} {} {}", one.device, one.address, one.port)).collect();
        assert_eq!(shown, ["serial 127.0.0.1 4555", "channel logs.example.org 514", "rng ::1 708"]);
    }

    #[test]
    fn fixed_ports_are_told_with_their_address() {
        let fixed = "<graphics type='vnc' port='5901' autoport='no' websocket='5701'>
              <listen type='address' address='10.0.0.1'/></graphics>
            <graphics type='spice' port='5902' tlsPort='5903' autoport='no' listen='localhost'/>
            <graphics type='vnc' port='5904' autoport='yes' websocket='5702'/>
            <serial type='tcp'><source mode='bind' host='10.0.0.2' service='4555'/></serial>
            <console type='tcp'><source mode='bind' host='10.0.0.2' service='4555'/></console>
            <serial type='udp'><source mode='bind' host='' service='4556'/>
              <source mode='connect' host='x' service='9'/></serial>
            <rng model='virtio'><backend model='egd' type='tcp'><source mode='bind' service='77'/></backend></rng>
            <vsock model='virtio'><cid auto='no' address='7'/></vsock>";
        let (ports, automatic, cid) = shown(fixed);
        assert_eq!(
            ports,
            [
                "vnc Tcp 10.0.0.1:5901",
                "vnc websocket Tcp 10.0.0.1:5701",
                "spice Tcp 127.0.0.1:5902",
                "spice tls Tcp 127.0.0.1:5903",
                "vnc websocket Tcp 127.0.0.1:5702",
                "serial Tcp 10.0.0.2:4555",
                "serial Udp :4556",
                "rng Tcp 0.0.0.0:77",
            ]
        );
        assert_eq!((automatic, cid), (1, Some(7)));
    }
}
