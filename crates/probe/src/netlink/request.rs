//! Netlink requests to the kernel, with one answer or a dump of many.

use std::io::{Error, ErrorKind};

use crate::netlink::{NLMSG_DONE, NLMSG_ERROR, Netlink, messages, number32};

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
/// A datagram of a dump is at most this long (net/netlink/af_netlink.c, max_recvmsg_len).
const LONGEST_DATAGRAM: usize = 64 << 10;
/// Most datagrams of one dump; a host with thousands of interfaces needs a few hundred.
const MOST_DATAGRAMS: usize = 4096;

/// A request: the message's kind, its fixed part, and attributes after it.
pub(crate) struct Request {
    kind: u16,
    payload: Vec<u8>,
}

impl Request {
    /// A request with its fixed part, such as a `struct rtmsg`.
    pub(crate) fn new(kind: u16, fixed: &[u8]) -> Self {
        Self { kind, payload: fixed.to_vec() }
    }

    /// Adds an attribute.
    #[must_use]
    pub(crate) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        self.payload.extend(encoded(kind, value));
        self
    }

    fn bytes(&self, flags: u16) -> Vec<u8> {
        let length = u32::try_from(16 + self.payload.len()).unwrap_or(u32::MAX);
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(&self.payload);
        bytes
    }
}

/// An attribute, with the bytes that align the next one.
pub(crate) fn encoded(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [&length.to_ne_bytes(), &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Sends a request and returns the payload of its only answer.
pub(crate) fn query(protocol: libc::c_int, request: &Request) -> Result<Vec<u8>, Error> {
    let netlink = Netlink::open(protocol)?;
    netlink.send(&request.bytes(0))?;
    let mut buffer = vec![0; LONGEST_DATAGRAM];
    let answer = netlink.receive(&mut buffer)?;
    let message = messages(answer)
        .next()
        .ok_or_else(|| Error::other("the kernel sent no answer"))?
        .map_err(Error::other)?;
    match message.kind {
        NLMSG_ERROR => Err(kernel_error(message.payload)),
        _ => Ok(message.payload.to_vec()),
    }
}

/// Sends a request and returns the payloads of all messages of the dump.
pub(crate) fn dump(protocol: libc::c_int, request: &Request) -> Result<Vec<Vec<u8>>, Error> {
    let netlink = Netlink::open(protocol)?;
    netlink.send(&request.bytes(NLM_F_DUMP))?;
    let mut buffer = vec![0; LONGEST_DATAGRAM];
    let mut found = Vec::new();
    for _ in 0..MOST_DATAGRAMS {
        for message in messages(netlink.receive(&mut buffer)?) {
            let message = message.map_err(Error::other)?;
            match message.kind {
                NLMSG_DONE => return Ok(found),
                NLMSG_ERROR => return Err(kernel_error(message.payload)),
                _ => found.push(message.payload.to_vec()),
            }
        }
    }
    Err(Error::other("the kernel's answer has no end"))
}

/// The kernel's error in an answer (struct nlmsgerr), by its negative number.
fn kernel_error(payload: &[u8]) -> Error {
    match number32(payload, 0).map(u32::cast_signed) {
        Some(code) if code < 0 => Error::from_raw_os_error(code.saturating_neg()),
        _ => Error::new(ErrorKind::InvalidData, "the kernel reported an error without a number"),
    }
}
