//! Remote ends of tunnels in the forwarding tables of this machine's bridges (RTM_GETNEIGH of the family AF_BRIDGE).

use std::{io::Error, net::IpAddr};

use crate::netlink::{Request, address, attribute, dump, number32};

const RTM_GETNEIGH: u16 = 30;
const NDA_DST: u16 = 1;
/// struct ndmsg.
const NEIGHBOUR: usize = 12;

/// Addresses to which tunnels send, each with the index of the tunnel's interface.
pub(crate) fn tunnel_remotes() -> Result<Vec<(u32, IpAddr)>, Error> {
    let mut fixed = [0; NEIGHBOUR];
    if let (Some(family), Ok(bridge)) = (fixed.first_mut(), u8::try_from(libc::AF_BRIDGE)) {
        *family = bridge;
    }
    let entries = dump(libc::NETLINK_ROUTE, &Request::new(RTM_GETNEIGH, &fixed))?;
    Ok(entries.iter().filter_map(|entry| remote(entry)).collect())
}

fn remote(entry: &[u8]) -> Option<(u32, IpAddr)> {
    Some((number32(entry, 4)?, address(attribute(entry, NEIGHBOUR, NDA_DST)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_answers_and_a_remote_is_an_address_with_its_interface() {
        tunnel_remotes().unwrap();
        let mut entry = vec![7, 0, 0, 0, 42, 0, 0, 0, 0x80, 0, 2, 0];
        entry.extend([10, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 1, 0, 10, 77, 3, 1]);
        assert_eq!(remote(&entry), Some((42, [10, 77, 3, 1].into())));
        assert_eq!(remote(&entry[..24]), None, "a port of a bridge has no remote end");
    }
}
