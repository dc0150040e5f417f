//! The VM as libvirt and QEMU describe it from outside.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Absence, BootFile, Fact, Firmware, HostDevice, KnownFailure, Names, OpenedFile, Placement, Tpm, Uuid,
    Version, VirtioQueues, VmComponent, VmListener, VmManager, VmMarks, VmPort, VmServer, trace::DirtyTrace,
};

/// The VM that is to move: its configuration and what it does now.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Vm {
    /// The domain's name on the source.
    #[schemars(example = &"web1", extend("x-names" = Names::FREE))]
    pub name: Fact<String>,
    /// The domain's UUID, the same on both hosts.
    #[schemars(example = &"5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11")]
    pub uuid: Fact<Uuid>,
    /// Marks that the program which defined the VM left in its configuration.
    pub marks: Fact<VmMarks>,
    /// Manager to which the VM belongs, from these marks and the source host; absent where libvirt alone has it.
    pub manager: Fact<Option<VmManager>>,
    /// State of the domain now.
    #[schemars(example = &"running")]
    pub state: Fact<VmState>,
    /// True if the domain's configuration is stored on the source and survives a shutdown (persistent domain).
    #[schemars(example = true)]
    pub persistent: Fact<bool>,
    /// Accelerator that runs the guest: KVM, or QEMU's own emulation (TCG).
    #[schemars(example = &"kvm")]
    pub accelerator: Fact<Accelerator>,
    /// Memory of the VM now (the balloon's size), as libvirt reports it.
    #[schemars(example = 4_294_967_296_u64)]
    pub memory_bytes: Fact<u64>,
    /// Maximum memory of the VM, without what may be plugged in later; the destination must be able to provide this much.
    #[schemars(example = 4_294_967_296_u64)]
    pub memory_max_bytes: Fact<u64>,
    /// Memory that the host holds for the VM: the resident set of its QEMU, from libvirt's balloon statistics. Absent where
    /// that does not tell what the guest has touched: huge pages are not counted, and memory that is allocated at the start or
    /// locked is all counted.
    #[schemars(example = 2_147_483_648_u64)]
    pub resident_bytes: Fact<Option<u64>>,
    /// Size of the huge pages that back the VM's memory; absent where ordinary pages back the memory.
    #[schemars(example = 2_097_152_u64)]
    pub huge_page_bytes: Fact<Option<u64>>,
    /// Virtual CPUs that are online now.
    #[schemars(example = 4)]
    pub vcpus: Fact<u32>,
    /// Maximum number of virtual CPUs, those that may be plugged in later included; QEMU starts with room for all of them.
    #[schemars(example = 8)]
    pub most_vcpus: Fact<u32>,
    /// Versioned machine type of the running VM.
    #[schemars(example = &"pc-q35-7.2")]
    pub machine_type: Fact<String>,
    /// Version of QEMU that the machine type is made from; absent for a machine type without a version. Unknown for a
    /// distribution's own type that vmgate does not know.
    #[schemars(example = &"7.2")]
    pub machine_version: Fact<Option<Version>>,
    /// Limit on all memory of the VM's process (memtune hard_limit); absent where there is none.
    #[schemars(example = 5_368_709_120_u64)]
    pub memory_hard_limit_bytes: Fact<Option<u64>>,
    /// NUMA nodes and CPUs of the host that the VM is bound to.
    pub placement: Fact<Placement>,
    /// CPU mode of the domain.
    #[schemars(example = &"custom")]
    pub cpu_mode: Fact<CpuMode>,
    /// The CPU model's name; absent where the mode does not name one.
    #[schemars(example = &"Cascadelake-Server-v5")]
    pub cpu_model: Fact<Option<String>>,
    /// Threads of one socket of the virtual CPU: dies, clusters, cores and threads multiplied; 1 where the configuration has no
    /// topology.
    #[schemars(example = 2)]
    pub threads_per_socket: Fact<u32>,
    /// CPU features that the configuration demands by name.
    #[schemars(example = vec!["invtsc"])]
    pub cpu_features: Fact<Vec<String>>,
    /// Frequency in hertz of the guest's time stamp counter as configured; absent where the configuration sets none.
    #[schemars(example = 2_400_000_000_u64)]
    pub tsc_frequency_hertz: Fact<Option<u64>>,
    /// Firmware of the guest; absent for the BIOS that comes with QEMU.
    pub firmware: Fact<Option<Firmware>>,
    /// The trusted platform module; absent where the guest has none.
    pub tpm: Fact<Option<Tpm>>,
    /// Memory encryption such as sev, sev-snp, tdx or s390-pv; absent where there is none.
    #[schemars(example = &"sev")]
    pub launch_security: Fact<Option<String>>,
    /// Files of the host that QEMU opens when the VM starts.
    pub boot_files: Fact<Vec<BootFile>>,
    /// Files and devices of the host that QEMU opens as its own user.
    pub opened_files: Fact<Vec<OpenedFile>>,
    /// Devices, image formats and settings that QEMU must be able to migrate, each once.
    pub components: Fact<Vec<VmComponent>>,
    /// Models of the security labels under which the VM runs, such as dac or apparmor.
    #[schemars(example = vec!["dac", "apparmor"])]
    pub security_models: Fact<Vec<String>>,
    /// Secrets of libvirt that the VM needs, of encrypted disks and of storage on the network, each by UUID or usage.
    #[schemars(example = vec!["6a1f3d0e-1111-4222-8333-000000000009"])]
    pub secrets: Fact<Vec<String>>,
    /// Addresses of the host at which QEMU listens for the VM.
    pub listeners: Fact<Vec<VmListener>>,
    /// Ports of the host that QEMU binds for the VM by fixed numbers.
    pub fixed_ports: Fact<Vec<VmPort>>,
    /// Servers that QEMU connects to for a device when it starts, and without which it does not start.
    pub servers: Fact<Vec<VmServer>>,
    /// Number of displays for which libvirt chooses a port on every host.
    #[schemars(example = 1)]
    pub automatic_displays: Fact<u32>,
    /// Address of the VM's vsock where it is fixed; absent where libvirt chooses it, or the VM has none.
    #[schemars(example = 3)]
    pub vsock_cid: Fact<Option<u32>>,
    /// Number of snapshots of the VM in libvirt.
    #[schemars(example = 0)]
    pub snapshots: Fact<u32>,
    /// Reasons why QEMU would refuse to migrate the VM now, in its own words (query-migrate, blocked-reasons); absent where
    /// its monitor was not to be asked: libvirt marks the domain as tainted (custom-monitor), so that takes --allow-monitor.
    #[schemars(example = vec!["The vdagent chardev doesn't yet support migration"])]
    #[schemars(extend("x-absent" = Absence::monitor_not_asked()))]
    pub migration_blockers: Fact<Option<Vec<String>>>,
    /// Version of the QEMU process that runs the VM, which may be older than the installed version.
    #[schemars(example = &"7.2.22")]
    pub qemu_version: Fact<Version>,
    /// Build id of the QEMU process that runs the VM.
    #[schemars(example = &"15dfff3239aa7c3b16a71e6b2e3b6e4009dab998")]
    pub qemu_build: Fact<String>,
    /// True if the VM was started by the QEMU process that runs it; false where it came by a migration or from a saved state.
    #[schemars(example = true)]
    pub started_here: Fact<bool>,
    /// Queues of the VM's virtio devices as QEMU has them; absent where its monitor was not to be asked (--allow-monitor).
    #[schemars(extend("x-absent" = Absence::monitor_not_asked()))]
    pub virtio_queues: Fact<Option<Vec<VirtioQueues>>>,
    /// Failures known from the field that may concern this move.
    pub known_failures: Fact<Vec<KnownFailure>>,
    /// True if the domain has the guest agent's channel (org.qemu.guest_agent.0).
    #[schemars(example = true)]
    pub has_agent_channel: Fact<bool>,
    /// Job that libvirt runs on the domain now; absent where there is none.
    #[schemars(example = &"migration-out", extend("x-names" = Names::OWN))]
    pub job: Fact<Option<String>>,
    /// Rate at which the guest dirties memory.
    pub dirty_rate: Fact<DirtyRate>,
    /// Memory dirtied in windows of several lengths. The amount saturates with length: a page written twice in a window
    /// counts once.
    pub dirty_windows: Fact<Vec<DirtyWindow>>,
    /// Dirty trace: pages of the guest that changed over time, sampled from the source host. The forecast replays this
    /// trace.
    pub dirty_trace: Fact<DirtyTrace>,
    /// Network interfaces.
    pub nics: Fact<Vec<VmNic>>,
    /// Disks.
    pub disks: Fact<Vec<VmDisk>>,
    /// Host devices assigned to the VM, or devices that tie the VM to this host in another way.
    pub host_devices: Fact<Vec<HostDevice>>,
}

/// State of a domain (virDomainState).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VmState {
    /// The vCPUs run.
    Running,
    /// Paused by a user, or by an I/O error.
    Paused,
    /// In the course of shutting down.
    ShuttingDown,
    /// Not running.
    ShutOff,
    /// The guest crashed.
    Crashed,
    /// Suspended by the power management of the guest.
    Suspended,
}

/// Accelerator that executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Accelerator {
    /// Hardware virtualisation through /dev/kvm.
    Kvm,
    /// QEMU's own emulation (TCG).
    Tcg,
}

/// CPU mode of a domain (`<cpu mode=…>`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CpuMode {
    /// A named model, the same on every host.
    Custom,
    /// The named model that was closest to the host's CPU when the VM started.
    HostModel,
    /// The CPU of the host without changes.
    HostPassthrough,
    /// All features that the accelerator can provide.
    Maximum,
    /// Not configured: the machine type's default.
    #[default]
    Default,
}

/// Rate at which memory is dirtied. Rates measured over windows of different length cannot be compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct DirtyRate {
    /// Memory dirtied in the window, divided by the window's length.
    #[schemars(example = 20_971_520_u64)]
    pub rate_bytes_per_second: u64,
    /// Length of the measurement window.
    #[schemars(example = 1.0)]
    pub window_seconds: f64,
    /// Method of the measurement.
    #[schemars(example = &"page-sampling")]
    pub method: DirtyRateMethod,
}

/// Memory dirtied in a window of some length: unique pages, not writes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct DirtyWindow {
    /// Length of the window.
    #[schemars(example = 1.0)]
    pub window_seconds: f64,
    /// Memory dirtied in the window.
    #[schemars(example = 20_971_520_u64)]
    pub dirtied_bytes: u64,
}

/// Method of measuring a dirty rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DirtyRateMethod {
    /// QEMU's calc-dirty-rate over 512 pages per GiB: an estimate that misses a small working set.
    PageSampling,
    /// Dirty trace of the guest's pages, taken by vmgate on the source host.
    Trace,
}

/// A network interface of the VM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct VmNic {
    /// Hardware address.
    #[schemars(example = &"52:54:00:12:34:56")]
    pub mac: String,
    /// Kind of attachment: bridge, network, direct, hostdev, user, vhostuser …
    #[schemars(example = &"bridge", extend("x-names" = Names::INTERFACES))]
    pub kind: String,
    /// Bridge, network or device on the host that the interface is attached to; absent where the kind has none.
    #[schemars(example = &"br0")]
    pub source: Option<String>,
    /// Tap or other device on the host that carries the interface's traffic; absent where there is none.
    #[schemars(example = &"vnet3", extend("x-names" = Names::FREE))]
    pub tap: Option<String>,
    /// True if the tap must exist before the VM starts: its configuration lets nobody create it (`managed='no'`).
    #[schemars(example = false)]
    #[serde(default)]
    pub tap_must_exist: bool,
    /// True if the configuration fixes the device's name, and every host must make one of that name; false where libvirt
    /// chooses it.
    #[schemars(example = false)]
    #[serde(default)]
    pub tap_named: bool,
    /// Device model that the guest sees.
    #[schemars(example = &"virtio")]
    pub model: Option<String>,
    /// True if libvirt's configuration sets the link up.
    #[schemars(example = true)]
    pub link_up: bool,
    /// MTU set in the configuration; absent where the interface takes the bridge's MTU.
    #[schemars(example = 9000)]
    #[serde(default)]
    pub mtu_bytes: Option<u32>,
    /// VLAN tags; empty where its configuration has none.
    #[schemars(example = vec![42])]
    #[serde(default)]
    pub vlan_tags: Vec<u32>,
    /// Port group of the libvirt network; absent where the configuration names none.
    #[schemars(example = &"vlan42")]
    #[serde(default)]
    pub port_group: Option<String>,
    /// Type of virtual port, such as openvswitch; absent where there is none.
    #[schemars(example = &"openvswitch", extend("x-names" = Names::VIRTUAL_PORTS))]
    #[serde(default)]
    pub virtual_port: Option<String>,
    /// Mode of a direct attachment to an interface of the host (macvtap): vepa, bridge, private or passthrough; absent for
    /// other kinds.
    #[schemars(example = &"bridge")]
    #[serde(default)]
    pub direct_mode: Option<String>,
    /// Network filter that libvirt applies to the interface; absent where there is none.
    #[schemars(example = &"clean-traffic")]
    #[serde(default)]
    pub filter: Option<String>,
}

impl VmNic {
    /// Network of the interface in words, the same for all interfaces with the same attachment.
    pub fn network(&self) -> String {
        let source = self.source.as_deref().map(|source| format!(" {source}")).unwrap_or_default();
        let group =
            self.port_group.as_deref().map(|group| format!(", port group {group}")).unwrap_or_default();
        let vlans: Vec<String> = self.vlan_tags.iter().map(|tag| format!(", VLAN {tag}")).collect();
        let vlans = vlans.concat();
        format!("{}{source}{group}{vlans}", self.kind)
    }
}

/// A disk of the VM.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own that a rule names")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct VmDisk {
    /// Name of the disk in the domain (target).
    #[schemars(example = &"vda", extend("x-names" = Names::FREE))]
    pub target: String,
    /// Type of the source: file, block, network, volume. A volume of a storage pool has the type of its file where the source
    /// host tells. Drives without a medium are not listed.
    #[schemars(example = &"file", extend("x-names" = Names::DISKS))]
    pub kind: String,
    /// Path or name of the source.
    #[schemars(example = &"/srv/images/web1.qcow2")]
    pub source: String,
    /// Storage pool of libvirt and volume in it; absent where the configuration names a file, a device or an export itself.
    #[schemars(example = &"fast/web1.qcow2")]
    #[serde(default)]
    pub volume: Option<String>,
    /// Cache mode as configured; `default` where none is configured.
    #[schemars(example = &"none", extend("x-names" = Names::CACHES))]
    pub cache: String,
    /// True if the guest can only read the disk.
    #[schemars(example = false)]
    pub read_only: bool,
    /// True if several VMs may write the disk.
    #[schemars(example = false)]
    pub shareable: bool,
    /// Device type that the guest sees: disk, lun, cdrom or floppy.
    #[schemars(example = &"disk")]
    #[serde(default = "disk")]
    pub device: String,
    /// True if writes are discarded when the VM ends (transient disk).
    #[schemars(example = false)]
    #[serde(default)]
    pub transient: bool,
    /// True if a migration leaves the medium out where it is missing at the destination (startupPolicy optional or requisite
    /// of a CD-ROM or floppy drive).
    #[schemars(example = false)]
    #[serde(default)]
    pub optional: bool,
    /// Format of the image, such as raw or qcow2; absent where the configuration names none.
    #[schemars(example = &"qcow2")]
    #[serde(default)]
    pub format: Option<String>,
    /// Formats of the images below it (the backing chain), nearest first.
    #[schemars(example = vec!["raw"])]
    #[serde(default)]
    pub backing_formats: Vec<String>,
    /// Files below it that hold what was never written to it (the backing chain), nearest first, and data files of qcow2
    /// images.
    #[schemars(example = vec!["/srv/images/debian-13.qcow2"])]
    #[serde(default)]
    pub backing_files: Vec<String>,
    /// Block job that runs on the disk: copy, active-commit, pull, commit, backup; absent where there is none.
    #[schemars(example = &"copy", extend("x-names" = Names::OWN))]
    #[serde(default)]
    pub job: Option<String>,
}

fn disk() -> String {
    "disk".to_owned()
}

impl Vm {
    /// True if `given`, by a person, is the VM's name or any spelling of its UUID.
    pub fn is_called(&self, given: &str) -> bool {
        self.name.known().is_some_and(|name| name == given)
            || given.parse().is_ok_and(|uuid: Uuid| self.uuid.known() == Some(&uuid))
    }
}
