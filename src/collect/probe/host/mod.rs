//! The hypervisor host, seen by a probe that runs on it (`vmgate probe host`).
//!
//! Read-only and without a daemon. It needs no privilege for networks, memory and load; only the VM's own QEMU
//! process is hidden from users other than root and QEMU's.

mod bridge;
mod filter;
mod memory;
mod nic;
mod process;
mod resolve;
mod route;

use std::{net::IpAddr, time::Duration};

use jiff::Timestamp;
use procfs::{Current, LoadAverage};
use serde::{Deserialize, Serialize};

use crate::{
    collect::text::plain,
    fact::{Bridge, Cause, Fact, HostMemory, HugePages, Nic, Route, StatefulFilter, Unknown},
};

/// Longest wait for the host's name service.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);

/// What the probe is asked beyond what it always tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Questions {
    /// A host name to resolve as this host does.
    pub resolve: Option<String>,
    /// UUID of a VM whose QEMU process is looked at.
    pub vm: Option<String>,
}

/// The answers, as JSON on the probe's standard output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostProbe {
    /// Names this format.
    pub schema: HostProbeSchema,
    /// Kernel release, as `uname -r` prints it.
    #[serde(default)]
    pub kernel_release: Fact<String>,
    /// Logical CPUs online.
    #[serde(default)]
    pub cpus: Fact<u32>,
    /// Runnable tasks over one minute.
    #[serde(default)]
    pub load: Fact<f64>,
    /// Memory.
    #[serde(default)]
    pub memory: Fact<HostMemory>,
    /// Huge pages by size.
    #[serde(default)]
    pub huge_pages: Fact<Vec<HugePages>>,
    /// Size of a huge page where none is named; absent where the kernel has none.
    #[serde(default)]
    pub default_huge_page_bytes: Fact<Option<u64>>,
    /// Network interfaces.
    #[serde(default)]
    pub nics: Fact<Vec<Nic>>,
    /// Routes of the main table.
    #[serde(default)]
    pub routes: Fact<Vec<Route>>,
    /// Software bridges.
    #[serde(default)]
    pub bridges: Fact<Vec<Bridge>>,
    /// Stateful filters that bridged traffic passes.
    #[serde(default)]
    pub bridge_filters: Fact<Vec<StatefulFilter>>,
    /// Addresses of the name that was asked for, in the resolver's order.
    #[serde(default)]
    pub resolved: Fact<Vec<IpAddr>>,
    /// The VM's QEMU process; absent where the VM does not run here.
    #[serde(default)]
    pub qemu: Fact<Option<QemuProcess>>,
    /// The host's clock, read last.
    pub clock: Timestamp,
}

/// The names of the format that this version reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostProbeSchema {
    /// The first format.
    #[serde(rename = "vmgate/host-probe/v1")]
    V1,
}

/// The process that runs a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QemuProcess {
    /// Its id.
    pub pid: u32,
    /// The binary it was started from.
    pub binary: String,
    /// Whether that binary was replaced or removed since: then the process runs a QEMU that is not the installed one.
    pub replaced: bool,
}

/// Looks at this machine.
pub fn look(questions: &Questions) -> HostProbe {
    let nics = nic::look();
    let routes = route::look();
    HostProbe {
        schema: HostProbeSchema::V1,
        kernel_release: text("/proc/sys/kernel/osrelease").into(),
        cpus: text("/sys/devices/system/cpu/online")
            .and_then(|list| {
                memory::count_in_list(&list)
                    .ok_or_else(|| Unknown::new(Cause::Malformed, "/sys/devices/system/cpu/online"))
            })
            .into(),
        load: LoadAverage::current().map(|load| f64::from(load.one)).map_err(|error| obstacle(&error)).into(),
        memory: memory::memory().into(),
        huge_pages: memory::huge_pages().into(),
        default_huge_page_bytes: memory::default_huge_page().into(),
        nics: nics.into(),
        routes: routes.into(),
        bridges: bridge::look().into(),
        bridge_filters: filter::look().into(),
        resolved: match &questions.resolve {
            Some(name) => resolve::resolve(name, RESOLVE_LIMIT).into(),
            None => Fact::unknown(Cause::NotCollected, "no name was asked for"),
        },
        qemu: match &questions.vm {
            Some(uuid) => process::qemu(uuid).into(),
            None => Fact::unknown(Cause::NotCollected, "no VM was asked for"),
        },
        clock: Timestamp::now(),
    }
}

#[cfg(fuzzing)]
pub(in crate::collect) fn fuzz_filters(datagram: &[u8]) {
    filter::fuzz(datagram);
}

/// The text of a small file, made harmless.
fn text(path: &str) -> Result<String, Unknown> {
    std::fs::read_to_string(path).map(|text| plain(&text)).map_err(|error| not_read(path, &error))
}

/// Why a file could not be read.
fn not_read(path: &str, error: &std::io::Error) -> Unknown {
    let cause = match error.kind() {
        std::io::ErrorKind::PermissionDenied => Cause::PermissionDenied,
        std::io::ErrorKind::NotFound => Cause::NotSupported,
        _ => Cause::NotCollected,
    };
    Unknown::new(cause, format!("cannot read {path} on the host: {error}"))
}

/// Why `procfs` could not read a file.
fn obstacle(error: &procfs::ProcError) -> Unknown {
    let cause = match error {
        procfs::ProcError::PermissionDenied(_) => Cause::PermissionDenied,
        procfs::ProcError::NotFound(_) => Cause::NotSupported,
        _ => Cause::NotCollected,
    };
    Unknown::new(cause, format!("on the host: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_seen_and_the_answer_survives_the_wire() {
        let questions = Questions { resolve: Some("localhost".into()), vm: Some("no-such-vm".into()) };
        let probe = look(&questions);
        let cpus = *probe.cpus.known().unwrap();
        assert!(cpus >= 1);
        let memory = probe.memory.known().unwrap();
        assert!(memory.available_bytes > 0 && memory.available_bytes <= memory.total_bytes);
        let nics = probe.nics.known().unwrap();
        assert!(nics.iter().any(|nic| nic.name == "lo" && nic.kind == crate::fact::NicKind::Loopback));
        assert!(probe.routes.known().is_some());
        assert!(probe.resolved.known().unwrap().iter().all(IpAddr::is_loopback));
        assert_eq!(probe.qemu, Fact::Known(None));
        let json = serde_json::to_string(&probe).unwrap();
        let again: HostProbe = serde_json::from_str(&json).unwrap();
        assert_eq!(again.clock, probe.clock);
        assert_eq!(again.nics, probe.nics);
    }
}
