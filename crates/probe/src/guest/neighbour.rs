//! Neighbours of the guest on its links, from /proc/net/arp (net/ipv4/arp.c). /proc does not show IPv6 neighbours.

use std::net::Ipv4Addr;

use vmgate_facts::{Neighbour, Unknown};

use crate::guest::{GuestReader, MOST_SOCKETS, malformed};

pub(super) const ARP: &str = "/proc/net/arp";
/// ATF_COM: the hardware address is known.
const COMPLETE: u32 = 0x2;

pub(super) fn look(reader: &dyn GuestReader) -> Result<Vec<Neighbour>, Unknown> {
    let text = reader.read(ARP)?;
    let text = std::str::from_utf8(&text).map_err(|_| malformed(ARP, "not text"))?;
    parse(text).ok_or_else(|| malformed(ARP, "not a table of neighbours"))
}

fn parse(text: &str) -> Option<Vec<Neighbour>> {
    let mut lines = text.lines();
    lines.next().filter(|header| header.starts_with("IP address"))?;
    let line = |line: &str| -> Option<Option<Neighbour>> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [address, _, flags, mac, ..] = words.as_slice() else { return None };
        let address: Ipv4Addr = address.parse().ok()?;
        let flags = u32::from_str_radix(flags.strip_prefix("0x")?, 16).ok()?;
        let is_mac = mac.len() == 17 && mac.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':');
        if !is_mac {
            // A link without Ethernet addresses.
            return Some(None);
        }
        let found = Neighbour { address: address.to_string(), mac: mac.to_ascii_lowercase() };
        Some((flags & COMPLETE != 0).then_some(found))
    };
    let found: Option<Vec<Option<Neighbour>>> = lines.take(MOST_SOCKETS).map(line).collect();
    Some(found?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::guest::neighbour::*;

    const TABLE: &str = "IP address       HW type     Flags       HW address            Mask     Device\n\
        10.0.0.7         0x1         0x2         52:54:00:AA:bb:cc     *        eth0\n\
        10.0.0.8         0x1         0x0         00:00:00:00:00:00     *        eth0\n";

    #[test]
    fn neighbours_that_answered_are_listed() {
        let found = parse(TABLE).unwrap();
        assert_eq!(found, [Neighbour { address: "10.0.0.7".into(), mac: "52:54:00:aa:bb:cc".into() }]);
        for text in ["", "garbage\n", "IP address\nx y z w\n", "IP address\n10.0.0.7 0x1\n"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_table_panics(text in "\\PC{0,120}", near in "(IP address|\n|10.0.0.7 |0x[0-9a-f]{1,9} |[0-9a-f:]{17}){0,20}") {
            let _ = (parse(&text), parse(&near));
        }
    }
}
