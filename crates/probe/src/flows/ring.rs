//! Packets that passed the filter, in memory that the kernel shares (packet(7), PACKET_RX_RING): each with its metadata, and with the
//! time at which it came. A socket that asks for times in another way (SO_TIMESTAMP) has the kernel date every packet of the host.

use std::{
    io,
    mem::offset_of,
    ptr::{NonNull, null_mut},
    slice,
    sync::atomic::{AtomicU32, Ordering},
};

use libc::{c_int, c_uint, sockaddr_ll, tpacket2_hdr};

use crate::flows::{interface::GuestEnd, parse::Frame, socket::PacketSocket};

/// Room for a packet: the kernel's headers, and what the filters let through.
const SLOT: usize = 1024;
/// Memory that the kernel takes at once.
const BLOCK: usize = 64 << 10;
/// struct virtio_net_hdr, which the kernel puts before each frame: flags, type, header length, segment size, …
const OFFLOAD_BYTES: usize = 10;
const SEGMENT_SIZE: usize = 4;
/// Place of the sender's address, behind the kernel's header.
const SENDER: usize = libc::TPACKET2_HDRLEN - size_of::<sockaddr_ll>();

/// Memory that the kernel fills, slot by slot and round again. It keeps the socket open.
pub(crate) struct Ring {
    start: NonNull<u8>,
    slots: usize,
    next: usize,
}

impl Ring {
    /// Gives the socket, which must not be bound yet, so much memory: at least one block.
    pub(crate) fn of(socket: &PacketSocket, bytes: usize) -> io::Result<Self> {
        const PACKET_VNET_HDR: c_int = 15;
        let blocks = (bytes / BLOCK).max(1);
        let (length, slots) = (blocks * BLOCK, blocks * BLOCK / SLOT);
        let number = |number: usize| c_uint::try_from(number).unwrap_or(0);
        let request = libc::tpacket_req {
            tp_block_size: number(BLOCK),
            tp_block_nr: number(blocks),
            tp_frame_size: number(SLOT),
            tp_frame_nr: number(slots),
        };
        socket.set(libc::SOL_PACKET, libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V2 as c_int))?;
        socket.set(libc::SOL_PACKET, PACKET_VNET_HDR, &1_i32)?;
        socket.set(libc::SOL_PACKET, libc::PACKET_RX_RING, &request)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at a place that the kernel chooses.
        let start = unsafe { libc::mmap(null_mut(), length, protection, libc::MAP_SHARED, socket.raw(), 0) };
        match NonNull::new(start.cast()).filter(|_| start != libc::MAP_FAILED) {
            Some(start) => Ok(Self { start, slots, next: 0 }),
            None => Err(io::Error::last_os_error()),
        }
    }

    /// Reads the packets that have come, one round at the most, with their times by the real-time clock in nanoseconds. Returns
    /// their number.
    pub(crate) fn read(&mut self, guest: GuestEnd, mut each: impl FnMut(Frame<'_>, u64)) -> usize {
        for count in 0..self.slots {
            // SAFETY: `next` is less than `slots`, and the mapping is as long as all of them.
            let slot = unsafe { self.start.add(self.next * SLOT) };
            // SAFETY: a slot begins with its status, aligned, which kernel and process write as a whole.
            let status = unsafe { AtomicU32::from_ptr(slot.cast().as_ptr()) };
            if status.load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
                return count;
            }
            // SAFETY: the slot is within the mapping, and the kernel leaves it alone until its status is given back.
            if let Some((frame, time)) = packet(unsafe { slice::from_raw_parts(slot.as_ptr(), SLOT) }, guest)
            {
                each(frame, time);
            }
            status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
            self.next = (self.next + 1) % self.slots;
        }
        self.slots
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping is this one's own, and nothing points into it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.slots * SLOT) };
    }
}

/// The packet of a slot, and its time.
fn packet(slot: &[u8], guest: GuestEnd) -> Option<(Frame<'_>, u64)> {
    let word = |at: usize| Some(u32::from_ne_bytes(*slot.get(at..)?.first_chunk()?));
    let half = |at: usize| Some(u16::from_ne_bytes(*slot.get(at..)?.first_chunk()?));
    let size = |at: usize| usize::try_from(word(at)?).ok();
    let begin = usize::from(half(offset_of!(tpacket2_hdr, tp_mac))?);
    let bytes = slot.get(begin..)?.get(..size(offset_of!(tpacket2_hdr, tp_snaplen))?)?;
    let outgoing = *slot.get(SENDER + offset_of!(sockaddr_ll, sll_pkttype))? == libc::PACKET_OUTGOING;
    let tagged = word(offset_of!(tpacket2_hdr, tp_status))? & libc::TP_STATUS_VLAN_VALID != 0;
    let frame = Frame {
        bytes,
        length: size(offset_of!(tpacket2_hdr, tp_len))?.max(bytes.len()),
        from_guest: outgoing == (guest == GuestEnd::Interface),
        tag: half(offset_of!(tpacket2_hdr, tp_vlan_tci)).filter(|_| tagged),
        segment_bytes: half(begin.checked_sub(OFFLOAD_BYTES)? + SEGMENT_SIZE)?,
    };
    let seconds = u64::from(word(offset_of!(tpacket2_hdr, tp_sec))?);
    let nanoseconds = u64::from(word(offset_of!(tpacket2_hdr, tp_nsec))?);
    Some((frame, seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)))
}
