//! Ports that are bound on this host already, and the addresses of its VMs' vsocks.

use std::{fs, net::SocketAddr};

use procfs::net::TcpState;
use vmgate_facts::{BoundPort, Cause, DisplayPorts, PortProtocol, Unknown};

use crate::host::{not_read, procfs_error, qemu_conf::QemuConf};

/// libvirt's default range for displays (src/qemu/qemu_conf.h).
const FIRST_DISPLAY: u16 = 5900;
const LAST_DISPLAY: u16 = 65_535;

/// The sockets bound to one of these ports.
pub(super) fn look(ports: &[u16]) -> Result<Vec<BoundPort>, Unknown> {
    if ports.is_empty() {
        return Ok(Vec::new());
    }
    let mut udp = procfs::net::udp().map_err(|error| procfs_error(&error))?;
    // A kernel without IPv6 has no such file.
    udp.extend(procfs::net::udp6().unwrap_or_default());
    let udp = udp.iter().map(|socket| (PortProtocol::Udp, socket.local_address));
    let tcp = listening()?.into_iter().map(|address| (PortProtocol::Tcp, address));
    let mut found: Vec<BoundPort> = tcp
        .chain(udp)
        .filter(|(_, address)| ports.contains(&address.port()))
        .map(|(protocol, address)| BoundPort {
            protocol,
            address: address.ip().to_canonical().to_string(),
            port: address.port(),
        })
        .collect();
    found.sort_by(|a, b| (a.protocol, a.port, &a.address).cmp(&(b.protocol, b.port, &b.address)));
    found.dedup();
    Ok(found)
}

/// The range for displays, and how much of it is free.
pub(super) fn displays() -> Result<DisplayPorts, Unknown> {
    let conf = QemuConf::read()?;
    let port = |name, default| conf.get(name).and_then(|port| port.parse().ok()).unwrap_or(default);
    free_of(port("remote_display_port_min", FIRST_DISPLAY), port("remote_display_port_max", LAST_DISPLAY))
}

fn free_of(first: u16, last: u16) -> Result<DisplayPorts, Unknown> {
    let mut taken: Vec<u16> = listening()?.iter().map(SocketAddr::port).collect();
    taken.retain(|port| (first..=last).contains(port));
    taken.sort_unstable();
    taken.dedup();
    let free = (first..=last).count().saturating_sub(taken.len());
    Ok(DisplayPorts { first, last, free: u32::try_from(free).unwrap_or(u32::MAX) })
}

fn listening() -> Result<Vec<SocketAddr>, Unknown> {
    let mut sockets = procfs::net::tcp().map_err(|error| procfs_error(&error))?;
    sockets.extend(procfs::net::tcp6().unwrap_or_default());
    let listening = sockets.into_iter().filter(|socket| socket.state == TcpState::Listen);
    Ok(listening.map(|socket| socket.local_address).collect())
}

/// vsock addresses of the VMs that run here, by the arguments of their QEMUs: the kernel has no list of them.
pub(super) fn vsock_cids() -> Result<Vec<u32>, Unknown> {
    if fs::read("/proc/1/cmdline").is_err() {
        return Err(Unknown::new(
            Cause::PermissionDenied,
            "the host hides other users' processes from this user (hidepid)",
        ));
    }
    let entries = fs::read_dir("/proc").map_err(|error| not_read("/proc", &error))?;
    let processes = entries.flatten().filter(|entry| {
        entry.file_name().to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
    });
    let commands = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    let mut cids: Vec<u32> =
        commands.filter_map(|command| cid_in(&String::from_utf8_lossy(&command))).collect();
    cids.sort_unstable();
    cids.dedup();
    Ok(cids)
}

/// The address in `-device vhost-vsock-pci,guest-cid=3` or in its form as JSON.
fn cid_in(command: &str) -> Option<u32> {
    let of_vsock = command.split('\0').find(|argument| argument.contains("vhost-vsock"))?;
    let (_, value) = of_vsock.split_once("guest-cid")?;
    let value = value.trim_start_matches(['"', ':', '=', ' ']);
    value.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn what_is_bound_is_told_with_its_address() {
        let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let ports = [tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port()];
        let found = look(&ports).unwrap();
        let of = |protocol, port| BoundPort { protocol, address: "127.0.0.1".to_owned(), port };
        assert!(
            found.contains(&of(PortProtocol::Tcp, ports[0]))
                && found.contains(&of(PortProtocol::Udp, ports[1]))
        );
        assert_eq!(free_of(ports[0], ports[0]).unwrap().free, 0);
        drop((tcp, udp));
        assert_eq!(look(&ports), Ok(Vec::new()));
        assert_eq!(free_of(ports[0], ports[0]).unwrap().free, 1);
    }

    #[test]
    fn the_address_of_a_vsock_is_read_in_both_forms() {
        let json = "qemu\0-device\0{\"driver\":\"vhost-vsock-pci\",\"id\":\"vsock0\",\"guest-cid\":12,\"vhostfd\":\"28\"}";
        assert_eq!(cid_in(json), Some(12));
        assert_eq!(cid_in("qemu\0-device\0vhost-vsock-pci,id=vsock0,guest-cid=3,vhostfd=28"), Some(3));
        assert_eq!(cid_in("grep\0guest-cid=3"), None);
        assert!(vsock_cids().is_ok());
    }
}
