//! Addresses at which QEMU listens for a VM, and servers that it connects to, from its monitor and command line.

use serde_json::Value;
use vmgate_facts::{PortProtocol, VmListener, VmPort, VmServer, text::plain};

use crate::qemu::process::Qemu;

/// Sockets of a VM on its host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Sockets {
    pub(crate) ports: Vec<VmPort>,
    pub(crate) servers: Vec<VmServer>,
}

impl Sockets {
    /// Reads the answers of query-vnc and query-chardev.
    pub(crate) fn of(vnc: &Value, chardevs: &Value, qemu: &Qemu) -> Self {
        let mut found = Self::default();
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(plain);
        if vnc.get("enabled").and_then(Value::as_bool) == Some(true)
            && let (Some(host), Some(service)) = (text(vnc, "host"), text(vnc, "service"))
        {
            found.listen("vnc", &host, &service);
        }
        for spice in qemu.objects("-spice") {
            let address = spice.get("addr").unwrap_or("0.0.0.0");
            for (name, device) in [("port", "spice"), ("tls-port", "spice tls")] {
                found.listen(device, address, spice.get(name).unwrap_or("0"));
            }
        }
        for device in chardevs.as_array().into_iter().flatten() {
            let name = text(device, "filename").unwrap_or_default();
            let name = name.strip_prefix("disconnected:").unwrap_or(&name);
            let (Some((protocol, rest)), Some(label)) = (name.split_once(':'), text(device, "label")) else {
                continue;
            };
            let mut parts = rest.split(',');
            let place = parts.next().unwrap_or_default().split(" <->").next().unwrap_or_default();
            let Some((host, port)) = place.rsplit_once(':').filter(|_| protocol != "unix") else { continue };
            if parts.any(|part| part.starts_with("server")) {
                found.listen(&label, host, port);
            } else if let ("tcp" | "telnet", Ok(port)) = (protocol, port.parse()) {
                let (device, address) = (label, host.to_owned());
                found.servers.push(VmServer {
                    device,
                    address,
                    port,
                    answers: vmgate_facts::Fact::default(),
                });
            }
        }
        found
    }

    fn listen(&mut self, device: &str, address: &str, port: &str) {
        let (device, address) = (device.to_owned(), plain(address.trim_matches(['[', ']'])));
        if let Some(port) = port.parse().ok().filter(|&port| port != 0) {
            self.ports.push(VmPort { device, protocol: PortProtocol::Tcp, address, port });
        }
    }

    /// Addresses of the ports.
    pub(crate) fn listeners(&self) -> Vec<VmListener> {
        let of = |port: &VmPort| VmListener { device: port.device.clone(), address: port.address.clone() };
        self.ports.iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::qemu::sockets::*;

    #[test]
    fn ports_and_servers_are_told_from_sockets_in_files() {
        let chardevs = json!([
            { "label": "qmp", "filename": "unix:/var/run/qemu-server/100.qmp,server=on" },
            { "label": "serial0", "filename": "disconnected:telnet:127.0.0.1:4444,server=on" },
            { "label": "log", "filename": "tcp:192.0.2.1:514 <-> 192.0.2.2:40000" },
            { "label": "mon", "filename": "pty:/dev/pts/3" },
        ]);
        let vnc = json!({ "enabled": true, "host": "127.0.0.1", "service": "5901" });
        let found = Sockets::of(&vnc, &chardevs, &Qemu::default());
        let ports: Vec<_> = found.ports.iter().map(|port| (port.device.as_str(), port.port)).collect();
        assert_eq!(ports, [("vnc", 5901), ("serial0", 4444)]);
        assert_eq!((found.servers.len(), found.servers[0].port), (1, 514));
        let in_a_file = json!({ "enabled": true, "host": "/run/100.vnc", "service": "", "family": "unix" });
        assert_eq!(Sockets::of(&in_a_file, &json!([]), &Qemu::default()), Sockets::default());
    }
}
