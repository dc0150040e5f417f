//! The hypervisor host, seen by a probe that runs on it (`vmgate probe host`).
//!
//! Read-only and without a daemon. It needs no privilege for networks, memory and load; only the VM's own QEMU
//! process is hidden from users other than root and QEMU's.

mod bond;
mod bridge;
mod file;
mod stateful_filter;
mod memory;
mod nic;
mod numa;
pub(crate) mod path;
mod process;
mod resolve;
mod route;
mod settings;
mod shaper;
pub mod trial;

use std::{net::IpAddr, thread, time::Duration};

use jiff::Timestamp;
use procfs::{Current, LoadAverage};
use serde::{Deserialize, Serialize};

pub use path::{
    CertificateFile, Firewall, MigrationConfig, NetworkProbe, PeerProbe, PeerQuestions, RemoteStorage,
    RouteTo, Traffic,
};
pub use shaper::{RateLimit, Shapers};

use vmgate_facts::{
    Bridge, Cause, Fact, HostFile, HostMemory, HugePages, Nic, NumaNode, Route, StatefulFilter, Unknown,
    Version, text::plain,
};

/// Longest wait for the host's name service.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);

/// What the probe is asked beyond what it always tells.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Questions {
    /// A host name to resolve as this host does.
    pub resolve: Option<String>,
    /// UUIDs of VMs whose QEMU processes are looked at.
    pub vms: Vec<String>,
    /// Paths of files and devices that VMs need.
    pub files: Vec<String>,
    /// Where the migration would go; the first address of the name where this is not given.
    pub route: Option<IpAddr>,
    /// What is asked about the way to the other host.
    pub peer: Option<PeerQuestions>,
}

/// The answers, as JSON on the probe's standard output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// Stateful filters that bridged traffic passes.
    #[serde(default)]
    pub bridge_filters: Fact<Vec<StatefulFilter>>,
    /// Addresses of the name that was asked for, in the resolver's order.
    #[serde(default)]
    pub resolved: Fact<Vec<IpAddr>>,
    /// The QEMU processes of the VMs that were asked for, as far as they run here.
    #[serde(default)]
    pub qemus: Fact<Vec<QemuProcess>>,
    /// The paths that were asked for.
    #[serde(default)]
    pub files: Fact<Vec<HostFile>>,
    /// NUMA nodes.
    #[serde(default)]
    pub numa_nodes: Fact<Vec<NumaNode>>,
    /// Bridges.
    #[serde(default)]
    pub bridges: Fact<Vec<Bridge>>,
    /// Why the host is not to be given VMs.
    #[serde(default)]
    pub maintenance: Fact<Option<String>>,
    /// libvirt's lock manager.
    #[serde(default)]
    pub lock_manager: Fact<Option<String>>,
    /// Whether processes without privileges may handle page faults.
    #[serde(default)]
    pub unprivileged_userfaultfd: Fact<Option<bool>>,
    /// The migration path, as far as this host alone can tell.
    #[serde(default)]
    pub network: NetworkProbe,
    /// The way to the other host, where one was named.
    #[serde(default)]
    pub peer: Fact<PeerProbe>,
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
pub struct QemuProcess {
    /// Its id.
    pub pid: u32,
    /// The VM's UUID.
    pub uuid: String,
    /// What the binary that runs says of its version.
    #[serde(default)]
    pub version: Fact<Version>,
    /// The binary it was started from.
    pub binary: String,
    /// Whether that binary was replaced or removed since: then the process runs a QEMU that is not the installed one.
    pub replaced: bool,
}

/// Looks at this machine.
pub fn look(questions: &Questions) -> HostProbe {
    let nics = Fact::from(nic::look());
    thread::scope(|scope| {
        // It watches for a while, and the rest is looked at meanwhile.
        let peer = questions.peer.as_ref().map(|peer| scope.spawn(|| path::peer(peer, &nics)));
        let host = HostProbe { nics: nics.clone(), ..look_beside(questions) };
        let peer = match peer.map(thread::ScopedJoinHandle::join) {
            Some(Ok(peer)) => Fact::Known(peer),
            Some(Err(_)) => Fact::unknown(Cause::Malformed, "the probe could not cope with what it saw"),
            None => Fact::unknown(Cause::NotCollected, "no other host was named"),
        };
        HostProbe { peer, clock: Timestamp::now(), ..host }
    })
}

/// Everything but the interfaces and the other host.
fn look_beside(questions: &Questions) -> HostProbe {
    let resolved = match &questions.resolve {
        Some(name) => resolve::resolve(name, RESOLVE_LIMIT).into(),
        None => Fact::unknown(Cause::NotCollected, "no name was asked for"),
    };
    let to = questions.route.map_or_else(|| resolve::first(&resolved), Fact::Known);
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
        routes: route::look().into(),
        bridge_filters: filter::look().into(),
        qemus: if questions.vms.is_empty() {
            Fact::unknown(Cause::NotCollected, "no VM was asked for")
        } else {
            process::qemus(&questions.vms).into()
        },
        files: if questions.files.is_empty() {
            Fact::Known(Vec::new())
        } else {
            file::look(&questions.files).into()
        },
        numa_nodes: numa::nodes().into(),
        bridges: bridge::bridges().into(),
        maintenance: settings::maintenance().into(),
        lock_manager: settings::lock_manager().into(),
        unprivileged_userfaultfd: settings::unprivileged_userfaultfd().into(),
        resolved,
        network: path::look(&to),
        peer: Fact::default(),
        nics: Fact::default(),
        clock: Timestamp::now(),
    }
}

#[cfg(fuzzing)]
pub(crate) fn fuzz_filters(datagram: &[u8]) {
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
        let questions = Questions {
            resolve: Some("localhost".into()),
            vms: vec!["no-such-vm".into()],
            files: vec!["/etc/passwd".into()],
            ..Questions::default()
        };
        let probe = look(&questions);
        let cpus = *probe.cpus.known().unwrap();
        assert!(cpus >= 1);
        let memory = probe.memory.known().unwrap();
        assert!(memory.available_bytes > 0 && memory.available_bytes <= memory.total_bytes);
        let nics = probe.nics.known().unwrap();
        assert!(nics.iter().any(|nic| nic.name == "lo" && nic.kind == vmgate_facts::NicKind::Loopback));
        assert!(probe.routes.known().is_some());
        assert!(probe.resolved.known().unwrap().iter().all(IpAddr::is_loopback));
        assert_eq!(probe.qemus, Fact::Known(Vec::new()));
        assert_eq!(probe.files.known().unwrap().len(), 1);
        let json = serde_json::to_string(&probe).unwrap();
        let again: HostProbe = serde_json::from_str(&json).unwrap();
        let network = &probe.network;
        assert_eq!(network.route.known().unwrap().route.nic, "lo");
        assert!(network.shapers.known().is_some() && network.storage.known().is_some());
        assert!(network.taken_ports.known().is_some());
        assert_eq!(again.network, probe.network);
        assert_eq!(again.clock, probe.clock);
        assert_eq!(again.nics, probe.nics);
    }
}
