//! Read access to another process's memory: the backing of its pages, and their content.

use std::{fs::File, io, os::unix::fs::FileExt};

use crate::trace::hash::PAGE;

/// Backing of a page (Linux's pagemap.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backing {
    Present,
    Swapped,
    /// Never touched, or returned to the host.
    Absent,
}

const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;

/// The file /proc/PID/pagemap.
pub(super) struct Pagemap(File);

impl Pagemap {
    pub(super) fn open(pid: u32) -> io::Result<Self> {
        File::open(format!("/proc/{pid}/pagemap")).map(Self)
    }

    /// Backing of the page at `address`.
    pub(super) fn backing(&self, address: u64) -> io::Result<Backing> {
        let mut entry = [0_u8; 8];
        self.0.read_exact_at(&mut entry, address / PAGE as u64 * 8)?;
        let entry = u64::from_ne_bytes(entry);
        Ok(match (entry & PRESENT != 0, entry & SWAPPED != 0) {
            (true, _) => Backing::Present,
            (false, true) => Backing::Swapped,
            (false, false) => Backing::Absent,
        })
    }
}

/// Reads whole pages at `addresses` of a process into `buffer`, one after the other; returns the number of pages read
/// before the first that cannot be read.
pub(super) fn read_pages(pid: u32, addresses: &[u64], buffer: &mut [u8]) -> io::Result<usize> {
    let bytes = addresses.len() * PAGE;
    if addresses.is_empty() || buffer.len() < bytes {
        return Ok(0);
    }
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: bytes };
    let remote: Vec<libc::iovec> = addresses
        .iter()
        .map(|address| libc::iovec { iov_base: *address as *mut libc::c_void, iov_len: PAGE })
        .collect();
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: `local` is the live buffer, long enough for all pages (checked above) and borrowed mutably throughout;
    // remote addresses belong to another process and the kernel checks them; both lists have the lengths given.
    let got = unsafe {
        libc::process_vm_readv(pid, &raw const local, 1, remote.as_ptr(), remote.len() as libc::c_ulong, 0)
    };
    usize::try_from(got).map(|bytes| bytes / PAGE).map_err(|_| io::Error::last_os_error())
}

/// CPU time that this thread has used, in seconds.
pub(super) fn thread_cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
