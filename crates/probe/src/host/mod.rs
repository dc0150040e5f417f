//! Facts about the hypervisor host, collected by a probe that runs on it (`vmgate probe host`).
//!
//! Read-only and without a daemon. Networks, memory and load need no privilege; only root and QEMU's own user can read
//! the VM's QEMU process.

mod as_user;
mod bond;
mod bound_ports;
mod bridge;
mod build;
mod file;
mod file_owner;
mod hooks;
mod lldp;
mod managers;
mod memory;
mod nic;
mod numa;
mod open_vswitch;
mod opening;
mod passthrough;
pub(crate) mod path;
mod process;
mod qemu_conf;
mod resolve;
mod route;
mod settings;
mod shaper;
mod stateful_filter;
pub mod trial;
mod uplink;

use std::{net::IpAddr, thread, time::Duration};

pub(crate) use build::of_program as program_build;
use jiff::Timestamp;
pub use managers::{ManagerQuestions, SettingsFile};
pub(crate) use memory::{numbers_in_list, online_cpus};
pub use passthrough::DeviceAddress;
pub use path::{
    CertificateFile, Firewall, MigrationConfig, NetworkProbe, PeerProbe, PeerQuestions, RemoteStorage,
    RouteTo, Traffic,
};
use procfs::{Current, LoadAverage};
use serde::{Deserialize, Serialize};
pub use shaper::{RateLimit, Shapers};
use vmgate_facts::{
    BoundPort, Bridge, Cause, DisplayPorts, Fact, HostFile, HostHook, HostManagers, HostMemory, HugePages,
    InvalidUuid, Nic, NumaNode, OpenedFile, PassthroughDevice, ProgramBuild, QemuUser, Route, StatefulFilter,
    Unknown, Uuid, Version, text::plain,
};

use crate::qemu::{self, OfferQuestions, QemuOffer, RunningVms};

/// Longest wait for the host's name service.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);

/// Questions to the probe, beyond the facts that it always collects.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HostQuestions {
    /// A host name to resolve as this host does.
    pub resolve: Option<String>,
    /// UUIDs of VMs whose QEMU processes are reported.
    pub vms: Vec<Uuid>,
    /// Paths of files and devices that VMs need.
    pub files: Vec<String>,
    /// Files that QEMU opens as its own user, each also among those paths.
    pub opened: Vec<OpenedFile>,
    /// Ports of which the bound ones are reported.
    pub ports: Vec<u16>,
    /// User that QEMU runs as on this host; only needed for those files.
    pub qemu_user: Fact<QemuUser>,
    /// Devices that VMs have from their host.
    pub devices: Vec<DeviceAddress>,
    /// Programs whose builds are compared.
    pub programs: Vec<String>,
    /// Managers of VMs that are looked for.
    pub managers: ManagerQuestions,
    /// Destination address of the migration; if absent, the first address of the name.
    pub route: Option<IpAddr>,
    /// Questions about the path to the peer host.
    pub peer: Option<PeerQuestions>,
    /// QEMU that a VM needs; its offer is only asked for where no libvirt tells it.
    pub qemu: Option<OfferQuestions>,
    /// True if the host's VMs are told by their processes, where no libvirt tells them.
    pub running: bool,
}

/// The answers, as JSON on the probe's standard output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostProbe {
    /// Schema id of this format.
    pub schema: HostProbeSchema,
    /// Machine id of the host's system, which stands for libvirt's host UUID where no libvirt tells it.
    #[serde(default)]
    pub machine_id: Fact<Uuid>,
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
    /// Default size of a huge page; absent if the kernel has no huge pages.
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
    /// Addresses of the name in the question, in the resolver's order.
    #[serde(default)]
    pub resolved: Fact<Vec<IpAddr>>,
    /// QEMU processes of the VMs in the question; a VM that does not run here is absent.
    #[serde(default)]
    pub qemus: Fact<Vec<QemuProcess>>,
    /// The files of the paths in the question.
    #[serde(default)]
    pub files: Fact<Vec<HostFile>>,
    /// The bound ones of the ports in the question.
    #[serde(default)]
    pub bound_ports: Fact<Vec<BoundPort>>,
    /// Ports for displays.
    #[serde(default)]
    pub display_ports: Fact<DisplayPorts>,
    /// Addresses of VMs' vsocks.
    #[serde(default)]
    pub vsock_cids: Fact<Vec<u32>>,
    /// Hooks of libvirt's QEMU driver.
    #[serde(default)]
    pub hooks: Fact<Vec<HostHook>>,
    /// True if libvirt here migrates with TLS only.
    #[serde(default)]
    pub migration_tls_forced: Fact<bool>,
    /// The devices in the question.
    #[serde(default)]
    pub passthrough_devices: Fact<Vec<PassthroughDevice>>,
    /// Builds of the programs in the question.
    #[serde(default)]
    pub program_builds: Fact<Vec<ProgramBuild>>,
    /// Bits of a physical address.
    #[serde(default)]
    pub physical_address_bits: Fact<u32>,
    /// NUMA nodes.
    #[serde(default)]
    pub numa_nodes: Fact<Vec<NumaNode>>,
    /// Bridges.
    #[serde(default)]
    pub bridges: Fact<Vec<Bridge>>,
    /// Reason why the host must not receive VMs (maintenance); absent if it may.
    #[serde(default)]
    pub maintenance: Fact<Option<String>>,
    /// libvirt's lock manager.
    #[serde(default)]
    pub lock_manager: Fact<Option<String>>,
    /// True if processes without privileges may handle page faults; absent if the kernel has no such setting.
    #[serde(default)]
    pub unprivileged_userfaultfd: Fact<Option<bool>>,
    /// Managers of VMs; unknown if none were looked for.
    #[serde(default)]
    pub managers: Fact<HostManagers>,
    /// Offer of the QEMU in the question; unknown if none was asked for.
    #[serde(default)]
    pub qemu_offer: Fact<QemuOffer>,
    /// VMs by their processes; unknown if they were not asked for.
    #[serde(default)]
    pub running: Fact<RunningVms>,
    /// The migration path, as far as this host alone can see.
    #[serde(default)]
    pub network: NetworkProbe,
    /// The path to the peer host; unknown if no peer was given.
    #[serde(default)]
    pub peer: Fact<PeerProbe>,
    /// Time of the host's clock, read last.
    pub clock: Timestamp,
}

/// Schema ids that this version reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostProbeSchema {
    /// The first format.
    #[serde(rename = "vmgate/host-probe/v1")]
    V1,
}

/// The QEMU process that runs a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QemuProcess {
    /// Process id.
    pub pid: u32,
    /// The VM's UUID.
    pub uuid: Uuid,
    /// Version that the running binary reports.
    #[serde(default)]
    pub version: Fact<Version>,
    /// Build id of the running binary.
    #[serde(default)]
    pub build: Fact<String>,
    /// True if it was started to receive a migration or a saved VM; false where it booted the guest.
    #[serde(default)]
    pub incoming: Fact<bool>,
    /// Path of the binary that it was started from.
    pub binary: String,
    /// True if that binary was replaced or removed since: then the running QEMU is not the installed one.
    pub replaced: bool,
}

/// Collects the facts of this machine.
pub fn look(questions: &HostQuestions) -> HostProbe {
    let nics = Fact::from(nic::look());
    thread::scope(|scope| {
        // The peer probe takes its whole window; the other facts are collected meanwhile.
        let peer = questions.peer.as_ref().map(|peer| scope.spawn(|| path::peer(peer, &nics)));
        let host = HostProbe { nics: nics.clone(), ..look_local(questions) };
        let peer = match peer.map(thread::ScopedJoinHandle::join) {
            Some(Ok(peer)) => Fact::Known(peer),
            Some(Err(_)) => {
                Fact::unknown(Cause::Malformed, "the probe of the path panicked: a bug in vmgate")
            }
            None => Fact::unknown(Cause::NotCollected, "no peer host was given"),
        };
        HostProbe { peer, clock: Timestamp::now(), ..host }
    })
}

/// All facts except network interfaces and the peer host.
fn look_local(questions: &HostQuestions) -> HostProbe {
    let resolved = match &questions.resolve {
        Some(name) => resolve::resolve(name, RESOLVE_LIMIT).into(),
        None => Fact::unknown(Cause::NotCollected, "no host name was given to resolve"),
    };
    let to = questions.route.map_or_else(|| resolve::first(&resolved), Fact::Known);
    HostProbe {
        schema: HostProbeSchema::V1,
        machine_id: machine_id().into(),
        kernel_release: text("/proc/sys/kernel/osrelease").into(),
        cpus: memory::online_cpus().map(|online| u32::try_from(online.len()).unwrap_or(u32::MAX)).into(),
        load: LoadAverage::current()
            .map(|load| f64::from(load.one))
            .map_err(|error| procfs_error(&error))
            .into(),
        memory: memory::memory().into(),
        huge_pages: memory::huge_pages().into(),
        default_huge_page_bytes: memory::default_huge_page().into(),
        routes: route::look().into(),
        bridge_filters: stateful_filter::look().into(),
        qemus: if questions.vms.is_empty() {
            Fact::unknown(Cause::NotCollected, "no VM was given")
        } else {
            process::qemus(&questions.vms).into()
        },
        files: if questions.files.is_empty() {
            Fact::Known(Vec::new())
        } else {
            file::look(questions).into()
        },
        bound_ports: bound_ports::look(&questions.ports).into(),
        display_ports: bound_ports::displays().into(),
        vsock_cids: bound_ports::vsock_cids().into(),
        hooks: hooks::look().into(),
        migration_tls_forced: settings::migration_tls_forced().into(),
        passthrough_devices: Fact::Known(passthrough::look(&questions.devices)),
        program_builds: Fact::Known(build::of(&questions.programs)),
        physical_address_bits: memory::physical_address_bits().into(),
        numa_nodes: numa::nodes().into(),
        bridges: bridge::bridges().into(),
        maintenance: settings::maintenance().into(),
        lock_manager: settings::lock_manager().into(),
        unprivileged_userfaultfd: settings::unprivileged_userfaultfd().into(),
        managers: if questions.managers.programs.is_empty() {
            Fact::unknown(Cause::NotCollected, "no managers of VMs were looked for")
        } else {
            Fact::Known(managers::look(&questions.managers))
        },
        qemu_offer: questions.qemu.as_ref().map_or_else(Fact::default, |qemu| qemu::offer(qemu).into()),
        running: if questions.running { qemu::running().into() } else { Fact::default() },
        resolved,
        network: path::look(&to),
        peer: Fact::default(),
        nics: Fact::default(),
        clock: Timestamp::now(),
    }
}

/// The machine id (machine-id(5)). Unlike the firmware's UUID every user may read it, and where two hosts have the same one it can
/// be changed.
fn machine_id() -> Result<Uuid, Unknown> {
    text("/etc/machine-id")?.parse().map_err(|error: InvalidUuid| {
        Unknown::new(
            Cause::Malformed,
            format!("/etc/machine-id on the host: {error}: `systemd-machine-id-setup` makes one"),
        )
    })
}

/// Parses the kernel's answer about packet filters.
#[cfg(feature = "fuzzing")]
pub fn fuzz_filters(datagram: &[u8]) {
    stateful_filter::fuzz(datagram);
}

/// Parses the text of qemu.conf, and of a file of certificates.
#[cfg(feature = "fuzzing")]
pub fn fuzz_files(bytes: &[u8]) {
    let _ = path::ports::in_conf(&String::from_utf8_lossy(bytes).as_ref().into());
    path::certificate::fuzz(bytes);
}

/// Reads what lldpd, systemd-networkd and Open vSwitch tell of switches.
#[cfg(feature = "fuzzing")]
pub fn fuzz_switches(bytes: &[u8]) {
    lldp::fuzz(bytes);
    open_vswitch::fuzz(bytes);
}

/// The text of a small file, without control characters.
fn text(path: &str) -> Result<String, Unknown> {
    std::fs::read_to_string(path).map(|text| plain(&text)).map_err(|error| not_read(path, &error))
}

/// The unknown of a file that could not be read.
fn not_read(path: &str, error: &std::io::Error) -> Unknown {
    let cause = match error.kind() {
        std::io::ErrorKind::PermissionDenied => Cause::PermissionDenied,
        std::io::ErrorKind::NotFound => Cause::NotSupported,
        _ => Cause::NotCollected,
    };
    Unknown::new(cause, format!("cannot read {path} on the host: {error}"))
}

/// The unknown of a file that `procfs` could not read.
fn procfs_error(error: &procfs::ProcError) -> Unknown {
    let cause = match error {
        procfs::ProcError::PermissionDenied(_) => Cause::PermissionDenied,
        procfs::ProcError::NotFound(_) => Cause::NotSupported,
        _ => Cause::NotCollected,
    };
    Unknown::new(cause, format!("cannot read /proc on the host: {error}"))
}

#[cfg(test)]
mod tests {
    use crate::host::*;

    #[test]
    fn this_machine_is_seen_and_the_answer_survives_the_wire() {
        let questions = HostQuestions {
            resolve: Some("localhost".into()),
            vms: vec!["00000000-0000-0000-0000-00000000dead".parse().unwrap()],
            files: vec!["/etc/passwd".into()],
            programs: vec!["/bin/sh".into()],
            ..HostQuestions::default()
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
        assert_eq!(probe.program_builds.known().unwrap().len(), 1);
        assert_eq!(probe.passthrough_devices, Fact::Known(Vec::new()));
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
