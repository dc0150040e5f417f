//! Counting in the kernel: an eBPF socket filter, assembled and loaded by vmgate itself.
//!
//! The filter exists as long as the socket that it is attached to, so it never outlives the process.

mod assembler;
mod counter;
mod counting;
mod headers;
mod layout;
mod streams;
#[cfg(test)]
pub(crate) use syscall::trial;
mod syscall;

pub use assembler::BrokenJump;
pub(crate) use counter::{Clock, Maps, assemble};
pub(crate) use layout::{
    BUDGET_REFUSED, Budget, COUNT_BYTES, KEY_BYTES, PART_BYTES, TOTAL_BYTES, TOTAL_FRAMES, TOTAL_MALFORMED,
    TOTAL_NO_ROOM, TOTAL_STRAY_OCTETS, TOTAL_STRAY_PACKETS, TOTAL_STREAMS_NO_ROOM, TOTAL_TOO_DEEP,
    read_count, read_directed_flow, read_total,
};
pub(crate) use syscall::{Map, MapKind, Program};
