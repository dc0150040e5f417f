//! A netlink socket: system calls, bounded in time.

use std::{io::Error, num::NonZeroU32, os::fd::OwnedFd, time::Duration};

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType,
    netlink::SocketAddrNetlink,
    recvfrom, send, socket_with,
    sockopt::{Timeout, set_socket_timeout},
};

/// A netlink socket.
pub(crate) struct Netlink(OwnedFd);

/// Longest wait for an answer of the kernel.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(2);

impl Netlink {
    /// Opens a socket for a protocol (NETLINK_SOCK_DIAG, NETLINK_ROUTE, NETLINK_NETFILTER).
    pub(crate) fn open(protocol: libc::c_int) -> Result<Self, Error> {
        // NETLINK_ROUTE is 0, which is none here.
        let protocol = NonZeroU32::new(protocol.cast_unsigned()).map(Protocol::from_raw);
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(RECEIVE_TIMEOUT))?;
        Ok(Self(socket))
    }

    /// Sends a request to the kernel, to which an unconnected netlink socket sends.
    pub(crate) fn send(&self, request: &[u8]) -> Result<(), Error> {
        send(&self.0, request, SendFlags::empty())?;
        Ok(())
    }

    /// Receives one datagram of the answer. A datagram larger than the buffer, or from another sender, is an error.
    pub(crate) fn receive<'b>(&self, buffer: &'b mut [u8]) -> Result<&'b [u8], Error> {
        let (_, length, sender) = recvfrom(&self.0, &mut *buffer, RecvFlags::TRUNC)?;
        let sender = sender.and_then(|sender| SocketAddrNetlink::try_from(sender).ok());
        if sender.is_none_or(|sender| sender.pid() != 0) {
            return Err(Error::other("the answer does not come from the kernel"));
        }
        buffer.get(..length).ok_or_else(|| Error::other("the answer is longer than the buffer"))
    }
}
