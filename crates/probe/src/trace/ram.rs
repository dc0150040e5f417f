//! Recognition of guest RAM among the mappings of a QEMU process. Conservative: uncertain mappings are not read.
//!
//! A mapping is guest RAM only if its kind and its exact size are those of a memory backend on the command line, and if
//! the numbers of such mappings and backends are equal. ROMs, video memory, heaps and device memory never match. smaps
//! is not read: it walks the page tables of the whole guest under a lock that its page faults need too.

use std::{fs, io};

use thiserror::Error;

use crate::qemu::process::{BackendKind, MemoryBackend};

/// A mapping that is guest RAM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RamBlock {
    /// The backend that it belongs to.
    pub id: String,
    /// Start address in the process.
    pub address: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// Kind of memory, in words.
    pub kind: &'static str,
}

/// Reason why guest RAM was not recognised.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum RamError {
    /// The mappings cannot be read.
    #[error("cannot read the memory mappings of process {0}: run as root")]
    Maps(u32, #[source] io::Error),
    /// The command line has no memory option.
    #[error("the command line of process {0} sets no guest memory: check that the process is QEMU")]
    NoBackend(u32),
    /// The number of matching mappings differs from the number of backends.
    #[error(
        "{found} mappings of {bytes} bytes match the guest's memory `{id}`, expected {wanted}: vmgate does not read memory without a certain match"
    )]
    NotCertain { id: String, bytes: u64, found: usize, wanted: usize },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mapping {
    begin: u64,
    end: u64,
    shared: bool,
    path: String,
}

/// Finds the guest RAM of a process, in the order of its backends.
pub(super) fn blocks(pid: u32, backends: &[MemoryBackend]) -> Result<Vec<RamBlock>, RamError> {
    if backends.is_empty() {
        return Err(RamError::NoBackend(pid));
    }
    let text = fs::read_to_string(format!("/proc/{pid}/maps")).map_err(|error| RamError::Maps(pid, error))?;
    recognise(&text, backends)
}

fn recognise(maps: &str, backends: &[MemoryBackend]) -> Result<Vec<RamBlock>, RamError> {
    let mappings: Vec<Mapping> = maps.lines().filter_map(mapping).collect();
    let joined = join(&mappings);
    let mut blocks: Vec<RamBlock> = Vec::new();
    for backend in backends {
        let alike = |other: &&MemoryBackend| other.bytes == backend.bytes && other.kind == backend.kind;
        let wanted = backends.iter().filter(alike).count();
        let whole = fitting(&mappings, backend);
        let found = if whole.is_empty() { fitting(&joined, backend) } else { whole };
        if found.len() != wanted {
            let (id, bytes) = (backend.id.clone(), backend.bytes);
            return Err(RamError::NotCertain { id, bytes, found: found.len(), wanted });
        }
        let taken = |mapping: &&&Mapping| blocks.iter().all(|block| block.address != mapping.begin);
        if let Some(mapping) = found.iter().find(taken) {
            let kind = words(backend.kind, mapping);
            let (id, bytes) = (backend.id.clone(), backend.bytes);
            blocks.push(RamBlock { id, address: mapping.begin, bytes, kind });
        }
    }
    Ok(blocks)
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(maps: &str) {
    for kind in [BackendKind::Anonymous, BackendKind::Shared, BackendKind::File] {
        let _ = recognise(maps, &[MemoryBackend { id: "ram".to_owned(), bytes: 4096, kind }]);
    }
}

fn fitting<'m>(mappings: &'m [Mapping], backend: &MemoryBackend) -> Vec<&'m Mapping> {
    let right_kind = |mapping: &&Mapping| match backend.kind {
        BackendKind::Anonymous => {
            !mapping.shared && (mapping.path.is_empty() || is_huge_anonymous(&mapping.path))
        }
        BackendKind::Shared => {
            mapping.shared && (mapping.path.starts_with("/memfd:") || mapping.path.starts_with("/dev/zero"))
        }
        BackendKind::File => mapping.path.starts_with('/') && !mapping.path.starts_with("/memfd:"),
    };
    mappings
        .iter()
        .filter(|mapping| mapping.end - mapping.begin == backend.bytes)
        .filter(right_kind)
        .collect()
}

fn is_huge_anonymous(path: &str) -> bool {
    path.starts_with("/anon_hugepage")
}

fn words(kind: BackendKind, mapping: &Mapping) -> &'static str {
    match kind {
        BackendKind::Anonymous if is_huge_anonymous(&mapping.path) => "anonymous huge pages",
        BackendKind::Anonymous => "anonymous memory",
        BackendKind::Shared if mapping.path.starts_with("/memfd:") => "memfd",
        BackendKind::Shared => "shared anonymous memory",
        BackendKind::File => "a file",
    }
}

/// Parses a line of /proc/PID/maps, `begin-end rw-p offset device inode  path`; none unless readable and writable.
fn mapping(line: &str) -> Option<Mapping> {
    let mut words = line.splitn(6, ' ');
    let (begin, end) = words.next()?.split_once('-')?;
    let permissions = words.next()?;
    let path = words.nth(3).unwrap_or_default().trim();
    let address = |text| u64::from_str_radix(text, 16).ok();
    let (begin, end) = (address(begin)?, address(end)?);
    let readable = permissions.starts_with("rw") && begin < end;
    readable.then(|| Mapping { begin, end, shared: permissions.ends_with('s'), path: path.to_owned() })
}

/// Joins adjacent mappings of the same kind: NUMA policies split a block into several mappings.
fn join(mappings: &[Mapping]) -> Vec<Mapping> {
    let mut joined: Vec<Mapping> = Vec::new();
    for mapping in mappings {
        match joined.last_mut() {
            Some(last)
                if last.end == mapping.begin
                    && last.shared == mapping.shared
                    && last.path == mapping.path =>
            {
                last.end = mapping.end;
            }
            _ => joined.push(mapping.clone()),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use crate::trace::ram::*;

    const MAPS: &str = "\
55d000000000-55d000400000 r-xp 00000000 fe:01 1234                       /usr/bin/qemu-system-x86_64
55d001000000-55d001800000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0010000000 rw-p 00000000 00:00 0
7f0010000000-7f0010001000 ---p 00000000 00:00 0
7f0020000000-7f0028000000 rw-s 00000000 00:01 99                         /memfd:memory-backend-memfd (deleted)
7f0030000000-7f0034000000 rw-p 00000000 00:00 0
7f0034000000-7f0038000000 rw-p 00000000 00:00 0
7f0040000000-7f0048000000 rw-s 00000000 00:2a 7                          /dev/hugepages/libvirt/qemu/1-web/ram-node0 (deleted)
";

    fn backend(bytes: u64, kind: BackendKind) -> MemoryBackend {
        MemoryBackend { id: "ram".into(), bytes, kind }
    }

    #[test]
    fn each_kind_of_memory_is_recognised_by_kind_and_size() {
        for (bytes, kind, address) in [
            (256 << 20, BackendKind::Anonymous, 0x7f00_0000_0000),
            (128 << 20, BackendKind::Shared, 0x7f00_2000_0000),
            (128 << 20, BackendKind::File, 0x7f00_4000_0000),
            // In two mappings that lie side by side.
            (128 << 20, BackendKind::Anonymous, 0x7f00_3000_0000),
        ] {
            let found = recognise(MAPS, &[backend(bytes, kind)]).unwrap();
            assert_eq!(
                found.first().map(|block| (block.address, block.bytes)),
                Some((address, bytes)),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn what_is_not_certain_is_refused() {
        let none = recognise(MAPS, &[backend(512 << 20, BackendKind::Anonymous)]);
        assert!(matches!(none, Err(RamError::NotCertain { found: 0, wanted: 1, .. })), "{none:?}");
        let two = recognise(MAPS, &[backend(64 << 20, BackendKind::Anonymous)]);
        assert!(matches!(two, Err(RamError::NotCertain { found: 2, wanted: 1, .. })), "{two:?}");
        // Two backends of this size: then both mappings are theirs.
        let both = recognise(
            MAPS,
            &[backend(64 << 20, BackendKind::Anonymous), backend(64 << 20, BackendKind::Anonymous)],
        );
        assert_eq!(both.unwrap().len(), 2);
    }

    #[test]
    fn lines_that_are_no_mapping_are_passed_over() {
        for line in ["", "x", "7f-7e rw-p 0 0 0", "zz-7e rw-p 0 0 0", "1-2"] {
            assert_eq!(mapping(line), None, "{line}");
        }
    }
}
