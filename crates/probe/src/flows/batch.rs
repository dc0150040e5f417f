//! Batch receive of packets with one system call, each with its metadata from the kernel.

use std::{io, mem::MaybeUninit};

use libc::{c_int, c_uint};

use crate::flows::{filter::SNAP_BYTES, interface::GuestEnd, parse::Frame, socket::PacketSocket};

const BATCH: usize = 64;
/// struct virtio_net_hdr, which the kernel puts before each frame: flags, type, header length, segment size, …
const OFFLOAD_BYTES: usize = 10;
const SEGMENT_SIZE: std::ops::Range<usize> = 4..6;
const SLOT_BYTES: usize = OFFLOAD_BYTES + SNAP_BYTES as usize;
const CONTROL_BYTES: usize = 128;

/// Ancillary data, aligned as cmsghdr needs it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_BYTES]);

/// The kernel's metadata of one packet.
#[derive(Debug, Clone, Copy, Default)]
struct Received {
    /// Number of bytes captured in the slot.
    here: usize,
    /// Length of the whole frame in bytes.
    length: usize,
    outgoing: bool,
    tag: Option<u16>,
    /// Time of arrival by the real-time clock, in nanoseconds.
    time: Option<u64>,
}

/// Buffers for one batch of packets.
pub(crate) struct Batch {
    slots: Vec<[u8; SLOT_BYTES]>,
    controls: Vec<Control>,
    received: Vec<Received>,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self {
            slots: vec![[0; SLOT_BYTES]; BATCH],
            controls: vec![Control([0; CONTROL_BYTES]); BATCH],
            received: Vec::with_capacity(BATCH),
        }
    }

    /// Receives the packets that are ready, without waiting.
    pub(crate) fn receive(&mut self, socket: &PacketSocket) -> io::Result<()> {
        self.received.clear();
        // SAFETY: all zeros is a valid value of these C structures: null pointers and zero lengths.
        let (mut vectors, mut senders, mut messages): (
            [libc::iovec; BATCH],
            [libc::sockaddr_ll; BATCH],
            [libc::mmsghdr; BATCH],
        ) = unsafe { (zeroed(), zeroed(), zeroed()) };
        for ((((message, vector), sender), slot), control) in messages
            .iter_mut()
            .zip(&mut vectors)
            .zip(&mut senders)
            .zip(&mut self.slots)
            .zip(&mut self.controls)
        {
            vector.iov_base = slot.as_mut_ptr().cast();
            vector.iov_len = SLOT_BYTES;
            let header = &mut message.msg_hdr;
            header.msg_iov = vector;
            header.msg_iovlen = 1;
            header.msg_name = std::ptr::from_mut(sender).cast();
            header.msg_namelen = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or(0);
            header.msg_control = std::ptr::from_mut(control).cast();
            header.msg_controllen = CONTROL_BYTES as _;
        }
        // SAFETY: each message points to its own slot, sender and control, which outlive the call, with their
        // lengths; there are as many messages as is said; no timeout.
        let count = unsafe {
            libc::recvmmsg(
                socket.raw(),
                messages.as_mut_ptr(),
                c_uint::try_from(BATCH).unwrap_or(0),
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        let Ok(count) = usize::try_from(count) else {
            return Err(io::Error::last_os_error());
        };
        for (message, sender) in messages.iter().zip(&senders).take(count) {
            let here = usize::try_from(message.msg_len).unwrap_or(0).min(SLOT_BYTES);
            let auxiliary = auxiliary(&message.msg_hdr);
            self.received.push(Received {
                here,
                length: auxiliary.map_or(0, |data| usize::try_from(data.tp_len).unwrap_or(0)),
                outgoing: sender.sll_pkttype == libc::PACKET_OUTGOING,
                tag: auxiliary
                    .filter(|data| data.tp_status & libc::TP_STATUS_VLAN_VALID != 0)
                    .map(|data| data.tp_vlan_tci),
                time: arrival(&message.msg_hdr),
            });
        }
        Ok(())
    }

    /// The packets of the batch with their times of arrival; `None` for a packet without its offload header.
    pub(crate) fn frames(&self, guest: GuestEnd) -> impl Iterator<Item = Option<(Frame<'_>, Option<u64>)>> {
        self.received.iter().zip(&self.slots).map(move |(packet, slot)| {
            let (offload, bytes) = slot.get(..packet.here)?.split_at_checked(OFFLOAD_BYTES)?;
            let segment_bytes = offload.get(SEGMENT_SIZE)?.try_into().map(u16::from_ne_bytes).ok()?;
            let frame = Frame {
                bytes,
                length: packet.length.max(bytes.len()),
                from_guest: packet.outgoing == (guest == GuestEnd::Interface),
                tag: packet.tag,
                segment_bytes,
            };
            Some((frame, packet.time))
        })
    }

    /// Number of packets in the batch.
    pub(crate) fn len(&self) -> usize {
        self.received.len()
    }
}

/// # Safety
/// All zeros must be a valid `T`.
unsafe fn zeroed<T>() -> T {
    // SAFETY: guaranteed by the caller.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// The PACKET_AUXDATA of a message: true length and VLAN tag.
fn auxiliary(message: &libc::msghdr) -> Option<libc::tpacket_auxdata> {
    control_message(message, libc::SOL_PACKET, libc::PACKET_AUXDATA)
}

/// The SCM_TIMESTAMPNS of a message, in nanoseconds.
fn arrival(message: &libc::msghdr) -> Option<u64> {
    let time: libc::timespec = control_message(message, libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS)?;
    let seconds = u64::try_from(time.tv_sec).ok()?.checked_mul(1_000_000_000)?;
    seconds.checked_add(u64::try_from(time.tv_nsec).ok()?)
}

/// The content of the control message of this kind, a plain structure of the kernel.
fn control_message<T: Copy>(message: &libc::msghdr, level: c_int, kind: c_int) -> Option<T> {
    let wanted = u32::try_from(size_of::<T>()).ok()?;
    // SAFETY: the kernel has filled the message's control buffer, which is aligned, and set its length; the macros
    // stay within that length. The callers name the structure that the kernel writes for the kind, which any bytes are valid for.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(message);
        while let Some(header) = at.as_ref() {
            if header.cmsg_level == level
                && header.cmsg_type == kind
                && header.cmsg_len >= libc::CMSG_LEN(wanted) as _
            {
                return Some(libc::CMSG_DATA(at).cast::<T>().read_unaligned());
            }
            at = libc::CMSG_NXTHDR(message, at);
        }
    }
    None
}
