//! Network interfaces of a VM: what its guest sees from QEMU's monitor, the host's end from the command line and the process.

use std::{collections::BTreeMap, fs, path::Path};

use vmgate_facts::{Cause, Fact, VmNic, text::plain};

use crate::qemu::{devices::Device, monitor::Monitor, process::Qemu};

/// Folder with the interfaces of the host.
const INTERFACES: &str = "/sys/class/net";
/// Most descriptors of a process that are looked at.
const MOST_DESCRIPTORS: usize = 4096;

/// Interfaces of the VM. Unknown where they were given in the old way, which QEMU's monitor does not show.
pub(crate) fn of(qemu: &Qemu, devices: &[Device], monitor: &mut Monitor) -> Fact<Vec<VmNic>> {
    if let Some(option) =
        ["-net", "-nic"].iter().find(|option| qemu.values(option).any(|value| value != "none"))
    {
        let why = format!("the command line has {option}, whose interfaces QEMU's monitor does not tell");
        return Fact::unknown(Cause::NotSupported, why);
    }
    let mut taps = taps(qemu.pid);
    let cards = devices.iter().filter(|device| device.component().0 == "interface");
    let mut nics: Vec<VmNic> = cards.map(|card| nic(qemu, card, monitor, &mut taps)).collect();
    // Of an interface that was plugged in later, the tap is the one that is left.
    let mut without: Vec<&mut VmNic> =
        nics.iter_mut().filter(|nic| nic.tap.is_none() && nic.kind == "ethernet").collect();
    if let ([nic], [tap]) = (without.as_mut_slice(), taps.values().collect::<Vec<_>>().as_slice()) {
        attach(nic, tap);
    }
    Fact::Known(nics)
}

fn nic(qemu: &Qemu, card: &Device, monitor: &mut Monitor, taps: &mut BTreeMap<u32, String>) -> VmNic {
    let back_end = card.text(monitor, "netdev").unwrap_or_default();
    let given = qemu.objects("-netdev").find(|given| given.get("id") == Some(&back_end)).unwrap_or_default();
    let kind = given.get("type").unwrap_or(&given.kind);
    let named = given.get("ifname").map(plain);
    let descriptor = given.get("fd").or_else(|| given.get("fds")?.split(':').next());
    let tap = named.clone().or_else(|| taps.get(&descriptor?.parse().ok()?).cloned());
    if let Some(tap) = &tap {
        taps.retain(|_, other| other != tap);
    }
    let mut nic = VmNic {
        mac: card.text(monitor, "mac").unwrap_or_default(),
        kind: match kind {
            "user" => "user",
            "vhost-user" => "vhostuser",
            "vhost-vdpa" => "vdpa",
            _ => "ethernet",
        }
        .to_owned(),
        source: None,
        tap: None,
        tap_must_exist: false,
        tap_named: named.is_some(),
        model: Some(card.component().1.to_owned()),
        link_up: true,
        mtu_bytes: None,
        vlan_tags: Vec::new(),
        port_group: None,
        virtual_port: None,
        direct_mode: None,
        filter: None,
    };
    if let Some(tap) = tap {
        attach(&mut nic, &tap);
    }
    nic
}

/// Gives an interface its tap, and the bridge of which the tap is a port.
fn attach(nic: &mut VmNic, tap: &str) {
    let bridge = bridge_of(Path::new(INTERFACES), tap);
    if bridge.is_some() {
        "bridge".clone_into(&mut nic.kind);
    }
    nic.source = bridge;
    nic.tap = Some(tap.to_owned());
}

/// The bridge of which a tap is a port. Proxmox VE's firewall has a bridge of its own for each tap, which it makes at the destination
/// anew, and a pair of interfaces from there to the bridge of the network.
fn bridge_of(interfaces: &Path, tap: &str) -> Option<String> {
    let master = |port: &str| {
        let path = fs::read_link(interfaces.join(port).join("master")).ok()?;
        Some(plain(path.file_name()?.to_str()?))
    };
    let names = |folder: &Path| -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    };
    let number = |interface: &str, file| fs::read_to_string(interfaces.join(interface).join(file)).ok();
    let bridge = master(tap)?;
    let behind_the_firewall = || {
        let ports = names(&interfaces.join(&bridge).join("brif"));
        let peer = number(ports.iter().find(|port| *port != tap)?, "iflink")?;
        let all = names(interfaces);
        master(all.iter().find(|one| number(one, "ifindex").as_ref() == Some(&peer))?)
    };
    if bridge.starts_with("fwbr") { behind_the_firewall().or(Some(bridge)) } else { Some(bridge) }
}

/// Taps that a process has open, by descriptor: a queue each, the first of which names the tap.
fn taps(pid: u32) -> BTreeMap<u32, String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return BTreeMap::new() };
    let of = |entry: fs::DirEntry| {
        let descriptor = entry.file_name().to_str()?.parse().ok()?;
        let about = fs::read_to_string(entry.path()).ok()?;
        Some((descriptor, plain(about.lines().find_map(|line| line.strip_prefix("iff:"))?.trim())))
    };
    entries.flatten().take(MOST_DESCRIPTORS).filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_tap_behind_proxmoxs_firewall_is_on_the_bridge_of_its_network() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let interface = |name: &str, index: &str, link: &str, master: Option<&str>| {
            fs::create_dir(at.join(name)).unwrap();
            fs::write(at.join(name).join("ifindex"), index).unwrap();
            fs::write(at.join(name).join("iflink"), link).unwrap();
            if let Some(master) = master {
                symlink(at.join(master), at.join(name).join("master")).unwrap();
            }
        };
        interface("vmbr0", "2", "2", None);
        interface("fwbr100i0", "3", "3", None);
        interface("tap100i0", "4", "4", Some("fwbr100i0"));
        interface("fwln100i0", "5", "6", Some("fwbr100i0"));
        interface("fwpr100p0", "6", "5", Some("vmbr0"));
        interface("tap101i0", "7", "7", Some("vmbr0"));
        assert_eq!(bridge_of(at, "tap100i0").as_deref(), Some("fwbr100i0"), "its ports are not told");
        for port in ["tap100i0", "fwln100i0"] {
            fs::create_dir_all(at.join("fwbr100i0/brif").join(port)).unwrap();
        }
        assert_eq!(bridge_of(at, "tap100i0").as_deref(), Some("vmbr0"));
        assert_eq!(bridge_of(at, "tap101i0").as_deref(), Some("vmbr0"));
        assert_eq!(bridge_of(at, "vmbr0"), None);
    }
}
