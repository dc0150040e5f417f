//! Ports of a kernel's bridge that are no guest's tap: whether they forward, which VLANs they carry, and which switch is behind.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use vmgate_facts::{SwitchPort, Uplink, text::plain};

use super::lldp::switch_ports;
use crate::netlink::{self, Request, attribute, attributes, number32};

const RTM_GETLINK: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_EXT_MASK: u16 = 29;
/// RTEXT_FILTER_BRVLAN: the VLANs of each port, one by one.
const EACH_VLAN: u32 = 1 << 1;
const IFLA_BRIDGE_VLAN_INFO: u16 = 2;
/// struct ifinfomsg, whose family is that of bridges.
const LINK: usize = 16;
/// BR_STATE_FORWARDING.
const FORWARDING: u32 = 3;

/// Interfaces of one VLAN, as the kernel's module 8021q lists them.
const VLAN_INTERFACES: &str = "/proc/net/vlan/config";
/// Most interfaces upon each other: a VLAN on a bond on a card has three.
const MOST_LAYERS: usize = 4;

/// VLANs of all ports of bridges, by the index of the port's interface.
type VlansByPort = BTreeMap<u32, Vec<u32>>;

/// VLANs of all ports, as the kernel tells them; none where it does not.
fn vlans_by_port() -> Option<VlansByPort> {
    let mut fixed = [0; LINK];
    if let Some(family) = fixed.first_mut() {
        *family = u8::try_from(libc::AF_BRIDGE).ok()?;
    }
    let request = Request::new(RTM_GETLINK, &fixed).with(IFLA_EXT_MASK, &EACH_VLAN.to_ne_bytes());
    let links = netlink::dump(libc::NETLINK_ROUTE, &request).ok()?;
    Some(links.iter().filter_map(|link| Some((number32(link, 4)?, vlans(link)))).collect())
}

fn vlans(link: &[u8]) -> Vec<u32> {
    let spec = attribute(link, LINK, IFLA_AF_SPEC).unwrap_or_default();
    // struct bridge_vlan_info: flags and VLAN, 16 bits each.
    let vlan = |(kind, value): (u16, &[u8])| {
        let both = (kind == IFLA_BRIDGE_VLAN_INFO).then(|| value.get(2..4)?.first_chunk().copied())??;
        Some(u32::from(u16::from_ne_bytes(both)))
    };
    attributes(spec, 0).filter_map(vlan).collect()
}

/// Knowledge of ports beyond the folder of their bridge.
pub(super) struct Surroundings {
    /// Folders of the interfaces, by name.
    interfaces: PathBuf,
    vlans: Option<VlansByPort>,
    /// Tags of interfaces of one VLAN, by name.
    tags: BTreeMap<String, u32>,
    switch_ports: Vec<SwitchPort>,
}

impl Default for Surroundings {
    fn default() -> Self {
        let interfaces = PathBuf::from("/sys/class/net");
        Self { interfaces, vlans: None, tags: BTreeMap::new(), switch_ports: Vec::new() }
    }
}

impl Surroundings {
    pub(super) fn look() -> Self {
        let config = fs::read_to_string(VLAN_INTERFACES).unwrap_or_default();
        Self { vlans: vlans_by_port(), tags: tags(&config), switch_ports: switch_ports(), ..Self::default() }
    }

    fn uplink(&self, port: &Path, vlan_aware: bool) -> Uplink {
        let number = |file: &str| -> Option<u32> {
            fs::read_to_string(port.join(file)).ok().and_then(|text| text.trim().parse().ok())
        };
        let name = port.file_name().map(|name| plain(&name.to_string_lossy())).unwrap_or_default();
        let (tag, switch_ports) = self.behind(&name);
        Uplink {
            forwards: number("state") == Some(FORWARDING),
            vlans: (self.vlans.as_ref().filter(|_| vlan_aware))
                .and_then(|all| all.get(&number("../ifindex")?).cloned()),
            name,
            tag,
            switch_ports,
        }
    }

    /// Tag that an interface adds, and the switch ports at the other end of its cables.
    pub(super) fn behind(&self, name: &str) -> (Option<u32>, Vec<SwitchPort>) {
        let mut below = vec![name.to_owned()];
        add_lower(&self.interfaces.join(name), &mut below, MOST_LAYERS);
        let tag = below.iter().find_map(|name| self.tags.get(name).copied());
        let ports = self.switch_ports.iter().filter(|port| below.contains(&port.nic));
        (tag, ports.cloned().collect())
    }

    /// True for an interface of the host that is no tap of QEMU.
    pub(super) fn is_cable(&self, name: &str) -> bool {
        leads_out(&self.interfaces.join(name))
    }
}

/// A tap of QEMU has this file, a cable, a bond or a tunnel has none.
fn leads_out(interface: &Path) -> bool {
    interface.exists() && !interface.join("tun_flags").exists()
}

/// Adds the interfaces below one: a bond's ports, the interface that carries a VLAN.
fn add_lower(interface: &Path, found: &mut Vec<String>, layers: usize) {
    for entry in fs::read_dir(interface).into_iter().flatten().flatten().filter(|_| layers > 0) {
        if let Some(lower) = entry.file_name().to_string_lossy().strip_prefix("lower_") {
            found.push(plain(lower));
            add_lower(&entry.path(), found, layers - 1);
        }
    }
}

/// Tags of the interfaces of one VLAN: lines of name, tag and the interface below.
fn tags(config: &str) -> BTreeMap<String, u32> {
    let line = |line: &str| {
        let mut columns = line.split('|').map(str::trim);
        Some((plain(columns.next()?), columns.next()?.parse().ok()?))
    };
    config.lines().filter_map(line).collect()
}

/// The uplinks of the bridge whose folder `bridge` is in sysfs.
pub(super) fn uplinks(bridge: &Path, vlan_aware: bool, around: &Surroundings) -> Option<Vec<Uplink>> {
    let ports = fs::read_dir(bridge.with_file_name("brif")).ok()?.flatten().map(|port| port.path());
    let ports = ports.filter(|port| leads_out(&port.join("..")));
    let mut uplinks: Vec<_> = ports.map(|port| around.uplink(&port, vlan_aware)).collect();
    uplinks.sort_by(|a, b| a.name.cmp(&b.name));
    Some(uplinks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vlans_of_a_port_are_in_its_bridge_attributes() {
        let vlan = |vid: u16| [[8, 0, 2, 0].as_slice(), &6_u16.to_ne_bytes(), &vid.to_ne_bytes()].concat();
        let spec = [vlan(1), vlan(42)].concat();
        let length = u16::try_from(4 + spec.len()).unwrap().to_ne_bytes();
        let link = [&[0; LINK][..], &length, &IFLA_AF_SPEC.to_ne_bytes(), &spec].concat();
        assert_eq!(vlans(&link), [1, 42]);
        for cut in 0..link.len() {
            let _ = vlans(&link[..cut]);
        }
        assert_eq!(vlans(&[]), Vec::<u32>::new());
    }

    #[test]
    fn a_guests_tap_is_no_uplink() {
        let folder = tempfile::tempdir().unwrap();
        let bridge = folder.path().join("br0/bridge");
        for (name, state, tap) in [("eth1", "3\n", false), ("vnet0", "3\n", true), ("eth2", "4\n", false)] {
            // In sysfs each port is a link to the interface's folder of the bridge's settings.
            let settings = folder.path().join(name).join("brport");
            fs::create_dir_all(&settings).unwrap();
            fs::write(settings.join("state"), state).unwrap();
            if tap {
                fs::write(folder.path().join(name).join("tun_flags"), "0x5002\n").unwrap();
            }
            fs::create_dir_all(folder.path().join(name).join(format!("lower_{name}-card"))).unwrap();
            let at = bridge.with_file_name("brif");
            fs::create_dir_all(&at).unwrap();
            std::os::unix::fs::symlink(&settings, at.join(name)).unwrap();
        }
        let switch_port = SwitchPort { nic: "eth2-card".into(), ..SwitchPort::default() };
        let config = "VLAN Dev name\t | VLAN ID\nName-Type: VLAN_NAME_TYPE_PLUS_VID_NO_PAD\neth1           | 42  | eth1-card\n";
        let around = Surroundings {
            interfaces: folder.path().to_owned(),
            tags: tags(config),
            switch_ports: vec![switch_port],
            ..Surroundings::default()
        };
        let found = uplinks(&bridge, false, &around).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|uplink| (uplink.name.as_str(), uplink.forwards, uplink.tag, uplink.switch_ports.len()))
            .collect();
        assert_eq!(found, [("eth1", true, Some(42), 0), ("eth2", false, None, 1)]);
    }
}
