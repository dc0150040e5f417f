//! Packet capture, the second method, used if the kernel cannot count: this process reads the headers of packets that
//! may be UDP, of control protocols, and of a sample of the rest.
//!
//! Frames are read from a ring and not through `pnet::datalink`, which drops the packet's direction, the VLAN tag in its
//! metadata and its true length.

use std::{
    io,
    time::{Duration, Instant},
};

use crate::{
    flows::{
        evidence::Evidence,
        filter::{accept_nothing, worth_reading},
        interface::GuestEnd,
        limits::Limits,
        parse::parse,
        raw_capture::RawCapture,
        ring::Ring,
        socket::{PacketSocket, WaitResult, monotonic_nanoseconds, real_nanoseconds, thread_nanoseconds},
        table::Table,
    },
    netlink::Interface,
};

/// Processor time that may be used in advance, so that a burst is not dropped.
const HEAD_START: Duration = Duration::from_millis(20);
const PAUSE: Duration = Duration::from_millis(5);

/// A running capture.
struct Capture<'a> {
    socket: &'a PacketSocket,
    guest: GuestEnd,
    limits: &'a Limits,
    ring: Ring,
    table: Table,
    evidence: Evidence,
    /// Start of the window by the clock that dates packets.
    real_begin: u64,
    taken: u64,
}

/// Captures on the interface for the window; `socket` must not be bound yet.
pub(crate) fn run(
    socket: &PacketSocket,
    interface: &Interface,
    guest: GuestEnd,
    window: Duration,
    limits: &Limits,
) -> io::Result<RawCapture> {
    set_filter(socket, worth_reading())?;
    let table = Table::new(usize::try_from(limits.max_directed_flows()).unwrap_or(usize::MAX));
    let mut capture = Capture {
        socket,
        guest,
        limits,
        ring: Ring::of(socket, limits.buffer_bytes)?,
        table,
        evidence: Evidence::new(),
        real_begin: real_nanoseconds(),
        taken: 0,
    };
    let begin = monotonic_nanoseconds();
    let deadline = Instant::now() + window;
    socket.bind(interface)?;
    let lost = capture.watch(begin, deadline)?;
    let end = monotonic_nanoseconds();

    // Packets that wait now belong to the window; no more may arrive while they are read.
    set_filter(socket, accept_nothing())?;
    while !capture.is_full() && capture.read() > 0 {}
    let drops = socket.drops()?;
    let (directed_flows, streams, totals) = capture.table.finish();
    let full = capture.taken >= limits.max_packets;
    Ok(RawCapture {
        directed_flows,
        streams,
        evidence: capture.evidence,
        totals,
        drops,
        unseen: drops,
        interrupted: lost || full,
        begin,
        end,
    })
}

fn set_filter(socket: &PacketSocket, mut code: Vec<libc::sock_filter>) -> io::Result<()> {
    let len = u16::try_from(code.len()).unwrap_or(u16::MAX);
    socket.set(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &libc::sock_fprog { len, filter: code.as_mut_ptr() })
}

impl Capture<'_> {
    fn is_full(&self) -> bool {
        self.taken >= self.limits.max_packets
    }

    /// Reads until the deadline; true if the interface disappeared before.
    fn watch(&mut self, begin: u64, deadline: Instant) -> io::Result<bool> {
        let busy_before = thread_nanoseconds();
        while Instant::now() < deadline && !self.is_full() {
            match self.socket.wait(true, deadline)? {
                WaitResult::Readable => self.read(),
                WaitResult::Timeout => break,
                WaitResult::InterfaceLost => return Ok(true),
            };
            let busy = Duration::from_nanos(thread_nanoseconds().saturating_sub(busy_before));
            let passed = Duration::from_nanos(monotonic_nanoseconds().saturating_sub(begin));
            if busy > passed.mul_f64(self.limits.processor_share()) + HEAD_START {
                // The kernel drops and counts, at little cost, the packets that do not fit into the buffer meanwhile.
                std::thread::sleep(PAUSE.min(deadline.saturating_duration_since(Instant::now())));
            }
        }
        Ok(false)
    }

    /// Reads the packets that have come; returns their number.
    fn read(&mut self) -> usize {
        let now = monotonic_nanoseconds();
        let read = self.ring.read(self.guest, |frame, at| {
            self.table.count(parse(frame), now);
            self.evidence.observe(frame, at.saturating_sub(self.real_begin));
        });
        self.taken = self.taken.saturating_add(read as u64);
        read
    }
}
