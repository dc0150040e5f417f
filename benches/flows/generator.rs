//! Sends small packets out of an interface, paced or as fast as possible.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use crate::watchers::thread_time;

const BATCH: usize = 64;
/// Flows that the packets belong to, one source port each.
pub(crate) const FLOWS: u16 = 256;
pub(crate) const FRAME_BYTES: usize = 14 + 20 + 8 + 64;

const UDP: u8 = 17;
const TCP: u8 = 6;

/// A packet socket that sends.
pub(crate) struct Generator {
    socket: OwnedFd,
    frames: Vec<[u8; FRAME_BYTES]>,
}

/// A datagram, or a TCP segment of the same length.
fn frame(port: u16, protocol: u8) -> [u8; FRAME_BYTES] {
    let mut frame = [b'x'; FRAME_BYTES];
    // To an address that is not the interface's own: the host drops it after the packet sockets have seen it.
    let headers = [
        &[0x52, 0x54, 0, 0, 0, 9, 0x52, 0x54, 0, 0, 0, 1, 8, 0][..],
        &[0x45, 0, 0, 92, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 5, 10, 0, 0, 9],
        &port.to_be_bytes(),
        &[0x17, 0x70],
        if protocol == TCP {
            &[0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0][..]
        } else {
            &[0, 72, 0, 0]
        },
    ]
    .concat();
    frame[..headers.len()].copy_from_slice(&headers);
    frame
}

impl Generator {
    /// Datagrams of [`FLOWS`] flows.
    pub(crate) fn new(interface: &str) -> Self {
        Self::of(interface, (0..FLOWS).map(|port| frame(10_000 + port, UDP)).collect())
    }

    /// Half of the flows are TCP connections.
    pub(crate) fn mixed(interface: &str) -> Self {
        let protocol = |port| if port % 2 == 0 { UDP } else { TCP };
        Self::of(interface, (0..FLOWS).map(|port| frame(10_000 + port, protocol(port))).collect())
    }

    fn of(interface: &str, frames: Vec<[u8; FRAME_BYTES]>) -> Self {
        let name = std::ffi::CString::new(interface).unwrap();
        // SAFETY: a live, terminated name; no other pointers.
        let (index, raw) = unsafe {
            (libc::if_nametoindex(name.as_ptr()), libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0))
        };
        assert!(raw >= 0, "{}", io::Error::last_os_error());
        // SAFETY: the descriptor is new and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(raw) };
        // SAFETY: all zeros is a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).unwrap();
        address.sll_ifindex = i32::try_from(index).unwrap();
        let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap();
        // SAFETY: the address is live and as long as is said.
        assert_eq!(unsafe { libc::bind(raw, (&raw const address).cast(), length) }, 0);
        const PACKET_QDISC_BYPASS: i32 = 20;
        let yes = 1_i32;
        // SAFETY: the value is live and 4 bytes long.
        let set = unsafe {
            libc::setsockopt(raw, libc::SOL_PACKET, PACKET_QDISC_BYPASS, (&raw const yes).cast(), 4)
        };
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
        Self { socket, frames }
    }

    /// Sends one batch, beginning with flow `first`; packets sent.
    fn batch(&self, first: usize) -> u32 {
        let mut vectors: Vec<_> = (0..BATCH)
            .map(|index| {
                let frame = &self.frames[(first + index) % self.frames.len()];
                libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() }
            })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = vectors
            .iter_mut()
            .map(|vector| {
                // SAFETY: all zeros is a valid mmsghdr.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_iov = vector;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        // SAFETY: every message points to its own live vector, and that to a live frame which is only read.
        let sent = unsafe {
            libc::sendmmsg(self.socket.as_raw_fd(), messages.as_mut_ptr(), u32::try_from(BATCH).unwrap(), 0)
        };
        u32::try_from(sent).unwrap_or(0)
    }

    /// Sends at a rate for a time; returns the packets sent and the duration.
    pub(crate) fn paced(&self, rate: u32, time: Duration) -> (u64, Duration) {
        let begin = Instant::now();
        let mut sent = 0_u64;
        loop {
            let passed = begin.elapsed();
            if passed >= time {
                return (sent, passed);
            }
            #[allow(clippy::cast_precision_loss, reason = "small numbers")]
            if (sent as f64) < passed.as_secs_f64() * f64::from(rate) {
                sent += u64::from(self.batch(usize::try_from(sent).unwrap()));
            } else {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }

    /// Sends this many packets as fast as possible; returns nanoseconds of this thread's processor time per packet, softirqs that
    /// ran meanwhile included (as long as the kernel has no CONFIG_IRQ_TIME_ACCOUNTING).
    pub(crate) fn burst(&self, packets: u32) -> f64 {
        let begin = thread_time();
        let mut sent = 0;
        while sent < packets {
            sent += self.batch(sent as usize);
        }
        thread_time().saturating_sub(begin).as_secs_f64() * 1e9 / f64::from(sent)
    }
}
