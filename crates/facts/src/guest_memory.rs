//! Memory of the guest, its devices and programs that bypass the kernel, and its clock.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CollectionMethod, Fact};

/// Memory of the guest as its kernel counts it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct GuestMemory {
    /// Memory that programs can get without swapping (MemAvailable).
    #[schemars(example = 2_147_483_648_u64)]
    pub available_bytes: Fact<u64>,
    /// Memory committed to processes (Committed_AS).
    #[schemars(example = 1_073_741_824_u64)]
    pub committed_bytes: Fact<u64>,
    /// Memory that cannot be paged out, by mlock and the like (Mlocked).
    #[schemars(example = 134_217_728_u64)]
    pub locked_bytes: Fact<u64>,
    /// Memory that processes share: tmpfs, System V and POSIX segments (Shmem).
    #[schemars(example = 67_108_864_u64)]
    pub shared_bytes: Fact<u64>,
    /// Huge pages of the default size in use or reserved (HugePages_Total - HugePages_Free + HugePages_Rsvd).
    #[schemars(example = 0)]
    pub huge_pages_used_bytes: Fact<u64>,
    /// Time that tasks waited for memory in the last ten seconds; absent where the kernel does not count it.
    pub pressure: Fact<Option<MemoryPressure>>,
    /// Allocation activity between two readings of the kernel's counters.
    pub allocation: Fact<Allocation>,
}

/// Pressure stall information of memory (Linux, Documentation/accounting/psi.rst), averaged over ten seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct MemoryPressure {
    /// Share of time in which at least one task waited.
    #[schemars(example = 0.02)]
    pub some_ratio: f64,
    /// Share of time in which all tasks that could run waited.
    #[schemars(example = 0.0)]
    pub full_ratio: f64,
}

/// Allocation activity: difference between two readings of /proc/vmstat and /proc/meminfo.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Allocation {
    /// Time between the two readings, by the guest's own uptime.
    #[schemars(example = 1.02)]
    pub window_seconds: f64,
    /// Allocations that had to free memory first (allocstall*).
    #[schemars(example = 0)]
    pub allocation_stalls: u64,
    /// Allocations that had to compact memory first (compact_stall).
    #[schemars(example = 0)]
    pub compaction_stalls: u64,
    /// Pages scanned for reclaim (pgscan_kswapd, pgscan_direct, pgscan_khugepaged).
    #[schemars(example = 0)]
    pub pages_scanned: u64,
    /// Memory that the balloon took or gave back (balloon_inflate, balloon_deflate).
    #[schemars(example = 0)]
    pub balloon_bytes: u64,
    /// Change of the guest's total memory by balloon or hotplug (MemTotal).
    #[schemars(example = 0)]
    pub total_change_bytes: i64,
    /// Growth of committed memory (Committed_AS); negative where processes released memory.
    #[schemars(example = 1_048_576.0)]
    pub committed_growth_bytes_per_second: f64,
    /// Growth of memory in use by processes (AnonPages and Shmem); negative where processes released memory.
    #[schemars(example = 1_048_576.0)]
    pub used_growth_bytes_per_second: f64,
}

/// Devices and programs that bypass the guest's kernel.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct KernelBypass {
    /// RDMA devices (/sys/class/infiniband).
    #[schemars(example = vec!["mlx5_0"])]
    pub rdma_devices: Fact<Vec<String>>,
    /// PCI devices driven by a program and not by the kernel, as with DPDK: bound to vfio-pci or a uio driver.
    pub user_space_devices: Fact<Vec<UserSpaceDevice>>,
    /// Processes that hold huge pages, the largest first.
    pub huge_page_processes: Fact<Vec<HugePageProcess>>,
}

/// PCI device that a user-space program drives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct UserSpaceDevice {
    /// PCI address in the guest.
    #[schemars(example = &"0000:05:00.0")]
    pub address: String,
    /// Driver that gives the device to programs.
    #[schemars(example = &"vfio-pci")]
    pub driver: String,
}

/// Process that holds huge pages (HugetlbPages in /proc/PID/status).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HugePageProcess {
    /// Process id in the guest.
    #[schemars(example = 812)]
    pub pid: u32,
    /// Name of the process in the kernel (comm); empty where the processes are not known.
    #[schemars(example = &"dpdk-testpmd")]
    pub name: String,
    /// Huge page memory of the process.
    #[schemars(example = 1_073_741_824_u64)]
    pub huge_pages_bytes: u64,
}

/// The guest's clock: clock source and time synchronisation.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct GuestClock {
    /// Clock source in use.
    #[schemars(example = &"kvm-clock")]
    pub source: Fact<String>,
    /// The clock sources that the kernel would take.
    #[schemars(example = vec!["kvm-clock", "tsc", "acpi_pm"])]
    pub available: Fact<Vec<String>>,
    /// Program that synchronises the time; absent where none of the known programs runs.
    #[schemars(example = &"chronyd")]
    pub synchroniser: Fact<Option<String>>,
    /// True if the clock is synchronised now, according to chronyc, timedatectl or adjtimex.
    #[schemars(example = true, extend("x-learnt-by" = CollectionMethod::GUEST_PROGRAMS))]
    pub synchronised: Fact<bool>,
    /// Offset of the clock from true time, according to chronyc.
    #[schemars(example = 0.000_12)]
    pub offset_seconds: Fact<f64>,
    /// Directive by which a time server in the guest spreads leap seconds and other corrections over its clients (leap smear), with its file;
    /// absent where none does.
    #[schemars(example = &"smoothtime in /etc/chrony/chrony.conf")]
    pub smearing: Fact<Option<String>>,
}
