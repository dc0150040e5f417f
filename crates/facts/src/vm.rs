//! The VM as libvirt and QEMU describe it from outside.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BootFile, Fact, Firmware, Placement, Tpm, Version, trace::DirtyTrace};

/// The VM that is to move: its configuration and what it does now.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Vm {
    /// The domain's name on the source.
    #[schemars(example = &"web1")]
    pub name: Fact<String>,
    /// The domain's UUID, the same on both hosts.
    #[schemars(example = &"5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11")]
    pub uuid: Fact<String>,
    /// What the domain does now.
    #[schemars(example = &"running")]
    pub state: Fact<VmState>,
    /// Whether the domain's configuration is stored on the source and survives a shutdown.
    #[schemars(example = true)]
    pub persistent: Fact<bool>,
    /// Whether the guest runs on KVM or on QEMU's own emulation.
    #[schemars(example = &"kvm")]
    pub accelerator: Fact<Accelerator>,
    /// Memory the VM has now (the balloon's size), as libvirt reports it.
    #[schemars(example = 4_294_967_296_u64)]
    pub memory_bytes: Fact<u64>,
    /// Most memory the VM may have: what the destination must be able to give.
    #[schemars(example = 4_294_967_296_u64)]
    pub memory_max_bytes: Fact<u64>,
    /// Huge page size that backs the VM's memory; absent where ordinary pages do.
    #[schemars(example = 2_097_152_u64)]
    pub huge_page_bytes: Fact<Option<u64>>,
    /// Virtual CPUs now online.
    #[schemars(example = 4)]
    pub vcpus: Fact<u32>,
    /// Versioned machine type of the running VM.
    #[schemars(example = &"pc-q35-7.2")]
    pub machine_type: Fact<String>,
    /// Version of QEMU that the machine type is named after; absent where a distribution names its own.
    #[schemars(example = &"7.2")]
    pub machine_version: Fact<Option<Version>>,
    /// Limit on all memory of the VM's process (memtune hard_limit); absent where there is none.
    #[schemars(example = 5_368_709_120_u64)]
    pub memory_hard_limit_bytes: Fact<Option<u64>>,
    /// Where on the host the VM's memory and threads may be.
    pub placement: Fact<Placement>,
    /// How the CPU is chosen.
    #[schemars(example = &"custom")]
    pub cpu_mode: Fact<CpuMode>,
    /// The CPU model's name; absent where the mode does not name one.
    #[schemars(example = &"Cascadelake-Server-v5")]
    pub cpu_model: Fact<Option<String>>,
    /// CPU features that the configuration demands by name.
    #[schemars(example = vec!["invtsc"])]
    pub cpu_features: Fact<Vec<String>>,
    /// Frequency in hertz of the time stamp counter that the guest was promised; absent where none was.
    #[schemars(example = 2_400_000_000_u64)]
    pub tsc_frequency_hertz: Fact<Option<u64>>,
    /// Firmware, where it is not the BIOS that comes with QEMU; else absent.
    pub firmware: Fact<Option<Firmware>>,
    /// The trusted platform module; absent where the guest has none.
    pub tpm: Fact<Option<Tpm>>,
    /// Memory encryption such as sev, sev-snp, tdx or s390-pv; absent where there is none.
    #[schemars(example = &"sev")]
    pub launch_security: Fact<Option<String>>,
    /// Files of the host that QEMU opens at its start.
    pub boot_files: Fact<Vec<BootFile>>,
    /// Snapshots that libvirt keeps of the VM.
    #[schemars(example = 0)]
    pub snapshots: Fact<u32>,
    /// Why QEMU would refuse to migrate the VM now, in its own words (query-migrate, blocked-reasons); absent where
    /// its monitor was not to be asked: libvirt marks the domain as tainted (custom-monitor), so that takes --allow-monitor.
    #[schemars(example = vec!["The vdagent chardev doesn't yet support migration"])]
    pub migration_blockers: Fact<Option<Vec<String>>>,
    /// Version of the QEMU that runs the VM, which may be older than the one installed.
    #[schemars(example = &"7.2.22")]
    pub qemu_version: Fact<Version>,
    /// Whether the domain has the guest agent's channel (org.qemu.guest_agent.0).
    #[schemars(example = true)]
    pub has_agent_channel: Fact<bool>,
    /// Job that libvirt runs on the domain now; absent where there is none.
    #[schemars(example = &"migration-out")]
    pub job: Fact<Option<String>>,
    /// How fast the guest dirties memory.
    pub dirty_rate: Fact<DirtyRate>,
    /// Memory dirtied in windows of several lengths. It saturates: a page written twice in a window counts once.
    pub dirty_windows: Fact<Vec<DirtyWindow>>,
    /// Which of the guest's pages changed when, as sampled from the source host: what the forecast replays.
    pub dirty_trace: Fact<DirtyTrace>,
    /// Network interfaces.
    pub nics: Fact<Vec<VmNic>>,
    /// Disks.
    pub disks: Fact<Vec<VmDisk>>,
    /// Devices of the host given to the VM, or tied to it in a way that keeps it there.
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
    /// Suspended by the guest's own power management.
    Suspended,
}

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Accelerator {
    /// Hardware virtualisation through /dev/kvm.
    Kvm,
    /// QEMU's own emulation (TCG).
    Tcg,
}

/// How a domain's CPU is chosen (`<cpu mode=…>`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CpuMode {
    /// A named model, the same on every host.
    Custom,
    /// The closest model to the host's at the VM's start.
    HostModel,
    /// The host's CPU as it is.
    HostPassthrough,
    /// All that the accelerator can offer.
    Maximum,
    /// Not given: the machine type's default.
    #[default]
    Default,
}

/// How fast memory is dirtied. The window belongs to the rate: rates of different windows do not compare.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct DirtyRate {
    /// Memory dirtied in the window, by its length.
    #[schemars(example = 20_971_520_u64)]
    pub rate_bytes_per_second: u64,
    /// Length of the measurement.
    #[schemars(example = 1.0)]
    pub window_seconds: f64,
    /// How it was measured.
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
    /// Memory dirtied in it.
    #[schemars(example = 20_971_520_u64)]
    pub dirtied_bytes: u64,
}

/// Ways to measure a dirty rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DirtyRateMethod {
    /// QEMU's calc-dirty-rate over 512 pages per GiB: an estimate, and it misses a small working set.
    PageSampling,
    /// vmgate's own trace of the guest's pages from the source host.
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
    #[schemars(example = &"bridge")]
    pub kind: String,
    /// What it is attached to on the host: bridge, network or device; absent where the kind has none.
    #[schemars(example = &"br0")]
    pub source: Option<String>,
    /// The device on the host that carries its traffic; absent where there is none.
    #[schemars(example = &"vnet3")]
    pub tap: Option<String>,
    /// The device model that the guest sees.
    #[schemars(example = &"virtio")]
    pub model: Option<String>,
    /// Whether the link is up as libvirt set it.
    #[schemars(example = true)]
    pub link_up: bool,
    /// Largest packet that its configuration sets; absent where it takes the bridge's.
    #[schemars(example = 9000)]
    #[serde(default)]
    pub mtu_bytes: Option<u32>,
    /// VLAN tags; empty where its configuration has none.
    #[schemars(example = vec![42])]
    #[serde(default)]
    pub vlan_tags: Vec<u32>,
    /// Port group of the libvirt network; absent where it names none.
    #[schemars(example = &"vlan42")]
    #[serde(default)]
    pub port_group: Option<String>,
    /// Kind of virtual port, such as openvswitch; absent where it has none.
    #[schemars(example = &"openvswitch")]
    #[serde(default)]
    pub virtual_port: Option<String>,
    /// Network filter that libvirt puts on it; absent where there is none.
    #[schemars(example = &"clean-traffic")]
    #[serde(default)]
    pub filter: Option<String>,
}

/// A disk of the VM.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own that a rule names")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct VmDisk {
    /// The device's name in the domain.
    #[schemars(example = &"vda")]
    pub target: String,
    /// Where it is: file, block, network, volume; absent media are not listed.
    #[schemars(example = &"file")]
    pub kind: String,
    /// Path or name of the source.
    #[schemars(example = &"/srv/images/web1.qcow2")]
    pub source: String,
    /// Cache mode as configured; `default` where not given.
    #[schemars(example = &"none")]
    pub cache: String,
    /// Whether the guest can only read it.
    #[schemars(example = false)]
    pub read_only: bool,
    /// Whether several VMs may write it.
    #[schemars(example = false)]
    pub shareable: bool,
    /// What the guest takes it for: disk, lun, cdrom or floppy.
    #[schemars(example = &"disk")]
    #[serde(default = "disk")]
    pub device: String,
    /// Whether what is written is thrown away at the VM's end.
    #[schemars(example = false)]
    #[serde(default)]
    pub transient: bool,
    /// Whether libvirt starts the VM without it where it is missing (startupPolicy optional).
    #[schemars(example = false)]
    #[serde(default)]
    pub optional: bool,
    /// Files below it that hold what was never written to it (the backing chain), nearest first.
    #[schemars(example = vec!["/srv/images/debian-13.qcow2"])]
    #[serde(default)]
    pub backing_files: Vec<String>,
    /// Block job that runs on it: copy, active-commit, pull, commit, backup; absent where there is none.
    #[schemars(example = &"copy")]
    #[serde(default)]
    pub job: Option<String>,
}

fn disk() -> String {
    "disk".to_owned()
}

/// A device that ties the VM to its host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HostDevice {
    /// Kind of device: pci, usb, mdev, virtiofs, 9p, shmem …
    #[schemars(example = &"pci")]
    pub kind: String,
    /// Its address or name on the host.
    #[schemars(example = &"0000:3b:00.1")]
    pub address: String,
    /// Whether libvirt unplugs it before the move and plugs another one in after it (teaming with a virtio interface).
    #[schemars(example = false)]
    #[serde(default)]
    pub teamed: bool,
}
