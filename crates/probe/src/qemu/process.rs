//! The QEMU process of a VM on this host: search, and the options on its command line.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use thiserror::Error;
use vmgate_facts::Uuid;

/// Beginning of what names a VM by its monitor.
pub const MONITOR: &str = "qmp:";
/// Longest command line that is read, in bytes.
const LONGEST_COMMAND_LINE: u64 = 1 << 20;

/// A QEMU process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Qemu {
    /// Process id in this host's pid namespace.
    pub pid: u32,
    arguments: Vec<String>,
}

/// A memory backend: guest memory as set on QEMU's command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemoryBackend {
    pub(crate) id: String,
    pub(crate) bytes: u64,
    pub(crate) kind: BackendKind,
}

/// Source of a backend's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BackendKind {
    /// Private anonymous memory.
    Anonymous,
    /// Anonymous memory shared with other processes, or a memfd.
    Shared,
    /// A file, for example on hugetlbfs.
    File,
}

/// Reason why no QEMU process was found, or why its memory must not be read.
#[derive(Debug, Error)]
pub enum QemuError {
    /// No process of that VM exists.
    #[error(
        "no QEMU process of `{0}` runs on this host; give the VM's name or UUID, and run this on its source host"
    )]
    NotFound(String),
    /// Processes cannot be listed.
    #[error("cannot list the processes of this host: run as root")]
    Proc(#[source] io::Error),
    /// Encrypted memory: reading it shows only noise.
    #[error("the memory of this VM is encrypted ({0}): the host cannot see which pages it dirties")]
    Encrypted(&'static str),
}

impl Qemu {
    /// The process of the VM with this name or UUID, or with this monitor (`qmp:SOCKET`).
    pub fn of(vm: &str) -> Result<Self, QemuError> {
        if !vm.contains('/')
            && let Ok(text) = fs::read_to_string(Path::new("/run/libvirt/qemu").join(format!("{vm}.pid")))
            && let Ok(pid) = text.trim().parse()
            && let Some(found) = Self::with_pid(pid).filter(|qemu| qemu.is_vm(vm))
        {
            return Ok(found);
        }
        Self::running()?.find(|qemu| qemu.is(vm)).ok_or_else(|| QemuError::NotFound(vm.to_owned()))
    }

    /// True for the VM with this name or UUID, or with this monitor (`qmp:SOCKET`).
    pub(crate) fn is(&self, vm: &str) -> bool {
        vm.strip_prefix(MONITOR).map_or_else(|| self.is_vm(vm), |socket| self.serves(socket))
    }

    /// The QEMU processes of this host that run a VM.
    pub(crate) fn running() -> Result<impl Iterator<Item = Self>, QemuError> {
        let processes = fs::read_dir("/proc").map_err(QemuError::Proc)?;
        let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Ok(pids.filter_map(Self::with_pid))
    }

    /// The process with this id; none if it is not QEMU.
    pub fn with_pid(pid: u32) -> Option<Self> {
        let text = read_bounded(&format!("/proc/{pid}/cmdline"))?;
        let arguments: Vec<String> =
            text.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let program = Path::new(arguments.first()?).file_name()?.to_str()?.to_owned();
        let is_qemu = program.starts_with("qemu-system-") || program == "qemu-kvm" || program == "kvm";
        is_qemu.then(|| Self::called(pid, arguments))
    }

    /// The process with these words on its command line.
    pub(crate) fn called(pid: u32, arguments: Vec<String>) -> Self {
        Self { pid, arguments }
    }

    fn is_vm(&self, vm: &str) -> bool {
        let named = self
            .values("-name")
            .any(|value| value.split(',').any(|part| part == vm || part.strip_prefix("guest=") == Some(vm)));
        named || vm.parse::<Uuid>().is_ok_and(|vm| self.uuid() == Some(vm))
    }

    /// True if the command line names this socket, under whatever path leads to it.
    fn serves(&self, socket: &str) -> bool {
        let wanted = real(socket);
        let parts = self.arguments.iter().flat_map(|word| word.split([',', '=', ':', '"']));
        parts.filter(|part| part.starts_with('/')).any(|part| real(part) == wanted)
    }

    /// The program's words on the command line.
    pub(crate) fn program(&self) -> &str {
        self.arguments.first().map_or("", String::as_str)
    }

    /// True if the command line has this option.
    pub(crate) fn has(&self, option: &str) -> bool {
        self.arguments.iter().any(|word| word == option)
    }

    /// Values of an option, in their order.
    pub(crate) fn values<'a>(&'a self, option: &'a str) -> impl Iterator<Item = &'a str> {
        let after = self.arguments.iter().zip(self.arguments.iter().skip(1));
        after.filter(move |(name, _)| *name == option).map(|(_, value)| value.as_str())
    }

    /// Values of an option in their parts.
    pub(crate) fn objects<'a>(&'a self, option: &'a str) -> impl Iterator<Item = Object> {
        self.values(option).map(Object::parse)
    }

    /// Name of the VM; none where the command line gives none.
    pub(crate) fn name(&self) -> Option<String> {
        let of = |name: Object| name.get("guest").map_or(name.kind.clone(), str::to_owned);
        self.objects("-name").last().map(of).filter(|name| !name.is_empty())
    }

    /// Socket of a monitor for programs (QMP) that waits for clients.
    pub(crate) fn monitor(&self) -> Option<String> {
        let is_server = |socket: &Object| matches!(socket.get("server"), Some("on" | "true"));
        let of_chardev = |monitor: Object| {
            let mut sockets = self.objects("-chardev");
            let socket =
                sockets.find(|socket| socket.get("id") == monitor.get("chardev") && is_server(socket))?;
            socket.get("path").map(str::to_owned)
        };
        let for_programs = self.objects("-mon").filter(|monitor| monitor.get("mode") == Some("control"));
        let short = self.values("-qmp").filter_map(|place| {
            let (path, options) = place.strip_prefix("unix:")?.split_once(',')?;
            options.starts_with("server").then(|| path.to_owned())
        });
        short.chain(for_programs.filter_map(of_chardev)).find(|path| path.starts_with('/'))
    }

    /// UUID of the VM, which QEMU takes from either option.
    pub(crate) fn uuid(&self) -> Option<Uuid> {
        let tables = self.objects("-smbios").filter(|table| table.get("type") == Some("1"));
        let told = tables.filter_map(|table| table.get("uuid").map(str::to_owned));
        self.values("-uuid").map(str::to_owned).chain(told).find_map(|uuid| uuid.parse().ok())
    }

    /// True if QEMU was started to receive a migration, or the memory of a saved VM.
    pub(crate) fn is_incoming(&self) -> bool {
        self.has("-incoming")
    }

    /// Fails for a VM whose memory is encrypted.
    pub(crate) fn check_readable(&self) -> Result<(), QemuError> {
        let kinds = [
            ("sev-snp-guest", "SEV-SNP"),
            ("sev-guest", "SEV"),
            ("tdx-guest", "TDX"),
            ("s390-pv-guest", "Secure Execution"),
        ];
        let objects: Vec<Object> = self.objects("-object").collect();
        let found = kinds.iter().find(|(kind, _)| objects.iter().any(|object| object.kind == *kind));
        if let Some((_, name)) = found {
            return Err(QemuError::Encrypted(name));
        }
        let machine = |key: &str| self.values("-machine").any(|value| value.contains(key));
        if machine("confidential-guest-support=") || machine("memory-encryption=") {
            return Err(QemuError::Encrypted("confidential-guest-support"));
        }
        Ok(())
    }

    /// The memory that QEMU was started with, in the order in which QEMU migrates it: by decreasing size.
    pub(crate) fn backends(&self) -> Vec<MemoryBackend> {
        let objects = self.objects("-object");
        let mut backends: Vec<MemoryBackend> = objects.filter_map(|object| object.backend()).collect();
        if backends.is_empty() {
            let kind = if self.values("-mem-path").next().is_some() {
                BackendKind::File
            } else {
                BackendKind::Anonymous
            };
            let size = self.values("-m").find_map(memory_size);
            backends.extend(size.map(|bytes| MemoryBackend { id: "ram".into(), bytes, kind }));
        }
        backends.sort_by_key(|backend| std::cmp::Reverse(backend.bytes));
        backends
    }

    /// CPU time of the vCPU threads in seconds, and their number.
    pub(crate) fn vcpu_seconds(&self) -> Option<(f64, u32)> {
        let mut seconds = 0.0;
        let mut vcpus = 0;
        for (task, name) in self.threads() {
            if !(name.starts_with("CPU ") || name.starts_with("ALL CPUs")) {
                continue;
            }
            let stat = fs::read_to_string(format!("/proc/{}/task/{task}/stat", self.pid)).ok()?;
            // After the name in parentheses; utime and stime are the 14th and 15th fields, in clock ticks of 10 ms.
            let (_, fields) = stat.rsplit_once(')')?;
            let ticks: u64 = fields
                .split_whitespace()
                .skip(11)
                .take(2)
                .filter_map(|field| field.parse::<u64>().ok())
                .sum();
            seconds += Duration::from_millis(ticks.saturating_mul(10)).as_secs_f64();
            vcpus += 1;
        }
        (vcpus > 0).then_some((seconds, vcpus))
    }

    /// True if QEMU is migrating the VM, saving it, taking a background snapshot, or measuring its dirty rate.
    pub(crate) fn is_busy(&self) -> bool {
        self.threads().iter().any(|(_, name)| is_job_thread(name))
    }

    /// True if the process still exists.
    pub(crate) fn is_alive(&self) -> bool {
        Path::new(&format!("/proc/{}", self.pid)).exists()
    }

    fn threads(&self) -> Vec<(u32, String)> {
        let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", self.pid)) else { return Vec::new() };
        let ids = tasks.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter_map(|id: u32| {
            let name = fs::read_to_string(format!("/proc/{}/task/{id}/comm", self.pid)).ok()?;
            Some((id, name.trim_end().to_owned()))
        })
        .collect()
    }
}

fn read_bounded(path: &str) -> Option<Vec<u8>> {
    use std::io::Read as _;
    let mut text = Vec::new();
    fs::File::open(path).ok()?.take(LONGEST_COMMAND_LINE).read_to_end(&mut text).ok()?;
    Some(text)
}

/// The path of a socket without symbolic links, where it has one.
fn real(path: &str) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.into())
}

/// Value of an option, as JSON or as `kind,key=value`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Object {
    /// First word, or `qom-type` of JSON; empty where the first word is a pair.
    pub(crate) kind: String,
    properties: Vec<(String, String)>,
}

impl Object {
    pub(crate) fn parse(text: &str) -> Self {
        if let Ok(Value::Object(fields)) = serde_json::from_str(text) {
            let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let kind = fields.get("qom-type").map(plain).unwrap_or_default();
            return Self {
                kind,
                properties: fields.iter().map(|(key, value)| (key.clone(), plain(value))).collect(),
            };
        }
        let first = text.split(',').next().unwrap_or_default();
        let kind = if first.contains('=') { String::new() } else { first.to_owned() };
        let pairs = text.split(',').filter_map(|part| part.split_once('='));
        Self { kind, properties: pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect() }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.properties.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    fn backend(&self) -> Option<MemoryBackend> {
        let shared = matches!(self.get("share"), Some("true" | "on" | "yes"));
        let kind = match self.kind.as_str() {
            "memory-backend-ram" if shared => BackendKind::Shared,
            "memory-backend-ram" => BackendKind::Anonymous,
            "memory-backend-memfd" => BackendKind::Shared,
            "memory-backend-file" => BackendKind::File,
            _ => return None,
        };
        Some(MemoryBackend { id: self.get("id")?.to_owned(), bytes: size(self.get("size")?, 1)?, kind })
    }
}

/// True for a thread of a migration, snapshot or measurement: in QEMU 7.2 `live_migration`, `bg_snapshot` and
/// `get_dirtyrate`, in newer ones all names begin with `mig/`. The kernel keeps 15 characters of a name.
fn is_job_thread(thread: &str) -> bool {
    ["live_migration", "bg_snapshot", "get_dirtyrate"].contains(&thread) || thread.starts_with("mig/")
}

/// Parses the size in `-m 256`, `-m 1G` or `-m size=262144k,maxmem=…`; a plain number is in MiB.
fn memory_size(value: &str) -> Option<u64> {
    let first = value.split(',').next()?;
    size(first.strip_prefix("size=").unwrap_or(first), 1 << 20)
}

/// Parses a size in QEMU's notation, in bytes: a number with k, M, G or T, or without a suffix in `unit`s.
fn size(text: &str, unit: u64) -> Option<u64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..)? {
        "" => unit,
        "b" | "B" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        "t" | "T" => 1 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use crate::qemu::process::*;

    fn qemu(arguments: &[&str]) -> Qemu {
        let program = ["/usr/bin/qemu-system-x86_64"].iter().chain(arguments);
        Qemu { pid: 1, arguments: program.map(|word| (*word).to_owned()).collect() }
    }

    #[test]
    fn a_vm_is_known_by_name_and_uuid_and_not_by_a_part_of_them() {
        let qemu =
            qemu(&["-name", "guest=web1,debug-threads=on", "-uuid", "5E7C9B3E-6a0e-4c2e-9a53-0d6f5a5c9d11"]);
        assert!(qemu.is_vm("web1") && qemu.is_vm("5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11"));
        assert!(!qemu.is_vm("web") && !qemu.is_vm("on") && !qemu.is_vm(""));
    }

    #[test]
    fn memory_is_read_from_every_way_to_write_it() {
        let backend = |id: &str, bytes, kind| MemoryBackend { id: id.into(), bytes, kind };
        let json = r#"{"qom-type":"memory-backend-memfd","id":"ram-node1","share":true,"size":536870912}"#;
        let found = qemu(&["-object", "memory-backend-ram,id=pc.ram,size=256M", "-object", json]).backends();
        let wanted = [
            backend("ram-node1", 512 << 20, BackendKind::Shared),
            backend("pc.ram", 256 << 20, BackendKind::Anonymous),
        ];
        assert_eq!(found, wanted);
        for plain in ["256", "256M", "262144k", "size=262144k,slots=4,maxmem=1G", "size=268435456b"] {
            assert_eq!(
                qemu(&["-m", plain]).backends(),
                [backend("ram", 256 << 20, BackendKind::Anonymous)],
                "{plain}"
            );
        }
        assert!(qemu(&["-m", "-5"]).backends().is_empty());
    }

    #[test]
    fn jobs_are_known_by_their_threads() {
        for thread in [
            "live_migration",
            "mig/src/main",
            "mig/src/send_1",
            "mig/snapshot",
            "bg_snapshot",
            "get_dirtyrate",
        ] {
            assert!(is_job_thread(thread), "{thread}");
        }
        for thread in ["CPU 0/KVM", "IO mon_iothread", "qemu-system-x86", "worker", "migrator"] {
            assert!(!is_job_thread(thread), "{thread}");
        }
    }

    #[test]
    fn encrypted_memory_is_refused() {
        for arguments in [
            ["-object", r#"{"qom-type":"sev-guest","id":"lsec0"}"#],
            ["-object", "tdx-guest,id=tdx0"],
            ["-machine", "q35,confidential-guest-support=lsec0"],
        ] {
            assert!(
                matches!(qemu(&arguments).check_readable(), Err(QemuError::Encrypted(_))),
                "{arguments:?}"
            );
        }
        assert!(qemu(&["-machine", "q35,usb=off"]).check_readable().is_ok());
    }
}
