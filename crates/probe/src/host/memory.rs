//! Memory, huge pages and CPU lists of the host.

use std::{fs, path::Path};

use procfs::{Current, Meminfo};
use vmgate_facts::{Cause, Fact, HostMemory, HugePages, Unknown};

use crate::host::{not_read, procfs_error};

const MOUNTS: &str = "/proc/self/mounts";
const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages";

/// Total memory, and memory available without swapping.
pub(super) fn memory() -> Result<HostMemory, Unknown> {
    let info = Meminfo::current().map_err(|error| procfs_error(&error))?;
    Ok(HostMemory {
        total_bytes: info.mem_total,
        available_bytes: info.mem_available.ok_or_else(|| {
            Unknown::new(Cause::NotSupported, "the host's kernel is too old for MemAvailable")
        })?,
    })
}

/// The default huge page size in bytes; none if the kernel has no huge pages.
pub(super) fn default_huge_page() -> Result<Option<u64>, Unknown> {
    Meminfo::current().map(|info| info.hugepagesize).map_err(|error| procfs_error(&error))
}

/// Huge pages of every size, smallest first. Pages reserved for a mapping but not used yet do not count as free.
pub(super) fn huge_pages() -> Result<Vec<HugePages>, Unknown> {
    let mut sizes = huge_pages_in(Path::new(HUGE_PAGES))?;
    let default_bytes = default_huge_page();
    let mounts = fs::read_to_string(MOUNTS).map_err(|error| not_read(MOUNTS, &error));
    for size in &mut sizes {
        size.mounted = match (&mounts, &default_bytes) {
            (Ok(mounts), Ok(default_bytes)) => {
                Fact::Known(hugetlbfs_page_bytes(mounts, *default_bytes).contains(&size.page_bytes))
            }
            (Err(why), _) | (_, Err(why)) => Fact::Unknown(why.clone()),
        };
    }
    Ok(sizes)
}

/// Page sizes of the mounted hugetlbfs, from /proc/mounts; one without an option has pages of the default size.
fn hugetlbfs_page_bytes(mounts: &str, default_bytes: Option<u64>) -> Vec<u64> {
    let options = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(2);
        (fields.next()? == "hugetlbfs").then(|| fields.next())?
    });
    let size = |options: &str| match options.split(',').find_map(|option| option.strip_prefix("pagesize=")) {
        Some(size) => {
            let digits = size.trim_end_matches(|c: char| !c.is_ascii_digit());
            let unit = match size.trim_start_matches(|c: char| c.is_ascii_digit()) {
                "K" | "k" => 1 << 10,
                "M" | "m" => 1 << 20,
                "G" | "g" => 1 << 30,
                _ => 1,
            };
            digits.parse::<u64>().ok()?.checked_mul(unit)
        }
        None => default_bytes,
    };
    options.filter_map(size).collect()
}

/// Huge pages in a sysfs folder; the folder of a NUMA node does not show reserved pages separately.
pub(super) fn huge_pages_in(folder: &Path) -> Result<Vec<HugePages>, Unknown> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // A kernel without huge pages has none.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(not_read(&folder.display().to_string(), &error)),
    };
    let mut sizes = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(kib) = name
            .to_str()
            .and_then(|name| name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok())
        else {
            continue;
        };
        let free = number(&entry.path().join("free_hugepages"))?;
        let kept_apart = entry.path().join("resv_hugepages");
        let promised = if kept_apart.exists() { number(&kept_apart)? } else { 0 };
        sizes.push(HugePages {
            page_bytes: kib.saturating_mul(1024),
            free: free.saturating_sub(promised),
            mounted: Fact::default(),
        });
    }
    sizes.sort_by_key(|size| size.page_bytes);
    Ok(sizes)
}

fn number(path: &Path) -> Result<u64, Unknown> {
    let shown = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|error| not_read(&shown, &error))?;
    text.trim().parse().map_err(|_| Unknown::new(Cause::Malformed, format!("{shown} is not a number")))
}

/// Most numbers in a list: more CPUs than any kernel has.
const LONGEST_LIST: u32 = 1 << 16;

/// The numbers in a kernel list such as `0-3,8`.
pub(crate) fn numbers_in_list(list: &str) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for part in list.trim().split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (u32, u32) = (from.parse().ok()?, to.parse().ok()?);
        if to.checked_sub(from)? >= LONGEST_LIST {
            return None;
        }
        numbers.extend(from..=to);
    }
    Some(numbers)
}

/// Logical CPUs that are online.
pub(crate) fn online_cpus() -> Result<Vec<u32>, Unknown> {
    let file = "/sys/devices/system/cpu/online";
    let list = fs::read_to_string(file).map_err(|error| not_read(file, &error))?;
    numbers_in_list(&list).ok_or_else(|| Unknown::new(Cause::Malformed, format!("{file} is not a CPU list")))
}

/// Bits of a physical address of the processor, as /proc/cpuinfo tells.
pub(super) fn physical_address_bits() -> Result<u32, Unknown> {
    let text = fs::read_to_string("/proc/cpuinfo").map_err(|error| not_read("/proc/cpuinfo", &error))?;
    address_bits(&text)
        .ok_or_else(|| Unknown::new(Cause::NotSupported, "/proc/cpuinfo on the host names no address sizes"))
}

/// The number in `address sizes : 46 bits physical, 48 bits virtual`.
fn address_bits(cpuinfo: &str) -> Option<u32> {
    let line = cpuinfo.lines().find(|line| line.starts_with("address sizes"))?;
    let (_, sizes) = line.split_once(':')?;
    sizes.trim().split_once(" bits physical")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_lists_are_counted() {
        assert_eq!(numbers_in_list("0-3,8"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(numbers_in_list("0\n"), Some(vec![0]));
        for bad in ["", "3-1", "x", "0-", "0-4294967295"] {
            assert_eq!(numbers_in_list(bad), None, "{bad}");
        }
    }

    #[test]
    fn page_sizes_of_mounts_are_read() {
        let mounts = "proc /proc proc rw 0 0\nhugetlbfs /dev/hugepages hugetlbfs rw,relatime,pagesize=2M 0 0\n\
                      none /dev/hugepages1G hugetlbfs rw,pagesize=1024M 0 0\nnone /mnt hugetlbfs rw 0 0\n";
        assert_eq!(hugetlbfs_page_bytes(mounts, Some(2 << 20)), [2 << 20, 1 << 30, 2 << 20]);
        assert!(hugetlbfs_page_bytes("hugetlbfs hugetlbfs\n\n x y", None).is_empty());
    }
}
