//! Parser of a queueing discipline (qdisc) in a netlink message (linux/pkt_sched.h).

use vmgate_facts::ShaperKind;

use crate::netlink::{attribute, number32, number64, text};

/// The parent of a root qdisc.
pub(super) const ROOT: u32 = 0xffff_ffff;
/// The parent of `ingress` and `clsact`.
pub(super) const INGRESS: u32 = 0xffff_fff1;
/// struct tcmsg.
pub(super) const FIXED: usize = 20;
pub(super) const TCA_KIND: u16 = 1;
pub(super) const TCA_OPTIONS: u16 = 2;
/// Offset of the rate in a struct tc_ratespec.
pub(super) const RATESPEC_RATE: usize = 8;

const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_FQ_RATE_ENABLE: u16 = 5;
const TCA_FQ_FLOW_MAX_RATE: u16 = 7;
const TCA_CAKE_BASE_RATE64: u16 = 2;

/// A struct tcmsg that selects one interface (0: all) and parent.
pub(super) fn fixed(interface: u32, parent: u32) -> Vec<u8> {
    let mut fixed = vec![0; 4];
    for number in [interface, 0, parent, 0] {
        fixed.extend(number.to_ne_bytes());
    }
    fixed
}

/// One qdisc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Qdisc {
    pub(super) interface: u32,
    pub(super) handle: u32,
    pub(super) parent: u32,
    pub(super) kind: String,
    pub(super) options: Vec<u8>,
}

impl Qdisc {
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        Some(Self {
            interface: number32(payload, 4)?,
            handle: number32(payload, 8)?,
            parent: number32(payload, 12)?,
            kind: text(attribute(payload, FIXED, TCA_KIND)?),
            options: attribute(payload, FIXED, TCA_OPTIONS).unwrap_or_default().to_vec(),
        })
    }

    /// Maximum rate of one stream through this qdisc, in bytes per second; none if it sets no limit.
    pub(super) fn rate(&self) -> Option<(ShaperKind, u64)> {
        let of = |kind| attribute(&self.options, 0, kind);
        match self.kind.as_str() {
            "tbf" => {
                let small = number32(of(TCA_TBF_PARMS)?, RATESPEC_RATE)?;
                let rate = of(TCA_TBF_RATE64).and_then(|value| number64(value, 0)).unwrap_or(small.into());
                Some((ShaperKind::Tbf, rate))
            }
            "fq" => {
                let enabled = of(TCA_FQ_RATE_ENABLE).and_then(|value| number32(value, 0)) != Some(0);
                let rate = number32(of(TCA_FQ_FLOW_MAX_RATE)?, 0)?;
                // All bits set means no limit.
                (enabled && rate != u32::MAX).then_some((ShaperKind::Fq, rate.into()))
            }
            "cake" => {
                let rate = number64(of(TCA_CAKE_BASE_RATE64)?, 0)?;
                (rate != 0).then_some((ShaperKind::Cake, rate))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use crate::{host::shaper::qdisc::*, netlink::encoded};

    /// Attributes, one after the other.
    pub(crate) fn options(list: &[(u16, Vec<u8>)]) -> Vec<u8> {
        list.iter().flat_map(|(kind, value)| encoded(*kind, value)).collect()
    }

    /// A message about a qdisc, class or filter.
    pub(crate) fn message(handle: u32, parent: u32, info: u32, list: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        for number in [3, handle, parent, info] {
            bytes.extend(u32::to_ne_bytes(number));
        }
        bytes.extend(options(list));
        bytes
    }

    pub(crate) fn ratespec(rate: u32) -> Vec<u8> {
        [vec![0; RATESPEC_RATE], rate.to_ne_bytes().to_vec()].concat()
    }

    fn qdisc(kind: &str, list: &[(u16, Vec<u8>)]) -> Qdisc {
        let name = [kind.as_bytes(), b"\0"].concat();
        Qdisc::parse(&message(0x0001_0000, ROOT, 0, &[(TCA_KIND, name), (TCA_OPTIONS, options(list))]))
            .unwrap()
    }

    #[test]
    fn rates_stand_where_the_kernel_puts_them() {
        let rate = |kind, list: &[(u16, Vec<u8>)]| qdisc(kind, list).rate();
        let n32 = |number: u32| number.to_ne_bytes().to_vec();
        let n64 = |number: u64| number.to_ne_bytes().to_vec();
        assert_eq!(
            rate("tbf", &[(TCA_TBF_PARMS, ratespec(25_000_000))]),
            Some((ShaperKind::Tbf, 25_000_000))
        );
        let fast = [(TCA_TBF_PARMS, ratespec(u32::MAX)), (TCA_TBF_RATE64, n64(12_500_000_000))];
        assert_eq!(rate("tbf", &fast), Some((ShaperKind::Tbf, 12_500_000_000)));
        assert_eq!(rate("fq", &[(TCA_FQ_FLOW_MAX_RATE, n32(u32::MAX))]), None);
        assert_eq!(rate("fq", &[(TCA_FQ_FLOW_MAX_RATE, n32(1000))]), Some((ShaperKind::Fq, 1000)));
        assert_eq!(rate("fq", &[(TCA_FQ_RATE_ENABLE, n32(0)), (TCA_FQ_FLOW_MAX_RATE, n32(1000))]), None);
        assert_eq!(rate("cake", &[(TCA_CAKE_BASE_RATE64, n64(0))]), None);
        assert_eq!(rate("cake", &[(TCA_CAKE_BASE_RATE64, n64(5))]), Some((ShaperKind::Cake, 5)));
        assert_eq!(rate("fq_codel", &[]), None);
        assert_eq!(rate("tbf", &[]), None);
    }

    proptest! {
        #[test]
        fn no_message_panics(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            if let Some(qdisc) = Qdisc::parse(&bytes) {
                for kind in ["tbf", "fq", "cake"] {
                    let _ = Qdisc { kind: kind.into(), ..qdisc.clone() }.rate();
                }
            }
        }
    }
}
