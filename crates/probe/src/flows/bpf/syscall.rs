//! Wrapper of bpf(2): creates and reads maps, and loads programs.

use std::{
    ffi::{c_int, c_long},
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use crate::flows::bpf::assembler::Instruction;

// Commands and types of include/uapi/linux/bpf.h.
const MAP_CREATE: c_int = 0;
const MAP_LOOKUP: c_int = 1;
const MAP_NEXT_KEY: c_int = 4;
const PROGRAM_LOAD: c_int = 5;
const SOCKET_FILTER: u32 = 1;

/// Kinds of maps in use.
#[derive(Debug, Clone, Copy)]
pub(crate) enum MapKind {
    Hash = 1,
    Array = 2,
    /// Drops the least recently used key to make room for a new one.
    LruHash = 9,
}

/// A map in the kernel.
#[derive(Debug)]
pub(crate) struct Map {
    descriptor: OwnedFd,
    key_bytes: usize,
    value_bytes: usize,
    entries: u32,
}

/// A loaded program.
#[derive(Debug)]
pub(crate) struct Program(OwnedFd);

#[repr(C)]
#[derive(Default)]
struct CreateMap {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
    flags: u32,
    inner_map: u32,
    numa_node: u32,
    name: [u8; 16],
}

#[repr(C)]
struct MapElement {
    map: u32,
    padding: u32,
    key: u64,
    /// Address of the value, or of the next key.
    to: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct LoadProgram {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

fn address<T: ?Sized>(of: *const T) -> u64 {
    of.cast::<u8>() as usize as u64
}

/// A name for `bpftool map` and `bpftool prog`, so that an operator sees that it is vmgate's.
fn name(text: &str) -> [u8; 16] {
    let mut name = [0; 16];
    for (to, from) in name.iter_mut().take(15).zip(text.bytes()) {
        *to = from;
    }
    name
}

/// # Safety
/// `attributes` must be what `command` takes, and every address in it must be valid for what the command does.
unsafe fn bpf<T>(command: c_int, attributes: &mut T) -> io::Result<c_long> {
    // SAFETY: the pointer and the size describe one live value; the caller guarantees its content.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn descriptor(result: c_long) -> io::Result<OwnedFd> {
    let raw = RawFd::try_from(result).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the kernel has just handed out this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Lifts the limit of locked memory: before Linux 5.11 maps counted as such, and the default limit is too small.
fn lift_memory_lock_limit() {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the pointer is to a live rlimit. A refusal changes nothing: the map is then refused again.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
}

impl Map {
    pub(crate) fn create(
        kind: MapKind,
        key_bytes: usize,
        value_bytes: usize,
        entries: u32,
    ) -> io::Result<Self> {
        let attempt = || {
            let mut attributes = CreateMap {
                kind: kind as u32,
                key_bytes: u32::try_from(key_bytes).unwrap_or(u32::MAX),
                value_bytes: u32::try_from(value_bytes).unwrap_or(u32::MAX),
                entries,
                name: name("vmgate_flows"),
                ..CreateMap::default()
            };
            // SAFETY: MAP_CREATE takes this structure; there is no address in it.
            unsafe { bpf(MAP_CREATE, &mut attributes) }
        };
        let made = match attempt() {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                lift_memory_lock_limit();
                attempt()
            }
            other => other,
        };
        Ok(Self { descriptor: descriptor(made?)?, key_bytes, value_bytes, entries })
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }

    fn element(&self, key: &[u8], to: &mut [u8]) -> MapElement {
        MapElement {
            map: self.descriptor.as_raw_fd().unsigned_abs(),
            padding: 0,
            key: if key.is_empty() { 0 } else { address(key) },
            to: address(to),
            flags: 0,
        }
    }

    /// The value of a key; `None` if the map does not have it.
    pub(crate) fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        if key.len() != self.key_bytes {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut value = vec![0; self.value_bytes];
        let mut attributes = self.element(key, &mut value);
        // SAFETY: key and value are live and as long as the map's keys and values.
        match unsafe { bpf(MAP_LOOKUP, &mut attributes) } {
            Ok(_) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All entries of the map. No program may write to it any more.
    pub(crate) fn entries(&self) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut entries = Vec::new();
        let mut key = Vec::new();
        for _ in 0..self.entries {
            let mut next = vec![0; self.key_bytes];
            let mut attributes = self.element(&key, &mut next);
            // SAFETY: the key is none or as long as the map's keys, and so is the place for the next.
            match unsafe { bpf(MAP_NEXT_KEY, &mut attributes) } {
                Ok(_) => key = next,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
                Err(error) => return Err(error),
            }
            if let Some(value) = self.get(&key)? {
                entries.push((key.clone(), value));
            }
        }
        Ok(entries)
    }
}

impl Program {
    /// Loads a socket filter; the kernel verifies it and rejects an unsafe one.
    pub(crate) fn load(code: &[Instruction]) -> io::Result<Self> {
        let license = c"Apache-2.0";
        let mut attributes = LoadProgram {
            kind: SOCKET_FILTER,
            instruction_count: u32::try_from(code.len()).unwrap_or(u32::MAX),
            instructions: address(code),
            license: address(license.as_ptr()),
            name: name("vmgate_flows"),
            ..LoadProgram::default()
        };
        // SAFETY: the instructions and the licence's name outlive the call, and the count is theirs.
        Ok(Self(descriptor(unsafe { bpf(PROGRAM_LOAD, &mut attributes) }?)?))
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
pub(crate) mod trial {
    //! Test runs of a program on given bytes, and the verifier's message if the kernel rejects one.

    use crate::flows::bpf::syscall::*;

    const PROGRAM_TEST_RUN: c_int = 10;

    #[repr(C)]
    #[derive(Default)]
    struct TestRun {
        program: u32,
        result: u32,
        data_in_bytes: u32,
        data_out_bytes: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
        context_in_bytes: u32,
        context_out_bytes: u32,
        context_in: u64,
        context_out: u64,
    }

    /// The verifier's message if the kernel rejects the program, else `None`.
    pub(crate) fn refusal(code: &[Instruction]) -> Option<String> {
        let mut log = vec![0_u8; 1 << 24];
        let mut attributes = LoadProgram {
            kind: SOCKET_FILTER,
            instruction_count: u32::try_from(code.len()).unwrap(),
            instructions: address(code),
            license: address(c"Apache-2.0".as_ptr()),
            log_level: 1,
            log_bytes: u32::try_from(log.len()).unwrap(),
            log: address(log.as_mut_slice()),
            ..LoadProgram::default()
        };
        // SAFETY: instructions, licence and log outlive the call.
        let result = unsafe { bpf(PROGRAM_LOAD, &mut attributes) };
        let error = result.and_then(descriptor).err()?;
        Some(format!("{error}\n{}", String::from_utf8_lossy(&log).trim_end_matches('\0')))
    }

    /// Runs the program on an incoming frame, with `gso_size` in its context, and returns its result.
    pub(crate) fn run(program: &Program, frame: &[u8], gso_size: u16) -> io::Result<u32> {
        repeat(program, frame, gso_size, 1).map(|(result, _)| result)
    }

    /// Runs the program `repeat` times, and returns its result and the nanoseconds of one run.
    pub(crate) fn repeat(
        program: &Program,
        frame: &[u8],
        gso_size: u16,
        repeat: u32,
    ) -> io::Result<(u32, u32)> {
        // The kernel removes one Ethernet header before a socket filter sees the packet: add one to remove.
        let mut data = vec![0_u8; 14];
        data.extend_from_slice(frame);
        let mut context = [0_u8; 192];
        context[176..180].copy_from_slice(&u32::from(gso_size).to_ne_bytes());
        let mut attributes = TestRun {
            program: program.raw().unsigned_abs(),
            data_in_bytes: u32::try_from(data.len()).unwrap(),
            data_in: address(data.as_slice()),
            repeat,
            context_in_bytes: u32::try_from(context.len()).unwrap(),
            context_in: address(context.as_slice()),
            ..TestRun::default()
        };
        // SAFETY: data and context outlive the call and their sizes are theirs; nothing is written back.
        unsafe { bpf(PROGRAM_TEST_RUN, &mut attributes) }?;
        Ok((attributes.result, attributes.duration))
    }
}
