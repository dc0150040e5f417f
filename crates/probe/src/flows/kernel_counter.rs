//! The first method: the kernel counts, and nothing is copied out of it but the counters.

use std::io;
use std::time::{Duration, Instant};

use pnet::datalink::NetworkInterface;

use super::bpf::{
    self, BrokenJump, COUNT_BYTES, Clock, KEY_BYTES, Map, MapKind, Maps, PART_BYTES, Program, TOTAL_BYTES,
    TOTAL_FRAMES, TOTAL_MALFORMED, TOTAL_NO_ROOM, TOTAL_STRAY_OCTETS, TOTAL_STRAY_PACKETS, TOTAL_TOO_DEEP,
};
use super::interface::GuestEnd;
use super::socket::{PacketSocket, Wake, monotonic_nanoseconds};
use super::table::MOST_PARTS;
use super::tally::Tally;
use super::way::{Count, Totals, Way};

/// Why the kernel cannot count.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("a map cannot be made (needs CAP_BPF, or root): {0}")]
    Map(io::Error),
    #[error("the program is refused (needs CAP_BPF and Linux 5.8 or later): {0}")]
    Program(io::Error),
    #[error("the program cannot be attached: {0}")]
    Attach(io::Error),
    #[error(transparent)]
    Assembly(#[from] BrokenJump),
}

/// The counter in the kernel, ready to be attached.
#[derive(Debug)]
pub(crate) struct Counter {
    flows: Map,
    /// Only the program looks into it; it lives as long as the counter.
    _parts: Map,
    totals: Map,
    program: Program,
}

impl Counter {
    pub(crate) fn load(guest: GuestEnd, most_ways: u32) -> Result<Self, Refusal> {
        let flows = Map::create(MapKind::Hash, KEY_BYTES, COUNT_BYTES, most_ways).map_err(Refusal::Map)?;
        let parts = Map::create(MapKind::LruHash, KEY_BYTES, PART_BYTES, MOST_PARTS).map_err(Refusal::Map)?;
        let totals = Map::create(MapKind::Array, 4, TOTAL_BYTES, 1).map_err(Refusal::Map)?;
        let maps = Maps { flows: flows.raw(), parts: parts.raw(), totals: totals.raw() };
        let program = match Program::load(&bpf::assemble(maps, guest, Clock::Coarse)?) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                Program::load(&bpf::assemble(maps, guest, Clock::Exact)?)
            }
            other => other,
        }
        .map_err(Refusal::Program)?;
        Ok(Self { flows, _parts: parts, totals, program })
    }

    /// Hangs the counter on the socket, which hears nothing yet.
    pub(crate) fn attach(&self, socket: &PacketSocket) -> Result<(), Refusal> {
        socket.set(libc::SOL_SOCKET, libc::SO_ATTACH_BPF, &self.program.raw()).map_err(Refusal::Attach)
    }

    /// Lets it count for the window.
    pub(crate) fn run(
        self,
        socket: PacketSocket,
        interface: &NetworkInterface,
        window: Duration,
    ) -> io::Result<Tally> {
        let begin = monotonic_nanoseconds();
        let deadline = Instant::now() + window;
        socket.bind(interface)?;
        let mut wake = Wake::Timeout;
        // Nothing can be read: the filter lets nothing through. Only the interface's end wakes it early.
        while Instant::now() < deadline && wake != Wake::Lost {
            wake = socket.wait(false, deadline)?;
        }
        let drops = socket.drops()?;
        let end = monotonic_nanoseconds();
        // Closing waits until no processor runs the program any more: then the maps stand still.
        drop(socket);
        let (ways, totals) = self.read()?;
        Ok(Tally { ways, totals, drops, interrupted: wake == Wake::Lost, begin, end })
    }

    pub(crate) fn read(&self) -> io::Result<(Vec<(Way, Count)>, Totals)> {
        let garbled = || io::Error::other("the kernel's counters cannot be read: not as vmgate wrote them");
        let mut ways = Vec::new();
        for (key, value) in self.flows.entries()? {
            let way = bpf::read_way(&key).ok_or_else(garbled)?;
            ways.push((way, bpf::read_count(&value).ok_or_else(garbled)?));
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
        Ok((ways, totals))
    }

    #[cfg(test)]
    pub(crate) fn program(&self) -> &Program {
        &self.program
    }
}
