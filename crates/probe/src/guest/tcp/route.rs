//! The minimum RTO that a route sets (`ip route … rto_min`, RTAX_RTO_MIN; linux/rtnetlink.h).

use std::net::IpAddr;

use crate::netlink::{NLMSG_ERROR, NetlinkParseError, attributes, messages, number32};

const RTM_GETROUTE: u16 = 26;
const RTM_NEWROUTE: u16 = 24;
const RTA_DST: u16 = 1;
const RTA_METRICS: u16 = 8;
const RTAX_LOCK: u16 = 1;
const RTAX_RTO_MIN: u16 = 13;
/// struct rtmsg.
const MESSAGE: usize = 12;

/// The request for the route to one address.
pub(super) fn request(to: IpAddr) -> Vec<u8> {
    let (family, address) = match to {
        IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
    };
    let prefix = u8::try_from(address.len() * 8).unwrap_or(0);
    let length = 16 + MESSAGE + 4 + address.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(u32::try_from(length).unwrap_or(0).to_ne_bytes());
    bytes.extend(RTM_GETROUTE.to_ne_bytes());
    bytes.extend(1_u16.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([u8::try_from(family).unwrap_or(0), prefix]);
    bytes.resize(16 + MESSAGE, 0);
    bytes.extend(u16::try_from(4 + address.len()).unwrap_or(0).to_ne_bytes());
    bytes.extend(RTA_DST.to_ne_bytes());
    bytes.extend(address);
    bytes
}

/// The minimum RTO in the answer; none if the route sets none. The kernel applies it only if the metric is locked
/// (tcp_rto_min); `ip route` locks it by itself.
pub(super) fn parse(datagram: &[u8]) -> Result<Option<f64>, NetlinkParseError> {
    let message = messages(datagram).next().ok_or(NetlinkParseError)??;
    match message.kind {
        RTM_NEWROUTE => {}
        // No route, or no permission to see it: no minimum RTO.
        NLMSG_ERROR => return Ok(None),
        _ => return Err(NetlinkParseError),
    }
    if message.payload.len() < MESSAGE {
        return Err(NetlinkParseError);
    }
    let (mut least, mut locked) = (None, false);
    for (_, metrics) in attributes(message.payload, MESSAGE).filter(|(kind, _)| *kind == RTA_METRICS) {
        for (kind, value) in attributes(metrics, 0) {
            match kind {
                RTAX_LOCK => locked = number32(value, 0).is_some_and(|bits| bits & (1 << RTAX_RTO_MIN) != 0),
                RTAX_RTO_MIN => least = number32(value, 0).map(|milliseconds| f64::from(milliseconds) / 1e3),
                _ => {}
            }
        }
    }
    Ok(least.filter(|seconds| locked && *seconds > 0.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::guest::tcp::route::*;

    fn answer(lock: u32, rto_min: u32) -> Vec<u8> {
        let mut metrics = Vec::new();
        for (kind, value) in [(RTAX_LOCK, lock), (RTAX_RTO_MIN, rto_min)] {
            metrics.extend(8_u16.to_ne_bytes());
            metrics.extend(kind.to_ne_bytes());
            metrics.extend(value.to_ne_bytes());
        }
        let mut bytes = 48_u32.to_ne_bytes().to_vec();
        bytes.extend(RTM_NEWROUTE.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend([0; MESSAGE]);
        bytes.extend(20_u16.to_ne_bytes());
        bytes.extend((RTA_METRICS | 0x8000).to_ne_bytes());
        bytes.extend(metrics);
        bytes
    }

    #[test]
    fn a_locked_least_rto_counts() {
        assert_eq!(parse(&answer(1 << RTAX_RTO_MIN, 50)), Ok(Some(0.05)));
        assert_eq!(parse(&answer(0, 50)), Ok(None), "not heeded by the kernel");
        assert_eq!(parse(&[]), Err(NetlinkParseError));
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0..48_usize, byte: u8) {
            let _ = parse(&bytes);
            let mut bent = answer(1 << RTAX_RTO_MIN, 50);
            bent[at] = byte;
            let _ = parse(&bent);
        }
    }
}
