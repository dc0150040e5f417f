//! The HTB class that packets to an address fall into, and its maximum rate (`ceil`).

use std::net::IpAddr;

use crate::{
    host::shaper::{
        filter::{self, FilterMatch},
        qdisc::{FIXED, Qdisc, RATESPEC_RATE, ROOT, TCA_KIND, TCA_OPTIONS},
    },
    netlink::{attribute, number32, number64, text},
};

const TCA_HTB_PARMS: u16 = 1;
const TCA_HTB_INIT: u16 = 2;
const TCA_HTB_CEIL64: u16 = 7;
/// Offset of the default class in a struct tc_htb_glob.
const GLOB_DEFAULT: usize = 8;
/// Offset of the ceiling's rate in a struct tc_htb_opt, after the ratespec of the rate.
const OPT_CEIL: usize = 12 + RATESPEC_RATE;
/// Classes may be nested eight deep (TC_HTB_MAXDEPTH).
const DEEPEST: usize = 8;

struct Class {
    handle: u32,
    parent: u32,
    ceil: u64,
}

/// Maximum rate of packets to `to`, in bytes per second; none if no class limits them.
pub(super) fn rate(
    root: &Qdisc,
    classes: &[Vec<u8>],
    filters: &[Vec<u8>],
    to: Option<IpAddr>,
) -> Option<u64> {
    let classes: Vec<Class> = classes.iter().filter_map(|payload| parse(payload)).collect();
    let mut candidates = Vec::new();
    for filter in filters.iter().filter_map(|payload| filter::class(payload, to)) {
        match filter {
            (FilterMatch::All, Some(class)) => {
                candidates.push(class);
                return largest(&classes, &candidates);
            }
            (FilterMatch::Some, Some(class)) => candidates.push(class),
            // The class is not known, so it may be any of them.
            (FilterMatch::Some | FilterMatch::All, None) => {
                candidates.extend(classes.iter().map(|class| class.handle));
            }
            (FilterMatch::None, _) => {}
        }
    }
    // Packets that no filter matches go to the default class; without one they are not limited.
    let default = number32(attribute(&root.options, 0, TCA_HTB_INIT)?, GLOB_DEFAULT)?;
    candidates.push(root.handle & 0xffff_0000 | default & 0xffff);
    largest(&classes, &candidates)
}

/// The largest ceiling; none if a class does not exist, since its packets are then not limited.
fn largest(classes: &[Class], candidates: &[u32]) -> Option<u64> {
    let ceilings: Option<Vec<u64>> = candidates.iter().map(|&handle| ceiling(classes, handle)).collect();
    ceilings?.into_iter().max()
}

/// The smallest ceiling of a class and all its ancestors.
fn ceiling(classes: &[Class], mut handle: u32) -> Option<u64> {
    let find = |handle: u32| classes.iter().find(|class| class.handle == handle);
    let mut least = find(handle)?.ceil;
    for _ in 0..DEEPEST {
        let Some(class) = find(handle) else { break };
        least = least.min(class.ceil);
        if class.parent == ROOT {
            break;
        }
        handle = class.parent;
    }
    Some(least)
}

fn parse(payload: &[u8]) -> Option<Class> {
    if text(attribute(payload, FIXED, TCA_KIND)?) != "htb" {
        return None;
    }
    let options = attribute(payload, FIXED, TCA_OPTIONS)?;
    let small = number32(attribute(options, 0, TCA_HTB_PARMS)?, OPT_CEIL)?;
    let wide = attribute(options, 0, TCA_HTB_CEIL64).and_then(|value| number64(value, 0));
    Some(Class {
        handle: number32(payload, 8)?,
        parent: number32(payload, 12)?,
        ceil: wide.unwrap_or(small.into()),
    })
}

#[cfg(test)]
mod tests {
    use crate::host::shaper::{filter::tests::u32_filter, htb::*, qdisc::tests::*};

    fn class(minor: u32, parent: u32, ceil: u32) -> Vec<u8> {
        let given = options(&[(TCA_HTB_PARMS, [ratespec(1), ratespec(ceil)].concat())]);
        message(0x0001_0000 | minor, parent, 0, &[(TCA_KIND, b"htb\0".to_vec()), (TCA_OPTIONS, given)])
    }

    fn root(default: u32) -> Qdisc {
        let glob: Vec<u8> = [3, 10, default, 0, 0].iter().flat_map(|n: &u32| n.to_ne_bytes()).collect();
        Qdisc {
            interface: 3,
            handle: 0x0001_0000,
            parent: ROOT,
            kind: "htb".into(),
            options: options(&[(TCA_HTB_INIT, glob)]),
        }
    }

    #[test]
    fn the_class_of_the_migration_counts_and_not_the_others() {
        let classes = [class(0x1, ROOT, 1000), class(0x10, 0x0001_0001, 100), class(0x20, 0x0001_0001, 900)];
        let to = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let filters = [u32_filter(&[(16, u32::MAX, 0x0a4d_0202)], 0x0001_0010)];
        assert_eq!(rate(&root(0x20), &classes, &filters, to("10.77.2.2")), Some(100));
        assert_eq!(rate(&root(0x20), &classes, &filters, to("10.77.2.3")), Some(900), "the default");
        assert_eq!(rate(&root(0), &classes, &filters, to("10.77.2.3")), None, "no default: not held");
        let by_port = [u32_filter(&[(20, 0xffff, 49152)], 0x0001_0010)];
        assert_eq!(rate(&root(0x20), &classes, &by_port, to("10.77.2.2")), Some(900), "perhaps the default");
    }

    #[test]
    fn a_class_gets_no_more_than_the_ones_above_it() {
        let classes = [class(0x1, ROOT, 50), class(0x10, 0x0001_0001, 100)];
        assert_eq!(rate(&root(0x10), &classes, &[], None), Some(50));
        let circle = [class(0x1, 0x0001_0010, 50), class(0x10, 0x0001_0001, 100)];
        assert_eq!(rate(&root(0x10), &circle, &[], None), Some(50), "and a circle has an end");
    }
}
