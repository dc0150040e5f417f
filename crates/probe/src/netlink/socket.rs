//! A netlink socket: system calls, bounded in time.

use std::{
    io::Error,
    mem::size_of,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// A netlink socket.
pub(crate) struct Netlink(OwnedFd);

/// Longest wait for an answer of the kernel.
const RECEIVE_TIMEOUT_SECONDS: libc::time_t = 2;

impl Netlink {
    /// Opens a socket for a protocol (NETLINK_SOCK_DIAG, NETLINK_ROUTE, NETLINK_NETFILTER).
    pub(crate) fn open(protocol: libc::c_int) -> Result<Self, Error> {
        // SAFETY: no pointers; the result is checked before it is owned.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
        let socket = Self(owned(fd)?);
        let timeout = libc::timeval { tv_sec: RECEIVE_TIMEOUT_SECONDS, tv_usec: 0 };
        // SAFETY: the value is a timeval of the length given, and lives through the call.
        let result = unsafe {
            libc::setsockopt(
                socket.0.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const timeout).cast(),
                length_of::<libc::timeval>(),
            )
        };
        checked(result)?;
        Ok(socket)
    }

    /// Sends a request to the kernel.
    pub(crate) fn send(&self, request: &[u8]) -> Result<(), Error> {
        // SAFETY: pointer and length are those of the slice; an unconnected netlink socket sends to the kernel.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) };
        if sent < 0 { Err(Error::last_os_error()) } else { Ok(()) }
    }

    /// Receives one datagram of the answer. A datagram larger than the buffer, or from another sender, is an error.
    pub(crate) fn receive<'b>(&self, buffer: &'b mut [u8]) -> Result<&'b [u8], Error> {
        // SAFETY: all zeroes is a valid sockaddr_nl.
        let mut sender: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        let mut length = length_of::<libc::sockaddr_nl>();
        // SAFETY: buffer and address are written within the lengths given, and live through the call.
        let received = unsafe {
            libc::recvfrom(
                self.0.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_TRUNC,
                (&raw mut sender).cast(),
                &raw mut length,
            )
        };
        let received = usize::try_from(received).map_err(|_| Error::last_os_error())?;
        if sender.nl_pid != 0 {
            return Err(Error::other("the answer does not come from the kernel"));
        }
        buffer.get(..received).ok_or_else(|| Error::other("the answer is longer than the buffer"))
    }
}

/// Owns a file descriptor that a system call has just created, so that it is closed on drop.
pub(crate) fn owned(fd: libc::c_int) -> Result<OwnedFd, Error> {
    checked(fd)?;
    // SAFETY: a descriptor that the kernel has just made, and that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Returns the system's error if a call returned a negative number.
pub(crate) fn checked(result: libc::c_int) -> Result<(), Error> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

#[allow(clippy::cast_possible_truncation)] // sizes of a few bytes
fn length_of<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}
