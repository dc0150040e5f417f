//! The dirty-trace sampler: observes a sample of a running guest's pages from its host, outside QEMU.
//!
//! The sampler only reads /proc/PID/pagemap and the guest's memory (process_vm_readv), changes nothing, and works for
//! TCG and KVM on any QEMU. Pages without backing memory and pages in swap are not read. It stays within a share of one
//! core by taking fewer pages and, if necessary, by reading less often; the trace records its cost. It ends on its own
//! when a QEMU thread for a migration, snapshot or dirty-rate measurement appears. A page rewritten with the same
//! content does not count as changed, and a page changed twice between two reads counts once.

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers of pages, bytes and ticks lie far below 2^52 and above zero"
)]

mod content;
mod hash;
mod memory;
mod page_sample;
mod ram;

use std::{
    io,
    time::{Duration, Instant},
};

use page_sample::PageSample;
pub use ram::{RamBlock, RamError};
use thiserror::Error;
use vmgate_facts::{
    Cause, Unknown,
    trace::{DirtyTrace, TraceEnd},
};

pub use crate::qemu::{Qemu, QemuError};

/// Duration, sampling and cost limits of a trace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TraceOptions {
    /// Duration of the trace.
    pub length: Duration,
    /// Time between two reads of a page.
    pub tick: Duration,
    /// Largest share of one core's time.
    pub core_ratio: f64,
    /// Most pages in the sample.
    pub most_pages: usize,
    /// Seed of the random choice of pages.
    pub seed: u64,
}

impl Default for TraceOptions {
    fn default() -> Self {
        Self {
            length: Duration::from_secs(30),
            tick: Duration::from_millis(100),
            core_ratio: 0.03,
            most_pages: 8192,
            seed: 0,
        }
    }
}

/// Parses the memory map of a QEMU process.
#[cfg(feature = "fuzzing")]
pub fn fuzz_maps(bytes: &[u8]) {
    ram::fuzz(&String::from_utf8_lossy(bytes));
}

/// Reason why no trace was taken.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The VM's QEMU process was not found or cannot be read.
    #[error(transparent)]
    Qemu(#[from] QemuError),
    /// The VM's memory was not recognised.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// A migration, a snapshot or another measurement is running: it uses the CPU, so the result would be useless.
    #[error("the VM is being migrated, saved or measured: trace it before or afterwards")]
    Migrating,
    /// The kernel denies access to the process's memory.
    #[error("cannot read the memory of process {pid}: run as root on the VM's host")]
    Memory {
        /// The process.
        pid: u32,
        /// The kernel's error.
        source: io::Error,
    },
    /// The trace ended before its first tick.
    #[error("the measurement ended before the first tick: a migration started, or the VM stopped")]
    TooShort,
}

/// A trace, and the memory that was recognised as guest RAM.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// The trace.
    pub trace: DirtyTrace,
    /// The guest's RAM in QEMU's address space.
    pub blocks: Vec<RamBlock>,
}

impl From<RecordError> for Unknown {
    fn from(error: RecordError) -> Self {
        let cause = match &error {
            RecordError::Migrating => Cause::NotAllowed,
            RecordError::Memory { .. }
            | RecordError::Ram(RamError::Maps(..))
            | RecordError::Qemu(QemuError::Proc(_)) => Cause::PermissionDenied,
            RecordError::Qemu(_) | RecordError::Ram(_) => Cause::NotSupported,
            RecordError::TooShort => Cause::NotCollected,
        };
        Self::new(cause, error.to_string())
    }
}

/// Traces the VM with this name or UUID, which runs on this host.
pub fn of_vm(vm: &str, options: &TraceOptions) -> Result<DirtyTrace, Unknown> {
    let qemu = Qemu::of(vm).map_err(RecordError::from)?;
    Ok(record(&qemu, options, || false)?.trace)
}

/// Traces a running VM. `stop` is called before each tick; the trace ends if it returns true.
pub fn record(
    qemu: &Qemu,
    options: &TraceOptions,
    mut stop: impl FnMut() -> bool,
) -> Result<Recording, RecordError> {
    qemu.check_readable()?;
    if qemu.is_busy() {
        return Err(RecordError::Migrating);
    }
    let blocks = ram::blocks(qemu.pid, &qemu.backends())?;
    let busy_before = qemu.vcpu_seconds();
    let began = Instant::now();
    let mut next_look = Duration::ZERO;
    let mut asked = || {
        let mut ended = None;
        // The threads are checked twice a second: each check reads a few small files per thread.
        if began.elapsed() >= next_look {
            next_look = began.elapsed() + Duration::from_millis(500);
            if !qemu.is_alive() {
                ended = Some(TraceEnd::ProcessGone);
            } else if qemu.is_busy() {
                ended = Some(TraceEnd::Stopped);
            }
        }
        ended.or_else(|| stop().then_some(TraceEnd::Stopped))
    };
    let mut trace = watch_blocks(qemu.pid, &blocks, options, &mut asked)?;
    if let (Some((before, _)), Some((after, vcpus))) = (busy_before, qemu.vcpu_seconds()) {
        let possible = began.elapsed().as_secs_f64() * f64::from(vcpus);
        trace.vcpu_busy_ratio = Some(((after - before) / possible).clamp(0.0, 1.0));
    }
    Ok(Recording { trace, blocks })
}

/// Traces blocks of a process's memory until the time is over or `ended` returns a reason to end.
fn watch_blocks(
    pid: u32,
    blocks: &[RamBlock],
    options: &TraceOptions,
    ended: &mut dyn FnMut() -> Option<TraceEnd>,
) -> Result<DirtyTrace, RecordError> {
    let refused = |source| RecordError::Memory { pid, source };
    let began = Instant::now();
    let cpu_before = memory::thread_cpu_seconds();
    let mut sample = PageSample::begin(pid, blocks, options).map_err(refused)?;
    let first = Instant::now();
    let mut last = first;
    let mut tick = 0_u32;
    let why = loop {
        tick += 1;
        // Never sooner than the CPU budget allows, whatever a tick cost.
        let spent = memory::thread_cpu_seconds() - cpu_before;
        let due = first + options.tick * tick;
        let affordable = began + Duration::from_secs_f64(spent / options.core_ratio.max(0.001));
        if let Some(wait) = due.max(affordable).checked_duration_since(Instant::now()) {
            std::thread::sleep(wait);
        }
        if let Some(why) = ended() {
            break why;
        }
        let now = Instant::now();
        match sample.tick(now - last) {
            Ok(()) => last = now,
            Err(error) if is_gone(&error) => break TraceEnd::ProcessGone,
            Err(error) => return Err(refused(error)),
        }
        if now - first >= options.length {
            break TraceEnd::Complete;
        }
        // A late tick does not shorten the time to the next ones.
        while first + options.tick * (tick + 1) <= now {
            tick += 1;
        }
    };
    let cpu = memory::thread_cpu_seconds() - cpu_before;
    sample.end(why, cpu, began.elapsed()).ok_or(RecordError::TooShort)
}

/// True for the kernel's error about the memory of a process that has ended.
fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ESRCH) || error.kind() == io::ErrorKind::UnexpectedEof
}

#[cfg(test)]
mod tests;
