//! Counting in the kernel, the first method: the counters are copied out of the kernel, and a bounded number of packets.

use std::{
    io,
    time::{Duration, Instant},
};

use crate::{
    flows::{
        bpf::{
            self, BUDGET_REFUSED, BrokenJump, Budget, COUNT_BYTES, Clock, KEY_BYTES, Map, MapKind, Maps,
            PART_BYTES, Program, TOTAL_BYTES, TOTAL_FRAMES, TOTAL_MALFORMED, TOTAL_NO_ROOM,
            TOTAL_STRAY_OCTETS, TOTAL_STRAY_PACKETS, TOTAL_STREAMS_NO_ROOM, TOTAL_TOO_DEEP,
        },
        directed_flow::Totals,
        evidence::Evidence,
        interface::GuestEnd,
        raw_capture::RawCapture,
        ring::Ring,
        socket::{PacketSocket, WaitResult, monotonic_nanoseconds, real_nanoseconds},
        table::{Counts, MOST_PARTS},
    },
    netlink::Interface,
};

/// Pause after a read, so that packets come together.
const PAUSE: Duration = Duration::from_millis(20);
/// Memory for packets that wait to be read: more than all budgets of a pause together.
const RING_BYTES: usize = 1 << 20;

/// Reason why the kernel cannot count.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KernelCountError {
    #[error("cannot create a BPF map (needs CAP_BPF or root): {0}")]
    Map(io::Error),
    #[error("the kernel rejects the BPF program (needs CAP_BPF and Linux 5.8 or later): {0}")]
    Program(io::Error),
    #[error("cannot attach the BPF program: {0}")]
    Attach(io::Error),
    #[error(transparent)]
    Assembly(#[from] BrokenJump),
}

/// The counter in the kernel, ready to be attached.
#[derive(Debug)]
pub(crate) struct Counter {
    guest: GuestEnd,
    flows: Map,
    streams: Map,
    /// Used only by the program; it lives as long as the counter.
    _parts: Map,
    totals: Map,
    program: Program,
}

impl Counter {
    pub(crate) fn load(guest: GuestEnd, max_directed_flows: u32) -> Result<Self, KernelCountError> {
        let flows = Map::create(MapKind::Hash, KEY_BYTES, COUNT_BYTES, max_directed_flows)
            .map_err(KernelCountError::Map)?;
        let streams = Map::create(MapKind::Hash, KEY_BYTES, COUNT_BYTES, max_directed_flows)
            .map_err(KernelCountError::Map)?;
        let parts = Map::create(MapKind::LruHash, KEY_BYTES, PART_BYTES, MOST_PARTS)
            .map_err(KernelCountError::Map)?;
        let totals = Map::create(MapKind::Array, 4, TOTAL_BYTES, 1).map_err(KernelCountError::Map)?;
        let maps =
            Maps { flows: flows.raw(), streams: streams.raw(), parts: parts.raw(), totals: totals.raw() };
        let program = match Program::load(&bpf::assemble(maps, guest, Clock::Coarse)?) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                Program::load(&bpf::assemble(maps, guest, Clock::Exact)?)
            }
            other => other,
        }
        .map_err(KernelCountError::Program)?;
        Ok(Self { guest, flows, streams, _parts: parts, totals, program })
    }

    /// Attaches the counter to the socket, which must not be bound yet.
    pub(crate) fn attach(&self, socket: &PacketSocket) -> Result<(), KernelCountError> {
        socket
            .set(libc::SOL_SOCKET, libc::SO_ATTACH_BPF, &self.program.raw())
            .map_err(KernelCountError::Attach)
    }

    /// Counts for the window, and reads what the program passes.
    pub(crate) fn run(
        self,
        socket: PacketSocket,
        interface: &Interface,
        window: Duration,
    ) -> io::Result<RawCapture> {
        let (mut ring, mut evidence) = (Ring::of(&socket, RING_BYTES)?, Evidence::new());
        let (begin, real_begin) = (monotonic_nanoseconds(), real_nanoseconds());
        let deadline = Instant::now() + window;
        let mut read = || {
            ring.read(self.guest, |frame, at| evidence.observe(frame, at.saturating_sub(real_begin)));
        };
        socket.bind(interface)?;
        let mut wake = WaitResult::Timeout;
        while Instant::now() < deadline && wake != WaitResult::InterfaceLost {
            wake = socket.wait(true, deadline)?;
            read();
            if wake == WaitResult::Readable {
                std::thread::sleep(PAUSE.min(deadline.saturating_duration_since(Instant::now())));
            }
        }
        read();
        let unseen = socket.drops()?;
        let end = monotonic_nanoseconds();
        // Closing waits until no processor runs the program any more: then the maps no longer change.
        drop((ring, socket));
        let (directed_flows, streams, totals) = self.read()?;
        Ok(RawCapture {
            directed_flows,
            streams,
            evidence,
            totals,
            drops: 0,
            unseen: unseen.saturating_add(totals.unseen),
            interrupted: wake == WaitResult::InterfaceLost,
            begin,
            end,
        })
    }

    pub(crate) fn read(&self) -> io::Result<(Counts, Counts, Totals)> {
        let garbled = || io::Error::other("the kernel's counters have an unexpected format");
        let counts = |map: &Map| {
            let mut counts = Vec::new();
            for (key, value) in map.entries()? {
                let directed = bpf::read_directed_flow(&key).ok_or_else(garbled)?;
                counts.push((directed, bpf::read_count(&value).ok_or_else(garbled)?));
            }
            io::Result::Ok(counts)
        };
        let (directed_flows, streams) = (counts(&self.flows)?, counts(&self.streams)?);
        let value = self.totals.get(&[0; 4])?.ok_or_else(garbled)?;
        let total = |at| bpf::read_total(&value, at).ok_or_else(garbled);
        let totals = Totals {
            frames: Some(total(TOTAL_FRAMES)?),
            malformed: total(TOTAL_MALFORMED)?,
            too_deep: total(TOTAL_TOO_DEEP)?,
            no_room: total(TOTAL_NO_ROOM)?,
            streams_no_room: total(TOTAL_STREAMS_NO_ROOM)?,
            unseen: total(Budget::Control.at() + BUDGET_REFUSED)?
                .saturating_add(total(Budget::First.at() + BUDGET_REFUSED)?),
            stray_packets: total(TOTAL_STRAY_PACKETS)?,
            stray_bytes: total(TOTAL_STRAY_OCTETS)?,
        };
        Ok((directed_flows, streams, totals))
    }

    #[cfg(test)]
    pub(crate) fn program(&self) -> &Program {
        &self.program
    }
}
