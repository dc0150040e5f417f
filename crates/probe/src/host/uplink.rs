//! Ports of a kernel's bridge that are no guest's tap: whether they forward, and which VLANs they carry.

use std::{collections::BTreeMap, fs, path::Path};

use vmgate_facts::{Uplink, text::plain};

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

/// VLANs of all ports of bridges, by the index of the port's interface.
pub(super) type VlansByPort = BTreeMap<u32, Vec<u32>>;

/// VLANs of all ports, as the kernel tells them; none where it does not.
pub(super) fn vlans_by_port() -> Option<VlansByPort> {
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

/// The uplinks of the bridge whose folder `bridge` is in sysfs.
pub(super) fn uplinks(bridge: &Path, vlan_aware: bool, vlans: Option<&VlansByPort>) -> Option<Vec<Uplink>> {
    let ports = fs::read_dir(bridge.with_file_name("brif")).ok()?.flatten().map(|port| port.path());
    let number = |port: &Path, file: &str| -> Option<u32> {
        fs::read_to_string(port.join(file)).ok().and_then(|text| text.trim().parse().ok())
    };
    let uplink = |port: &Path| {
        // A tap of QEMU has this file, a cable, a bond or a tunnel has none.
        let leads_out = !port.join("../tun_flags").exists();
        leads_out.then(|| Uplink {
            name: port.file_name().map(|name| plain(&name.to_string_lossy())).unwrap_or_default(),
            forwards: number(port, "state") == Some(FORWARDING),
            vlans: vlans
                .filter(|_| vlan_aware)
                .and_then(|all| all.get(&number(port, "../ifindex")?).cloned()),
        })
    };
    let mut uplinks: Vec<_> = ports.filter_map(|port| uplink(&port)).collect();
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
            let at = bridge.with_file_name("brif");
            fs::create_dir_all(&at).unwrap();
            std::os::unix::fs::symlink(&settings, at.join(name)).unwrap();
        }
        let found = uplinks(&bridge, false, None).unwrap();
        let found: Vec<_> = found.iter().map(|uplink| (uplink.name.as_str(), uplink.forwards)).collect();
        assert_eq!(found, [("eth1", true), ("eth2", false)]);
    }
}
