//! The second method, for where the kernel may not count: headers of packets that may be UDP come to this process.
//!
//! Read with recvmmsg and not through `pnet::datalink`, which throws away what is needed here: the packet's
//! direction, the VLAN tag in its metadata and its true length. Headers are parsed with pnet.

use std::ffi::c_int;
use std::io;
use std::time::{Duration, Instant};

use pnet::datalink::NetworkInterface;

use super::batch::Batch;
use super::filter::{accept_nothing, may_be_udp};
use super::interface::GuestEnd;
use super::limits::Limits;
use super::parse::parse;
use super::socket::{PacketSocket, Wake, monotonic_nanoseconds, thread_nanoseconds};
use super::table::Table;
use super::tally::Tally;

/// Processor time that may be taken in advance, so that a burst is not dropped.
const HEAD_START: Duration = Duration::from_millis(20);
const PAUSE: Duration = Duration::from_millis(5);

/// A capture that is going on.
struct Capture<'a> {
    socket: &'a PacketSocket,
    guest: GuestEnd,
    limits: &'a Limits,
    batch: Batch,
    table: Table,
    taken: u64,
    drops: u64,
}

/// How one read went.
#[derive(PartialEq, Eq)]
enum Read {
    Some,
    Empty,
    Lost,
}

/// Watches the interface for the window; `socket` is not bound yet.
pub(crate) fn run(
    socket: &PacketSocket,
    interface: &NetworkInterface,
    guest: GuestEnd,
    window: Duration,
    limits: &Limits,
) -> io::Result<Tally> {
    prepare(socket, limits)?;
    let table = Table::new(usize::try_from(limits.max_ways()).unwrap_or(usize::MAX));
    let mut capture = Capture { socket, guest, limits, batch: Batch::new(), table, taken: 0, drops: 0 };
    let begin = monotonic_nanoseconds();
    let deadline = Instant::now() + window;
    socket.bind(interface)?;
    let mut lost = capture.watch(begin, deadline)?;
    let end = monotonic_nanoseconds();

    // What has come by now belongs to the window; nothing more may come while it is read.
    set_filter(socket, accept_nothing())?;
    while !capture.is_full() {
        match capture.read()? {
            Read::Some => {}
            Read::Empty => break,
            Read::Lost => lost = true,
        }
    }
    let drops = capture.drops.saturating_add(socket.drops()?);
    let (ways, totals) = capture.table.finish();
    let full = capture.taken >= limits.max_packets;
    Ok(Tally { ways, totals, drops, interrupted: lost || full, begin, end })
}

fn prepare(socket: &PacketSocket, limits: &Limits) -> io::Result<()> {
    const PACKET_VNET_HDR: c_int = 15;
    set_filter(socket, may_be_udp())?;
    socket.set_buffer(limits.buffer_bytes)?;
    socket.set(libc::SOL_PACKET, libc::PACKET_AUXDATA, &1_i32)?;
    socket.set(libc::SOL_PACKET, PACKET_VNET_HDR, &1_i32)
}

fn set_filter(socket: &PacketSocket, mut code: Vec<libc::sock_filter>) -> io::Result<()> {
    let len = u16::try_from(code.len()).unwrap_or(u16::MAX);
    socket.set(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &libc::sock_fprog { len, filter: code.as_mut_ptr() })
}

impl Capture<'_> {
    fn is_full(&self) -> bool {
        self.taken >= self.limits.max_packets
    }

    /// Reads until the deadline; true where the interface went away before.
    fn watch(&mut self, begin: u64, deadline: Instant) -> io::Result<bool> {
        let busy_before = thread_nanoseconds();
        while Instant::now() < deadline && !self.is_full() {
            match self.socket.wait(true, deadline)? {
                Wake::Readable => {}
                Wake::Timeout => break,
                Wake::Lost => return Ok(true),
            }
            if self.read()? == Read::Lost {
                return Ok(true);
            }
            let busy = Duration::from_nanos(thread_nanoseconds().saturating_sub(busy_before));
            let passed = Duration::from_nanos(monotonic_nanoseconds().saturating_sub(begin));
            if busy > passed.mul_f64(self.limits.processor_share()) + HEAD_START {
                // What finds no room meanwhile is dropped in the kernel, at little cost, and counted there.
                std::thread::sleep(PAUSE.min(deadline.saturating_duration_since(Instant::now())));
            }
        }
        Ok(false)
    }

    fn read(&mut self) -> io::Result<Read> {
        if let Err(error) = self.batch.receive(self.socket) {
            return match error.raw_os_error() {
                Some(libc::ENETDOWN) => Ok(Read::Lost),
                Some(libc::EAGAIN | libc::EINTR) => Ok(Read::Empty),
                // A packet whose offload this kernel cannot describe: it is lost, and counted.
                Some(libc::EINVAL) => {
                    self.drops = self.drops.saturating_add(1);
                    Ok(Read::Some)
                }
                _ => Err(error),
            };
        }
        let now = monotonic_nanoseconds();
        for frame in self.batch.frames(self.guest) {
            self.taken = self.taken.saturating_add(1);
            match frame {
                Some(frame) => self.table.count(parse(frame), now),
                None => self.drops = self.drops.saturating_add(1),
            }
        }
        Ok(if self.batch.len() == 0 { Read::Empty } else { Read::Some })
    }
}
