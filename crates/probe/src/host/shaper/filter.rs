//! Traffic-control filters: the packets that they match, and their class or policer (linux/pkt_cls.h).

use std::net::IpAddr;

use crate::{
    host::shaper::qdisc::{FIXED, RATESPEC_RATE, TCA_KIND, TCA_OPTIONS},
    netlink::{attribute, attributes, number32, number64, text},
};

const TCA_U32_CLASSID: u16 = 1;
const TCA_U32_SEL: u16 = 5;
const TCA_U32_POLICE: u16 = 6;
const TCA_U32_ACT: u16 = 7;
const TCA_MATCHALL_CLASSID: u16 = 1;
const TCA_MATCHALL_ACT: u16 = 2;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_POLICE_TBF: u16 = 1;
const TCA_POLICE_RATE64: u16 = 8;
/// Offset of the rate in a struct tc_police.
const POLICE_RATE: usize = 20 + RATESPEC_RATE;
/// Offset of the keys in a struct tc_u32_sel, and length of one key.
const KEYS: usize = 16;
const KEY: usize = 16;
/// Offset of the destination address in an IPv4 header.
const IPV4_DESTINATION: u32 = 16;
/// ETH_P_ALL and ETH_P_IP in network order, as a filter's protocol.
const EVERY_PROTOCOL: u16 = 0x0003_u16.to_be();
const IPV4: u16 = 0x0800_u16.to_be();

/// Share of the packets to an address that a filter matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FilterMatch {
    All,
    None,
    Some,
}

/// The share of packets to `to` that a filter matches, and their class, as far as vmgate understands the filter.
pub(super) fn class(payload: &[u8], to: Option<IpAddr>) -> Option<(FilterMatch, Option<u32>)> {
    let kind = text(attribute(payload, FIXED, TCA_KIND)?);
    let options = attribute(payload, FIXED, TCA_OPTIONS)?;
    let class = |attribute_kind| number32(attribute(options, 0, attribute_kind)?, 0);
    match kind.as_str() {
        "u32" => {
            // A filter without keys is a hash table.
            let keys = attribute(options, 0, TCA_U32_SEL)?;
            Some((u32_match(payload, keys, to), class(TCA_U32_CLASSID)))
        }
        "matchall" => Some((protocol_match(payload, to), class(TCA_MATCHALL_CLASSID))),
        // Another classifier: its matches and its class are not known.
        _ => Some((FilterMatch::Some, None)),
    }
}

/// The rate of a policer that every packet from or to the address passes, in bytes per second.
pub(super) fn policed(payload: &[u8], peer: Option<IpAddr>) -> Option<u64> {
    let kind = text(attribute(payload, FIXED, TCA_KIND)?);
    let options = attribute(payload, FIXED, TCA_OPTIONS)?;
    let (matched, actions) = match kind.as_str() {
        "u32" => (u32_match(payload, attribute(options, 0, TCA_U32_SEL)?, None), TCA_U32_ACT),
        "matchall" => (protocol_match(payload, peer), TCA_MATCHALL_ACT),
        _ => return None,
    };
    if matched != FilterMatch::All {
        return None;
    }
    // The old form has the policer in the filter itself.
    if let Some(police) = attribute(options, 0, TCA_U32_POLICE).filter(|_| kind == "u32") {
        return police_rate(police);
    }
    attributes(attribute(options, 0, actions)?, 0)
        .filter(|(_, action)| attribute(action, 0, TCA_ACT_KIND).map(text).as_deref() == Some("police"))
        .filter_map(|(_, action)| police_rate(attribute(action, 0, TCA_ACT_OPTIONS)?))
        .min()
}

fn police_rate(options: &[u8]) -> Option<u64> {
    let wide = attribute(options, 0, TCA_POLICE_RATE64).and_then(|value| number64(value, 0));
    wide.or_else(|| number32(attribute(options, 0, TCA_POLICE_TBF)?, POLICE_RATE).map(u64::from))
        .filter(|&rate| rate > 0)
}

/// Match by the filter's protocol, which is the low half of tcm_info.
fn protocol_match(payload: &[u8], to: Option<IpAddr>) -> FilterMatch {
    let wanted = number32(payload, 16).and_then(|info| u16::try_from(info & 0xffff).ok());
    match (wanted, to) {
        (Some(EVERY_PROTOCOL), _) | (Some(IPV4), Some(IpAddr::V4(_))) => FilterMatch::All,
        (Some(IPV4), Some(IpAddr::V6(_))) => FilterMatch::None,
        _ => FilterMatch::Some,
    }
}

/// Match by the keys, which are `(packet[offset] & mask) == value`; all must hold.
fn u32_match(payload: &[u8], selector: &[u8], to: Option<IpAddr>) -> FilterMatch {
    let count = usize::from(selector.get(2).copied().unwrap_or(0));
    let mut matched = protocol_match(payload, to);
    for index in 0..count {
        let at = KEYS + index * KEY;
        let (Some(mask), Some(value), Some(offset), Some(indirect)) = (
            bits(selector, at),
            bits(selector, at + 4),
            number32(selector, at + 8),
            number32(selector, at + 12),
        ) else {
            return FilterMatch::Some;
        };
        let holds = match to {
            _ if mask == 0 && value == 0 => Some(true),
            Some(IpAddr::V4(to)) if offset == IPV4_DESTINATION && indirect == 0 => {
                Some(to.to_bits() & mask == value)
            }
            _ => None,
        };
        match holds {
            Some(false) => return FilterMatch::None,
            None if matched == FilterMatch::All => matched = FilterMatch::Some,
            Some(true) | None => {}
        }
    }
    matched
}

/// A number in network order.
fn bits(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

#[cfg(test)]
pub(super) mod tests {
    use crate::host::shaper::{filter::*, qdisc::tests::*};

    /// The filter `protocol ip u32 match ip dst ADDRESS/PREFIX flowid CLASS`, with further keys.
    pub(crate) fn u32_filter(keys: &[(u32, u32, u32)], class: u32) -> Vec<u8> {
        let mut selector = vec![0, 0, u8::try_from(keys.len()).unwrap(), 0];
        selector.resize(KEYS, 0);
        for (offset, mask, value) in keys {
            selector.extend(mask.to_be_bytes());
            selector.extend(value.to_be_bytes());
            selector.extend(offset.to_ne_bytes());
            selector.extend(0_u32.to_ne_bytes());
        }
        let given = options(&[(TCA_U32_CLASSID, class.to_ne_bytes().to_vec()), (TCA_U32_SEL, selector)]);
        message(
            0x8000_0800,
            0x0001_0000,
            49152 << 16 | u32::from(IPV4),
            &[(TCA_KIND, b"u32\0".to_vec()), (TCA_OPTIONS, given)],
        )
    }

    fn address(text: &str) -> Option<IpAddr> {
        text.parse().ok()
    }

    #[test]
    fn a_u32_filter_takes_the_addresses_that_it_names() {
        let filter = u32_filter(&[(16, 0xffff_ff00, 0x0a4d_0200)], 0x0001_0010);
        assert_eq!(class(&filter, address("10.77.2.2")), Some((FilterMatch::All, Some(0x0001_0010))));
        assert_eq!(class(&filter, address("10.77.3.2")).unwrap().0, FilterMatch::None);
        assert_eq!(class(&filter, address("fd00::2")).unwrap().0, FilterMatch::None);
        assert_eq!(class(&filter, None).unwrap().0, FilterMatch::Some);
        let with_port = u32_filter(&[(16, u32::MAX, 0x0a4d_0202), (20, 0xffff, 49152)], 1);
        assert_eq!(class(&with_port, address("10.77.2.2")).unwrap().0, FilterMatch::Some);
        assert_eq!(class(&with_port, address("10.77.2.3")).unwrap().0, FilterMatch::None);
    }

    #[test]
    fn a_policer_on_everything_is_a_limit_and_one_on_something_is_not() {
        let police = options(&[(TCA_POLICE_TBF, [vec![0; 20], ratespec(12_500_000)].concat())]);
        let action = options(&[(TCA_ACT_KIND, b"police\0".to_vec()), (TCA_ACT_OPTIONS, police.clone())]);
        let given = options(&[(TCA_MATCHALL_ACT, options(&[(1, action)]))]);
        let all = message(
            1,
            INGRESS_PARENT,
            u32::from(EVERY_PROTOCOL),
            &[(TCA_KIND, b"matchall\0".to_vec()), (TCA_OPTIONS, given.clone())],
        );
        assert_eq!(policed(&all, address("10.77.2.1")), Some(12_500_000));
        let flower = message(
            1,
            INGRESS_PARENT,
            u32::from(EVERY_PROTOCOL),
            &[(TCA_KIND, b"flower\0".to_vec()), (TCA_OPTIONS, given)],
        );
        assert_eq!(policed(&flower, address("10.77.2.1")), None);
        let keys = [vec![0, 0, 1, 0], vec![0; 12], vec![0; 16]].concat();
        let old = message(
            1,
            INGRESS_PARENT,
            u32::from(EVERY_PROTOCOL),
            &[
                (TCA_KIND, b"u32\0".to_vec()),
                (TCA_OPTIONS, options(&[(TCA_U32_SEL, keys), (TCA_U32_POLICE, police)])),
            ],
        );
        assert_eq!(policed(&old, None), Some(12_500_000), "match u32 0 0");
    }

    const INGRESS_PARENT: u32 = 0xffff_0000;

    #[test]
    fn no_filter_panics_however_it_is_cut() {
        let filter = u32_filter(&[(16, u32::MAX, 1)], 2);
        for cut in 0..filter.len() {
            let _ = class(&filter[..cut], address("10.0.0.1"));
            let _ = policed(&filter[..cut], address("10.0.0.1"));
        }
    }
}
