//! Path MTU: the largest packet that reaches the peer without fragmentation, found by ICMP echo requests with DF set
//! (RFC 1191), sent regardless of the path MTU that the kernel has cached (IP_PMTUDISC_PROBE).
//!
//! Only the forward direction is proven, since the peer's kernel may fragment its reply. So both ends ping.

use std::{
    io::{Error, ErrorKind},
    net::{IpAddr, SocketAddr, UdpSocket},
    process,
    time::{Duration, Instant},
};

use rustix::net::{
    AddressFamily, SocketFlags, SocketType, ipproto, socket_with,
    sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery},
};
use vmgate_facts::{Cause, Unknown};

/// Longest wait for the first answer, from which the round-trip time is taken.
const FIRST: Duration = Duration::from_secs(1);
/// Shortest wait for an answer; a slow answer must not look like a packet that is too large.
const LEAST: Duration = Duration::from_millis(150);
/// Attempts before a size counts as too large.
const ATTEMPTS: usize = 2;
/// Common packet sizes of networks, tried before the search.
const USUAL: [u32; 9] = [8942, 4352, 1500, 1492, 1480, 1450, 1420, 1400, 1280];
/// A size that every path carries (RFC 791's 576).
const SMALL: u32 = 576;
const ICMP_HEADER: u32 = 8;
const ICMP_ECHO_REQUEST: u8 = 8;
const ICMP_ECHO_REPLY: u8 = 0;
const ICMP6_ECHO_REQUEST: u8 = 128;
const ICMP6_ECHO_REPLY: u8 = 129;

/// The largest packet, of at most `mtu` bytes, that reaches `peer`.
pub(crate) fn largest_packet(peer: IpAddr, mtu: u32) -> Result<u32, Unknown> {
    let mut pinger = Pinger::open(peer).map_err(|error| {
        let cause = match error.kind() {
            ErrorKind::PermissionDenied => Cause::PermissionDenied,
            _ => Cause::NotSupported,
        };
        Unknown::new(cause, format!("cannot open a raw ICMP socket on the host (needs CAP_NET_RAW): {error}"))
    })?;
    let start = Instant::now();
    if !pinger.passes(SMALL.min(mtu), FIRST) {
        let why =
            format!("{peer} does not answer ping, so the largest packet size on the path cannot be measured");
        return Err(Unknown::new(Cause::NotSupported, why));
    }
    let patience = LEAST.max(start.elapsed() * 4);
    Ok(search(mtu, |size| pinger.passes(size, patience)))
}

/// The largest size up to `most` that passes, if [`SMALL`] does.
fn search(most: u32, mut passes: impl FnMut(u32) -> bool) -> u32 {
    if most <= SMALL || passes(most) {
        return most;
    }
    let mut high = most;
    let mut low = SMALL;
    for size in USUAL.into_iter().filter(|&size| size < most) {
        if passes(size) {
            low = size;
            break;
        }
        high = size;
    }
    // The common size is nearly always the exact limit.
    if high - low > 1 && !passes(low + 1) {
        return low;
    }
    while high - low > 1 {
        let middle = low.midpoint(high);
        if passes(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

struct Pinger {
    socket: UdpSocket,
    is_ipv4: bool,
    identifier: u16,
    sequence: u16,
}

impl Pinger {
    fn open(peer: IpAddr) -> Result<Self, Error> {
        let is_ipv4 = peer.is_ipv4();
        let open =
            |family, protocol| socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol));
        let fd = if is_ipv4 {
            let fd = open(AddressFamily::INET, ipproto::ICMP)?;
            sockopt::set_ip_mtu_discover(&fd, Ipv4PathMtuDiscovery::PROBE)?;
            fd
        } else {
            let fd = open(AddressFamily::INET6, ipproto::ICMPV6)?;
            sockopt::set_ipv6_mtu_discover(&fd, Ipv6PathMtuDiscovery::PROBE)?;
            fd
        };
        // A raw socket takes the same calls as a UDP socket; the port is not used.
        let socket = UdpSocket::from(fd);
        socket.connect(SocketAddr::new(peer, 0))?;
        let identifier = u16::try_from(process::id() & 0xffff).unwrap_or(0);
        Ok(Self { socket, is_ipv4, identifier, sequence: 0 })
    }

    /// True if a packet of that size is answered.
    fn passes(&mut self, size: u32, patience: Duration) -> bool {
        (0..ATTEMPTS).any(|_| self.ping(size, patience))
    }

    fn ping(&mut self, size: u32, patience: Duration) -> bool {
        self.sequence = self.sequence.wrapping_add(1);
        let header = if self.is_ipv4 { 20 } else { 40 };
        let length = size.saturating_sub(header).max(ICMP_HEADER);
        let mut packet = self.header().to_vec();
        packet.resize(usize::try_from(length).unwrap_or(0), 0);
        // EMSGSIZE: larger than the MTU of the interface.
        if self.socket.send(&packet).is_err() {
            return false;
        }
        let deadline = Instant::now() + patience;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.socket.set_read_timeout(Some(left)).is_err() {
                return false;
            }
            match self.socket.recv(&mut buffer) {
                Ok(count) if self.is_answer(buffer.get(..count).unwrap_or_default()) => return true,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return false;
                }
                // An answer to another process, or an error caused by an earlier packet.
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// The header of an echo request; the rest of the packet stays zero.
    fn header(&self) -> [u8; 8] {
        let kind = if self.is_ipv4 { ICMP_ECHO_REQUEST } else { ICMP6_ECHO_REQUEST };
        // RFC 1071. The kernel computes the checksum of ICMPv6 itself.
        let sum = (u32::from(kind) << 8) + u32::from(self.identifier) + u32::from(self.sequence);
        let folded = (sum & 0xffff) + (sum >> 16);
        let [checksum @ .., _, _] = (!((folded & 0xffff) + (folded >> 16)) << 16).to_be_bytes();
        let [c0, c1] = if self.is_ipv4 { checksum } else { [0; 2] };
        let ([i0, i1], [s0, s1]) = (self.identifier.to_be_bytes(), self.sequence.to_be_bytes());
        [kind, 0, c0, c1, i0, i1, s0, s1]
    }

    /// True if it is the answer to the last packet; a raw IPv4 socket also returns the IP header.
    fn is_answer(&self, bytes: &[u8]) -> bool {
        let header =
            if self.is_ipv4 { bytes.first().map_or(0, |first| usize::from(first & 0xf) * 4) } else { 0 };
        let reply = if self.is_ipv4 { ICMP_ECHO_REPLY } else { ICMP6_ECHO_REPLY };
        let mut expected = self.identifier.to_be_bytes().to_vec();
        expected.extend(self.sequence.to_be_bytes());
        let icmp = bytes.get(header..).unwrap_or_default();
        icmp.first() == Some(&reply) && icmp.get(4..8) == Some(expected.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use crate::host::trial::ping::*;

    #[test]
    fn the_search_finds_the_size_in_few_steps() {
        for (most, real) in
            [(1500, 1500), (9000, 1500), (9000, 9000), (9000, 1501), (1500, 1450), (1500, 600), (9000, 576)]
        {
            let mut steps = 0;
            let found = search(most, |size| {
                steps += 1;
                size <= real
            });
            assert_eq!(found, real, "of {most}");
            assert!(steps <= 25, "{steps} steps");
        }
    }

    #[test]
    #[ignore = "needs CAP_NET_RAW"]
    fn this_machine_answers_to_its_own_pings() {
        for peer in ["127.0.0.1", "::1"] {
            assert_eq!(largest_packet(peer.parse().unwrap(), 9000), Ok(9000), "{peer}");
        }
    }
}
