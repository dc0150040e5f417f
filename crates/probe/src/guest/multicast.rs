//! Multicast groups that the guest has joined: /proc/net/igmp and igmp6 (net/ipv4/igmp.c, net/ipv6/mcast.c).

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
};

use vmgate_facts::{Cause, MulticastGroup, Unknown, text::plain};

use crate::guest::{GuestReader, MOST_SOCKETS, malformed};

pub(super) const V4: &str = "/proc/net/igmp";
pub(super) const V6: &str = "/proc/net/igmp6";

/// The groups of both families, each once per interface. A kernel without IPv6 has no second table.
pub(super) fn look(reader: &dyn GuestReader) -> Result<Vec<MulticastGroup>, Unknown> {
    let mut groups = table(V4, &reader.read(V4)?, v4)?;
    match reader.read(V6) {
        Ok(text) => groups.extend(table(V6, &text, v6)?),
        Err(why) if why.cause == Cause::NotSupported => {}
        Err(why) => return Err(why),
    }
    Ok(groups.into_iter().filter(|group| group.interface != "lo").collect())
}

fn table(
    path: &str,
    text: &[u8],
    read: fn(&str) -> Option<Vec<MulticastGroup>>,
) -> Result<BTreeSet<MulticastGroup>, Unknown> {
    let text = std::str::from_utf8(text).map_err(|_| malformed(path, "not text"))?;
    if text.lines().count() > MOST_SOCKETS {
        return Err(malformed(path, &format!("more than {MOST_SOCKETS} lines")));
    }
    let groups = read(text).ok_or_else(|| malformed(path, "not a table of multicast groups"))?;
    Ok(groups.into_iter().collect())
}

/// Parses igmp: `2 eth0 : 3 V3` names an interface; the lines below begin with a tab and a group in host byte order.
fn v4(text: &str) -> Option<Vec<MulticastGroup>> {
    let mut lines = text.lines();
    lines.next().filter(|header| header.starts_with("Idx"))?;
    let (mut groups, mut interface) = (Vec::new(), None);
    for line in lines {
        if let Some(member) = line.strip_prefix('\t') {
            let number = u32::from_str_radix(member.split_whitespace().next()?, 16).ok()?;
            let address = Ipv4Addr::from(number.to_le_bytes());
            let interface: &String = interface.as_ref()?;
            groups.push(MulticastGroup {
                link_local: address.octets().starts_with(&[224, 0, 0]),
                address: address.to_string(),
                interface: interface.clone(),
            });
        } else {
            // A long name runs into its colon.
            interface = Some(plain(line.split_whitespace().nth(1)?.trim_end_matches(':')));
        }
    }
    Some(groups)
}

/// Parses igmp6: `2    eth0            ff02000000000000000000000000fb01 1 0000000C 0`
fn v6(text: &str) -> Option<Vec<MulticastGroup>> {
    let group = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let interface = plain(words.next()?);
        let address = words.next().filter(|word| word.len() == 32)?;
        let address = Ipv6Addr::from(u128::from_str_radix(address, 16).ok()?);
        // The low half of the second byte is the scope; 1 and 2 do not leave the link.
        let link_local = matches!(address.octets().get(1).map(|byte| byte & 0xf), Some(..=2));
        Some(MulticastGroup { address: address.to_string(), interface, link_local })
    };
    text.lines().filter(|line| !line.trim().is_empty()).map(group).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::guest::multicast::*;

    // Output of Linux 6.1.
    const IGMP: &str = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
        1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n\
        2\teth0      :     3      V3\n\t\t\t\t0100C0EF     1 0:00000000\t\t0\n\t\t\t\tFB0000E0     1 0:00000000\t\t0\n";
    const IGMP6: &str = "1    lo              ff020000000000000000000000000001     1 0000000C 0\n\
        2    eth0            ff0200000000000000000001ff123456     1 00000004 0\n\
        2    eth0            ff0e000000000000000000000000beef     1 00000004 0\n";

    #[test]
    fn groups_of_both_families_are_listed() {
        let found: Vec<_> = v4(IGMP).unwrap().into_iter().chain(v6(IGMP6).unwrap()).collect();
        let seen: Vec<_> =
            found.iter().map(|group| (&*group.address, &*group.interface, group.link_local)).collect();
        assert_eq!(
            seen,
            [
                ("224.0.0.1", "lo", true),
                ("239.192.0.1", "eth0", false),
                ("224.0.0.251", "eth0", true),
                ("ff02::1", "lo", true),
                ("ff02::1:ff12:3456", "eth0", true),
                ("ff0e::beef", "eth0", false),
            ]
        );
    }

    #[test]
    fn what_is_no_table_is_unknown() {
        for text in ["", "garbage", "Idx\n\t\t0100C0EF\n", "Idx\n2\teth0\n\t\u{1b}[2J\n"] {
            assert!(table(V4, text.as_bytes(), v4).is_err(), "{text}");
        }
        assert!(table(V6, b"2 eth0 ff02 1\n", v6).is_err());
        assert!(table(V6, b"\xff", v6).is_err());
    }

    proptest! {
        #[test]
        fn no_table_panics(text in "\\PC{0,120}", near in "(Idx\n|\t|[0-9a-f]{1,32}| |eth0|:|\n){0,40}") {
            for text in [text, near] {
                let _ = (v4(&text), v6(&text));
            }
        }
    }
}
