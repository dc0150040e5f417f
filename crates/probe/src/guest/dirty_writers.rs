//! Dirty rate of each process, by the kernel's soft-dirty bits (Linux, Documentation/admin-guide/mm/soft-dirty).
//!
//! Measured only at the user's request: clearing the bits write-protects every page of every process, so each page
//! that is written next costs one fault (about a microsecond), and another user of the bits (CRIU) loses its own trace.
//! A transparent huge page counts whole.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{ErrorKind, Read},
    os::unix::fs::FileExt,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use vmgate_facts::{Cause, DirtyWriter, Unknown, text::plain_bytes};

use crate::guest::MOST_PROCESSES;

/// Number of processes in the result.
const TOP: usize = 10;
/// Longest list of mappings of one process.
const MAPS_LIMIT: u64 = 8 << 20;
/// Bytes of pagemap that are read at once: 128 MiB of memory.
const CHUNK: usize = 256 << 10;
/// Longest time for counting, after the window.
const COUNT_LIMIT: Duration = Duration::from_secs(20);

const ENTRY_BYTES: u64 = 8;
const PRESENT: u64 = 1 << 63;
const SOFT_DIRTY: u64 = 1 << 55;

/// Addresses that a process may write to, from the first to before the last.
type Range = (u64, u64);

/// The processes of this machine that dirtied most memory, the busiest first. Measures, and blocks, for `window`.
pub fn dirty_writers(window: Duration) -> Result<Vec<DirtyWriter>, Unknown> {
    let page_bytes =
        fs::read("/proc/self/auxv").ok().and_then(|auxv| crate::guest::process::page_bytes(&auxv));
    let page_bytes = page_bytes.unwrap_or(4096);
    check_support(page_bytes)?;
    let entries = fs::read_dir("/proc")
        .map_err(|error| Unknown::new(Cause::NotCollected, format!("cannot list processes: {error}")))?;
    let own = std::process::id();
    let pids: Vec<u32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != own)
        .take(MOST_PROCESSES)
        .collect();
    measure(&pids, window, page_bytes)
}

/// Fails if this kernel does not track soft-dirty pages: a page that was just written must show as dirty.
fn check_support(page_bytes: u64) -> Result<(), Unknown> {
    let not_supported = |why: &str| {
        Unknown::new(
            Cause::NotSupported,
            format!("the guest's kernel does not track soft-dirty pages: {why}"),
        )
    };
    let written = std::hint::black_box(vec![1_u8; 1]);
    let page = (written.as_ptr() as u64) / page_bytes;
    let mut entry = [0; 8];
    let read = File::open("/proc/self/pagemap")
        .and_then(|pagemap| pagemap.read_exact_at(&mut entry, page.saturating_mul(ENTRY_BYTES)));
    match read {
        Err(error) => Err(not_supported(&error.to_string())),
        Ok(()) if u64::from_ne_bytes(entry) & SOFT_DIRTY == 0 => {
            Err(not_supported("the kernel was built without CONFIG_MEM_SOFT_DIRTY"))
        }
        Ok(()) => Ok(()),
    }
}

fn measure(pids: &[u32], window: Duration, page_bytes: u64) -> Result<Vec<DirtyWriter>, Unknown> {
    let mut cleared: BTreeMap<u32, Instant> = BTreeMap::new();
    for &pid in pids {
        match fs::write(path(pid, "clear_refs"), "4") {
            Ok(()) => {
                cleared.insert(pid, Instant::now());
            }
            // A list without the unreadable processes would name the wrong ones.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Err(Unknown::new(
                    Cause::PermissionDenied,
                    "only root in the guest can measure which process dirties memory",
                ));
            }
            // The process has ended.
            Err(_) => {}
        }
    }
    thread::sleep(window);
    let deadline = Instant::now() + COUNT_LIMIT;
    let mut writers = Vec::new();
    for (pid, since) in cleared {
        let Some(pages) = dirty_pages(pid, page_bytes, deadline)? else { continue };
        let seconds = since.elapsed().as_secs_f64();
        if pages > 0 && seconds > 0.0 {
            #[allow(clippy::cast_precision_loss, clippy::cast_sign_loss, clippy::cast_possible_truncation)]
            let rate = (pages.saturating_mul(page_bytes) as f64 / seconds) as u64;
            let name = fs::read(path(pid, "comm")).map(|name| plain_bytes(&name)).unwrap_or_default();
            writers.push(DirtyWriter { pid, name, dirty_bytes_per_second: rate });
        }
    }
    writers.sort_by_key(|writer| (std::cmp::Reverse(writer.dirty_bytes_per_second), writer.pid));
    writers.truncate(TOP);
    Ok(writers)
}

/// Pages that a process has written since its bits were cleared; none if it has ended.
fn dirty_pages(pid: u32, page_bytes: u64, deadline: Instant) -> Result<Option<u64>, Unknown> {
    let mut maps = Vec::new();
    let read = File::open(path(pid, "maps")).and_then(|file| file.take(MAPS_LIMIT).read_to_end(&mut maps));
    let (Ok(_), Ok(pagemap)) = (read, File::open(path(pid, "pagemap"))) else { return Ok(None) };
    let mut buffer = vec![0; CHUNK];
    let mut dirty = 0_u64;
    for (first, last) in writable(&String::from_utf8_lossy(&maps)) {
        let mut offset = first / page_bytes * ENTRY_BYTES;
        let end = last / page_bytes * ENTRY_BYTES;
        while offset < end {
            if Instant::now() > deadline {
                return Err(Unknown::new(
                    Cause::TimedOut,
                    "the guest's processes map too much memory to count their dirty pages in time",
                ));
            }
            let wanted = usize::try_from(end - offset).unwrap_or(CHUNK).min(CHUNK);
            let Some(chunk) = buffer.get_mut(..wanted) else { break };
            // The process has ended, or the range is not memory.
            let Ok(count @ 1..) = pagemap.read_at(chunk, offset) else { break };
            let (entries, _) = chunk.get(..count).unwrap_or_default().as_chunks::<8>();
            let written = entries
                .iter()
                .map(|entry| u64::from_ne_bytes(*entry))
                .filter(|entry| entry & SOFT_DIRTY != 0 && entry & PRESENT != 0)
                .count();
            dirty = dirty.saturating_add(written as u64);
            offset = offset.saturating_add(count as u64);
        }
    }
    Ok(Some(dirty))
}

/// The writable ranges of /proc/PID/maps.
fn writable(maps: &str) -> impl Iterator<Item = Range> {
    maps.lines().filter_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (first, last) = range.split_once('-')?;
        let address = |text| u64::from_str_radix(text, 16).ok();
        let (first, last) = (address(first)?, address(last)?);
        (rest.as_bytes().get(1) == Some(&b'w') && first < last).then_some((first, last))
    })
}

fn path(pid: u32, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{file}"))
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use crate::guest::dirty_writers::*;

    struct Busy(Child);

    impl Drop for Busy {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn shell(script: &str) -> Busy {
        Busy(Command::new("/bin/sh").args(["-c", script]).spawn().unwrap())
    }

    #[test]
    fn only_what_may_be_written_is_counted() {
        let maps = "00400000-00452000 r-xp 00000000 08:02 173521 /usr/bin/dbus\n\
                    00e03000-00e24000 rw-p 00000000 00:00 0 [heap]\n\
                    7ffc-7ffb rw-p 0 00:00 0\nzz-1 rw-p\nffffffffff600000-ffffffffff601000 --xp 0 00:00 0 [vsyscall]\n\n-";
        assert_eq!(writable(maps).collect::<Vec<_>>(), [(0x00e0_3000, 0x00e2_4000)]);
    }

    #[test]
    fn the_busiest_writer_comes_first_where_the_kernel_tracks() {
        let busy = shell(
            "a=0123456789; while :; do b=$a$a$a$a$a$a$a$a; a=$b; [ ${#a} -gt 4000000 ] && a=0123456789; done",
        );
        let idle = Busy(Command::new("sleep").arg("600").spawn().unwrap());
        let pids = [idle.0.id(), busy.0.id(), u32::MAX];
        let found = measure(&pids, Duration::from_millis(300), 4096);
        match check_support(4096) {
            Ok(()) => {
                let found = found.unwrap();
                assert_eq!(found[0].pid, busy.0.id(), "{found:?}");
                assert!(found[0].dirty_bytes_per_second > 1 << 20, "{found:?}");
            }
            Err(why) => {
                assert_eq!(why.cause, Cause::NotSupported);
                assert_eq!(
                    dirty_writers(Duration::from_millis(1)).unwrap_err(),
                    why,
                    "and nothing is cleared"
                );
            }
        }
    }
}
