//! Tests of the sampler with a child process that dirties known pages.

use std::{ptr, slice};

use crate::trace::*;

const PAGES: usize = 4096;
const PAGE: usize = 4096;
const TOUCHED: usize = 2048;

/// A forked child that dirties its own copy of private memory, at a known address.
struct Child {
    pid: libc::pid_t,
    address: u64,
}

impl Child {
    /// A child that calls `work` with its memory and a count of rounds, every `pause_ms`.
    fn start(pause_ms: i64, work: fn(&mut [u8], usize)) -> Self {
        let length = PAGES * PAGE;
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no memory of ours.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(address, libc::MAP_FAILED);
        // SAFETY: the child only writes to its own copy of the mapping and sleeps: both are safe after a fork of a
        // process with threads. It ends with its parent.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            // SAFETY: as above; the mapping is alive, of this length, and this process's alone.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                let memory = slice::from_raw_parts_mut(address.cast::<u8>(), length);
                for page in memory.chunks_exact_mut(PAGE).take(TOUCHED) {
                    page[17] = 1;
                }
                for round in 0.. {
                    work(memory, round);
                    let pause = libc::timespec { tv_sec: 0, tv_nsec: pause_ms * 1_000_000 };
                    libc::nanosleep(&raw const pause, ptr::null_mut());
                }
                libc::_exit(0);
            }
        }
        // SAFETY: the parent's own mapping, which nothing refers to; the child has its copy.
        unsafe { libc::munmap(address, length) };
        std::thread::sleep(Duration::from_millis(100));
        Self { pid, address: address as u64 }
    }

    fn watch(&self, options: &TraceOptions) -> DirtyTrace {
        let block = RamBlock {
            id: "ram".into(),
            address: self.address,
            bytes: (PAGES * PAGE) as u64,
            kind: "anonymous memory",
        };
        let pid = u32::try_from(self.pid).unwrap();
        let trace = watch_blocks(pid, &[block], options, &mut || None).unwrap();
        assert_eq!(trace.check(), Ok(()));
        trace
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: the child was forked here and not waited for, so the pid is its own.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, ptr::null_mut(), 0);
        }
    }
}

fn options(seconds: f64) -> TraceOptions {
    TraceOptions {
        length: Duration::from_secs_f64(seconds),
        tick: Duration::from_millis(50),
        core_ratio: 0.5,
        ..TraceOptions::default()
    }
}

/// Share of the ticks in which each page changed.
fn change_ratio(trace: &DirtyTrace, page: usize) -> f64 {
    let ticks = trace.tick_microseconds.len();
    (0..ticks).filter(|tick| trace.changes.get(page * ticks + tick)).count() as f64 / ticks as f64
}

#[test]
fn pages_that_are_written_change_and_no_others_do() {
    // Every 10 ms all pages from 256 to 511; page 1000 never, though it is read.
    let child = Child::start(10, |memory, round| {
        for page in memory.chunks_exact_mut(PAGE).skip(256).take(256) {
            page[2000..2008].copy_from_slice(&(round as u64).to_le_bytes());
        }
    });
    let trace = child.watch(&options(1.5));
    assert_eq!(trace.ended, TraceEnd::Complete);
    assert!(trace.pages.as_slice().len() > 1000, "{} pages", trace.pages.as_slice().len());
    for (at, page) in trace.pages.as_slice().iter().enumerate() {
        let ratio = change_ratio(&trace, at);
        if (256..512).contains(page) {
            assert!(ratio > 0.9, "page {page} changed in {ratio} of the ticks");
        } else {
            assert!(ratio < 1e-9, "page {page} changed in {ratio} of the ticks");
        }
        assert_eq!(trace.zero.get(at), *page >= TOUCHED as u64, "page {page}");
    }
    assert!((trace.absent_ratio - 0.5).abs() < 0.02, "{}", trace.absent_ratio);
    let deltas = trace.deltas.unwrap();
    assert!(deltas.mean_bytes < 20.0 && deltas.overflow_ratio < 1e-9, "{deltas:?}");
    assert!(trace.compressed_ratio.unwrap() < 0.2);
}

#[test]
fn pages_without_memory_are_not_given_any() {
    let child = Child::start(1000, |_, _| ());
    let resident = || {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", child.pid)).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = resident();
    child.watch(&options(0.5));
    assert_eq!(resident(), before);
}

#[test]
fn a_page_touched_for_the_first_time_counts_as_changed() {
    let child = Child::start(20, |memory, round| {
        if let Some(page) = memory.chunks_exact_mut(PAGE).nth(TOUCHED + round) {
            page[0] = 1;
        }
    });
    let trace = child.watch(&options(1.5));
    let last =
        trace.pages.as_slice().iter().enumerate().filter(|(at, _)| change_ratio(&trace, *at) > 0.0).count();
    assert!(last > 10, "{last} pages");
}

#[test]
fn the_cost_keeps_to_the_budget_and_fewer_pages_are_taken_for_it() {
    let child = Child::start(10, |memory, round| memory[0] = round as u8);
    let trace = child.watch(&TraceOptions { core_ratio: 0.01, ..options(2.0) });
    assert!(trace.cost.core_ratio < 0.015, "{:?}", trace.cost);
    assert!(trace.pages.as_slice().len() < 2000);
    assert!((trace.seconds() - 2.0).abs() < 0.5, "{}", trace.seconds());
}

#[test]
fn it_ends_when_told_and_when_the_process_is_gone() {
    let child = Child::start(10, |memory, round| memory[0] = round as u8);
    let block =
        RamBlock { id: "ram".into(), address: child.address, bytes: 1 << 24, kind: "anonymous memory" };
    let pid = u32::try_from(child.pid).unwrap();
    let mut asked = 0;
    let mut stop = || {
        asked += 1;
        (asked > 5).then_some(TraceEnd::Stopped)
    };
    let trace = watch_blocks(pid, std::slice::from_ref(&block), &options(5.0), &mut stop).unwrap();
    assert_eq!((trace.ended, trace.tick_microseconds.len()), (TraceEnd::Stopped, 5));

    let mut asked = 0;
    let mut kill = || {
        asked += 1;
        if asked == 5 {
            // SAFETY: as in `drop`; a killed child that was not waited for keeps its pid.
            unsafe { libc::kill(child.pid, libc::SIGKILL) };
            std::thread::sleep(Duration::from_millis(50));
        }
        None
    };
    let trace = watch_blocks(pid, &[block], &options(5.0), &mut kill).unwrap();
    assert_eq!(trace.ended, TraceEnd::ProcessGone);
}

#[test]
fn a_process_that_is_no_qemu_is_none() {
    assert!(Qemu::with_pid(std::process::id()).is_none());
    assert!(matches!(Qemu::of("no-such-vm-here"), Err(QemuError::NotFound(_))));
}
