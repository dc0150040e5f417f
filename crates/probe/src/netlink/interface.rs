//! Network interfaces of this machine with their flags and addresses (RTM_GETLINK, RTM_GETADDR).

use std::{io::Error, net::IpAddr};

use crate::netlink::{Request, attribute, dump, number32, text};

const RTM_GETLINK: u16 = 18;
const RTM_GETADDR: u16 = 22;
const IFLA_IFNAME: u16 = 3;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// struct ifinfomsg.
const LINK: usize = 16;
/// struct ifaddrmsg.
const ADDRESS: usize = 8;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) index: u32,
    /// True if it is set up.
    pub(crate) up: bool,
    /// True if it can also carry packets.
    pub(crate) running: bool,
    /// Addresses with the lengths of their prefixes.
    pub(crate) addresses: Vec<(IpAddr, u8)>,
}

/// All interfaces, in the kernel's order.
pub(crate) fn interfaces() -> Result<Vec<Interface>, Error> {
    let links = dump(libc::NETLINK_ROUTE, &Request::new(RTM_GETLINK, &[0; LINK]))?;
    let mut interfaces: Vec<_> = links.iter().filter_map(|link| interface(link)).collect();
    for address in dump(libc::NETLINK_ROUTE, &Request::new(RTM_GETADDR, &[0; ADDRESS]))? {
        let index = number32(&address, 4);
        if let Some(interface) = interfaces.iter_mut().find(|one| Some(one.index) == index) {
            interface.addresses.extend(address_and_prefix(&address));
        }
    }
    Ok(interfaces)
}

fn interface(link: &[u8]) -> Option<Interface> {
    let flags = number32(link, 8)?.cast_signed();
    Some(Interface {
        name: text(attribute(link, LINK, IFLA_IFNAME)?),
        index: number32(link, 4)?,
        up: flags & libc::IFF_UP != 0,
        running: flags & libc::IFF_RUNNING != 0,
        addresses: Vec::new(),
    })
}

/// The interface's own address; of a point-to-point link IFA_ADDRESS is that of the other end.
fn address_and_prefix(message: &[u8]) -> Option<(IpAddr, u8)> {
    let of = |kind| attribute(message, ADDRESS, kind);
    Some((address(of(IFA_LOCAL).or_else(|| of(IFA_ADDRESS))?)?, *message.get(1)?))
}

/// An address from its 4 or 16 octets.
pub(crate) fn address(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(octets) {
        return Some(four.into());
    }
    <[u8; 16]>::try_from(octets).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn interfaces_are_those_of_ip() {
        let output = Command::new("ip").args(["-json", "address"]).output().unwrap();
        let told: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
        let found = interfaces().unwrap();
        assert!(
            found.iter().any(|one| one.name == "lo" && one.addresses.contains(&([127, 0, 0, 1].into(), 8)))
        );
        for told in told {
            let name = told["ifname"].as_str().unwrap();
            // Another test may have just made or removed an interface.
            let Some(one) = found.iter().find(|one| one.name == name) else { continue };
            let flags = told["flags"].as_array().unwrap();
            assert_eq!(one.up, flags.iter().any(|flag| flag == "UP"), "{name}");
            let addresses = told["addr_info"].as_array().unwrap().iter();
            let addresses: Vec<_> = addresses
                .map(|one| {
                    let prefix = u8::try_from(one["prefixlen"].as_u64().unwrap()).unwrap();
                    (one["local"].as_str().unwrap().parse().unwrap(), prefix)
                })
                .collect();
            assert_eq!(one.addresses, addresses, "{name}");
        }
    }
}
