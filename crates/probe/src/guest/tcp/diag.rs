//! Parser of TCP sockets from the kernel's socket monitoring interface (sock_diag(7), linux/inet_diag.h).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::netlink::{NLMSG_DONE, NLMSG_ERROR, NetlinkParseError, attributes, messages, number32};

/// One socket.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct DiagSocket {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    /// idiag_timer.
    pub(super) timer: u8,
    /// idiag_retrans: retransmissions by timer, or probes where the timer is one for probes.
    pub(super) retransmits: u8,
    /// Bytes sent and not acknowledged, or not sent yet.
    pub(super) queued: u32,
    pub(super) inode: u64,
    /// Figures of tcp_info; absent for a connection that the peer is opening (SYN-RECEIVED).
    pub(super) info: Option<TcpInfo>,
}

/// The part of struct tcp_info from which a connection's budget is derived.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct TcpInfo {
    /// tcpi_backoff.
    pub(super) backoff: u8,
    /// tcpi_rto.
    pub(super) rto_seconds: f64,
    /// tcpi_unacked, in segments.
    pub(super) unacknowledged: u32,
}

/// One datagram of the answer.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Batch {
    pub(super) sockets: Vec<DiagSocket>,
    /// True if this datagram ends the answer.
    pub(super) done: bool,
    /// The kernel's refusal, as errno.
    pub(super) error: Option<i32>,
}

/// SOCK_DIAG_BY_FAMILY.
pub(super) const BY_FAMILY: u16 = 20;
const INET_DIAG_INFO: u16 = 2;
/// struct inet_diag_msg.
const MESSAGE: usize = 72;

/// Parses one datagram. One socket that does not parse fails it all: a missing socket might be the one that matters.
pub(super) fn parse(datagram: &[u8]) -> Result<Batch, NetlinkParseError> {
    let mut batch = Batch::default();
    for message in messages(datagram) {
        let message = message?;
        match message.kind {
            NLMSG_DONE => batch.done = true,
            NLMSG_ERROR => {
                let code = number32(message.payload, 0).ok_or(NetlinkParseError)?;
                batch.error = Some(code.cast_signed().wrapping_neg());
                batch.done = true;
            }
            BY_FAMILY => batch.sockets.push(socket(message.payload).ok_or(NetlinkParseError)?),
            // NLMSG_NOOP and kinds that are not known yet.
            _ => {}
        }
    }
    Ok(batch)
}

/// struct inet_diag_msg: family, state, timer, retrans; ports; addresses; interface, cookie; expires, rqueue, wqueue,
/// uid, inode.
fn socket(payload: &[u8]) -> Option<DiagSocket> {
    let [family, _state, timer, retransmits] = *payload.first_chunk::<4>()?;
    let port = |at: usize| Some(u16::from_be_bytes(payload.get(at..)?.first_chunk().copied()?));
    let address = |at: usize| -> Option<IpAddr> {
        let bytes = payload.get(at..)?;
        match i32::from(family) {
            libc::AF_INET => Some(Ipv4Addr::from(*bytes.first_chunk::<4>()?).into()),
            libc::AF_INET6 => Some(Ipv6Addr::from(*bytes.first_chunk::<16>()?).to_canonical()),
            _ => None,
        }
    };
    let info = attributes(payload, MESSAGE).find(|(kind, _)| *kind == INET_DIAG_INFO);
    Some(DiagSocket {
        local: SocketAddr::new(address(8)?, port(4)?),
        remote: SocketAddr::new(address(24)?, port(6)?),
        timer,
        retransmits,
        queued: number32(payload, 60)?,
        inode: number32(payload, 68)?.into(),
        info: info.and_then(|(_, value)| tcp_info(value)),
    })
}

/// struct tcp_info, which only ever grows at its end.
fn tcp_info(value: &[u8]) -> Option<TcpInfo> {
    Some(TcpInfo {
        backoff: *value.get(4)?,
        rto_seconds: f64::from(number32(value, 8)?) / 1e6,
        unacknowledged: number32(value, 24)?,
    })
}

/// The request for every TCP socket of a family in one of these states (bits by their number).
pub(super) fn request(family: u8, states: u32) -> Vec<u8> {
    const LENGTH: u32 = 72;
    const REQUEST_AND_DUMP: u16 = 0x301;
    let mut bytes = Vec::with_capacity(72);
    bytes.extend(LENGTH.to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(REQUEST_AND_DUMP.to_ne_bytes());
    bytes.extend([0; 8]);
    // Protocol 6 is TCP; the extension asked for is a bit by its number less one.
    bytes.extend([family, 6, 1 << (INET_DIAG_INFO - 1), 0]);
    bytes.extend(states.to_ne_bytes());
    bytes.resize(72, 0);
    bytes
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use crate::guest::tcp::diag::*;

    /// One socket as Linux 6.18 sent it: 10.0.0.5:41822 to 10.0.0.7:5432, one retransmission, RTO 408 ms.
    pub(crate) fn sample() -> Vec<u8> {
        let mut payload = vec![2, 1, 1, 1];
        payload.extend(41822_u16.to_be_bytes());
        payload.extend(5432_u16.to_be_bytes());
        for address in [[10, 0, 0, 5], [10, 0, 0, 7]] {
            payload.extend(address);
            payload.extend([0; 12]);
        }
        payload.extend([0; 12]);
        for number in [117_u32, 0, 15, 1000, 20001] {
            payload.extend(number.to_ne_bytes());
        }
        let mut info = vec![1, 4, 1, 0, 1, 7, 0, 0];
        for number in [408_000_u32, 40_000, 1448, 536, 1, 0] {
            info.extend(number.to_ne_bytes());
        }
        payload.extend(u16::try_from(info.len() + 4).unwrap().to_ne_bytes());
        payload.extend(INET_DIAG_INFO.to_ne_bytes());
        payload.extend(info);
        let mut bytes = Vec::new();
        for (kind, payload) in [(BY_FAMILY, payload), (NLMSG_DONE, vec![0; 4])] {
            bytes.extend(u32::try_from(16 + payload.len()).unwrap().to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend(payload);
        }
        bytes
    }

    #[test]
    fn a_socket_is_read() {
        let batch = parse(&sample()).unwrap();
        assert!(batch.done && batch.error.is_none());
        let socket = &batch.sockets[0];
        assert_eq!(socket.local, "10.0.0.5:41822".parse().unwrap());
        assert_eq!(socket.remote, "10.0.0.7:5432".parse().unwrap());
        assert_eq!((socket.timer, socket.retransmits, socket.queued, socket.inode), (1, 1, 15, 20001));
        assert_eq!(socket.info, Some(TcpInfo { backoff: 1, rto_seconds: 0.408, unacknowledged: 1 }));
    }

    #[test]
    fn a_refusal_is_told() {
        let mut bytes = 36_u32.to_ne_bytes().to_vec();
        bytes.extend(NLMSG_ERROR.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend((-13_i32).to_ne_bytes());
        bytes.extend([0; 16]);
        assert_eq!(parse(&bytes).unwrap(), Batch { sockets: vec![], done: true, error: Some(13) });
    }

    #[test]
    fn what_is_cut_off_is_no_answer() {
        let whole = sample();
        for cut in 1..whole.len() - 20 {
            assert_ne!(parse(&whole[..cut]).ok().map(|batch| batch.done), Some(true), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes in prop::collection::vec(any::<u8>(), 0..400), at in 0..200_usize, byte: u8) {
            let _ = parse(&bytes);
            let mut bent = sample();
            if let Some(place) = bent.get_mut(at) {
                *place = byte;
            }
            let _ = parse(&bent);
        }
    }
}
