//! The packet socket of both methods: it is bound to one interface, and receives nothing before.

use std::{
    ffi::c_int,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    time::{Duration, Instant},
};

use crate::netlink::Interface;

/// An AF_PACKET socket. It receives nothing before [`PacketSocket::bind`], so that a filter can be attached first.
#[derive(Debug)]
pub(crate) struct PacketSocket(OwnedFd);

/// Result of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitResult {
    /// The deadline has passed.
    Timeout,
    /// A packet can be read.
    Readable,
    /// The interface went down or disappeared.
    InterfaceLost,
}

impl PacketSocket {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no pointers. Protocol 0: nothing is received until bind names one.
        let raw = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just handed out this descriptor, and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(raw) }))
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Sets a socket option to a plain value.
    pub(crate) fn set<T>(&self, level: c_int, option: c_int, value: &T) -> io::Result<()> {
        let length = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
        // SAFETY: pointer and length describe the live value; the kernel only reads it.
        let result =
            unsafe { libc::setsockopt(self.raw(), level, option, std::ptr::from_ref(value).cast(), length) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Starts to receive every frame of the interface, in both directions.
    pub(crate) fn bind(&self, interface: &Interface) -> io::Result<()> {
        // SAFETY: all zeros is a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(0);
        address.sll_protocol = u16::try_from(libc::ETH_P_ALL).unwrap_or(0).to_be();
        address.sll_ifindex = c_int::try_from(interface.index).unwrap_or(0);
        let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or(0);
        // SAFETY: pointer and length describe the live address.
        let result = unsafe { libc::bind(self.raw(), (&raw const address).cast(), length) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Sends one frame, with its Ethernet header.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        Ok(rustix::net::send(&self.0, frame, rustix::net::SendFlags::DONTWAIT).map(drop)?)
    }

    /// Receives one frame, cut to the buffer, and its length there.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (length, _) = rustix::net::recv(&self.0, buffer, rustix::net::RecvFlags::DONTWAIT)?;
        Ok(length)
    }

    /// Packets that passed the filter but did not fit into the buffer since the last call.
    pub(crate) fn drops(&self) -> io::Result<u64> {
        const PACKET_STATISTICS: c_int = 6;
        let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut length = libc::socklen_t::try_from(size_of::<libc::tpacket_stats>()).unwrap_or(0);
        // SAFETY: the kernel writes at most `length` bytes to the live structure, which is two plain numbers.
        let result = unsafe {
            let to = (&raw mut statistics).cast();
            libc::getsockopt(self.raw(), libc::SOL_PACKET, PACKET_STATISTICS, to, &raw mut length)
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(u64::from(statistics.tp_drops)) }
    }

    /// Waits for a packet, the loss of the interface, or the deadline.
    pub(crate) fn wait(&self, for_packets: bool, deadline: Instant) -> io::Result<WaitResult> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Rounded up: a wait of 0 would spin through the last millisecond.
            let milliseconds = left.saturating_add(Duration::from_micros(999)).as_millis();
            let mut poll = libc::pollfd {
                fd: self.raw(),
                events: if for_packets { libc::POLLIN } else { 0 },
                revents: 0,
            };
            // SAFETY: one live pollfd, as the count says.
            let result =
                unsafe { libc::poll(&raw mut poll, 1, c_int::try_from(milliseconds).unwrap_or(c_int::MAX)) };
            if result < 0 {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            } else if poll.revents & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0 {
                return Ok(WaitResult::InterfaceLost);
            } else if poll.revents & libc::POLLIN != 0 {
                return Ok(WaitResult::Readable);
            } else if Instant::now() >= deadline {
                return Ok(WaitResult::Timeout);
            }
        }
    }
}

/// Nanoseconds of the monotonic clock, which the kernel's counter also reads.
pub(crate) fn monotonic_nanoseconds() -> u64 {
    clock_nanoseconds(libc::CLOCK_MONOTONIC)
}

/// Nanoseconds of the real-time clock, by which packets are dated.
pub(crate) fn real_nanoseconds() -> u64 {
    clock_nanoseconds(libc::CLOCK_REALTIME)
}

/// Processor time of this thread.
pub(crate) fn thread_nanoseconds() -> u64 {
    clock_nanoseconds(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn clock_nanoseconds(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec. These clocks exist on every Linux, so it cannot fail.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    u64::try_from(time.tv_sec)
        .unwrap_or(0)
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}
