//! Counting in the kernel, the first method: only the counters are copied out of the kernel.

use std::{
    io,
    time::{Duration, Instant},
};

use crate::{
    flows::{
        bpf::{
            self, BrokenJump, COUNT_BYTES, Clock, KEY_BYTES, Map, MapKind, Maps, PART_BYTES, Program,
            TOTAL_BYTES, TOTAL_FRAMES, TOTAL_MALFORMED, TOTAL_NO_ROOM, TOTAL_STRAY_OCTETS,
            TOTAL_STRAY_PACKETS, TOTAL_TOO_DEEP,
        },
        directed_flow::{Count, DirectedFlow, Totals},
        interface::GuestEnd,
        raw_capture::RawCapture,
        socket::{PacketSocket, WaitResult, monotonic_nanoseconds},
        table::MOST_PARTS,
    },
    netlink::Interface,
};

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
    flows: Map,
    /// Used only by the program; it lives as long as the counter.
    _parts: Map,
    totals: Map,
    program: Program,
}

impl Counter {
    pub(crate) fn load(guest: GuestEnd, max_directed_flows: u32) -> Result<Self, KernelCountError> {
        let flows = Map::create(MapKind::Hash, KEY_BYTES, COUNT_BYTES, max_directed_flows)
            .map_err(KernelCountError::Map)?;
        let parts = Map::create(MapKind::LruHash, KEY_BYTES, PART_BYTES, MOST_PARTS)
            .map_err(KernelCountError::Map)?;
        let totals = Map::create(MapKind::Array, 4, TOTAL_BYTES, 1).map_err(KernelCountError::Map)?;
        let maps = Maps { flows: flows.raw(), parts: parts.raw(), totals: totals.raw() };
        let program = match Program::load(&bpf::assemble(maps, guest, Clock::Coarse)?) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                Program::load(&bpf::assemble(maps, guest, Clock::Exact)?)
            }
            other => other,
        }
        .map_err(KernelCountError::Program)?;
        Ok(Self { flows, _parts: parts, totals, program })
    }

    /// Attaches the counter to the socket, which must not be bound yet.
    pub(crate) fn attach(&self, socket: &PacketSocket) -> Result<(), KernelCountError> {
        socket
            .set(libc::SOL_SOCKET, libc::SO_ATTACH_BPF, &self.program.raw())
            .map_err(KernelCountError::Attach)
    }

    /// Counts for the window.
    pub(crate) fn run(
        self,
        socket: PacketSocket,
        interface: &Interface,
        window: Duration,
    ) -> io::Result<RawCapture> {
        let begin = monotonic_nanoseconds();
        let deadline = Instant::now() + window;
        socket.bind(interface)?;
        let mut wake = WaitResult::Timeout;
        // Nothing can be read, since the filter passes nothing. Only the loss of the interface ends the wait early.
        while Instant::now() < deadline && wake != WaitResult::InterfaceLost {
            wake = socket.wait(false, deadline)?;
        }
        let drops = socket.drops()?;
        let end = monotonic_nanoseconds();
        // Closing waits until no processor runs the program any more: then the maps no longer change.
        drop(socket);
        let (directed_flows, totals) = self.read()?;
        Ok(RawCapture {
            directed_flows,
            totals,
            drops,
            interrupted: wake == WaitResult::InterfaceLost,
            begin,
            end,
        })
    }

    pub(crate) fn read(&self) -> io::Result<(Vec<(DirectedFlow, Count)>, Totals)> {
        let garbled = || io::Error::other("the kernel's counters have an unexpected format");
        let mut directed_flows = Vec::new();
        for (key, value) in self.flows.entries()? {
            let directed = bpf::read_directed_flow(&key).ok_or_else(garbled)?;
            directed_flows.push((directed, bpf::read_count(&value).ok_or_else(garbled)?));
        }
        let value = self.totals.get(&[0; 4])?.ok_or_else(garbled)?;
        let total = |at| bpf::read_total(&value, at).ok_or_else(garbled);
        let totals = Totals {
            frames: Some(total(TOTAL_FRAMES)?),
            malformed: total(TOTAL_MALFORMED)?,
            too_deep: total(TOTAL_TOO_DEEP)?,
            no_room: total(TOTAL_NO_ROOM)?,
            stray_packets: total(TOTAL_STRAY_PACKETS)?,
            stray_bytes: total(TOTAL_STRAY_OCTETS)?,
        };
        Ok((directed_flows, totals))
    }

    #[cfg(test)]
    pub(crate) fn program(&self) -> &Program {
        &self.program
    }
}
