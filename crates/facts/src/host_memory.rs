//! Memory of a host: ordinary pages, huge pages, NUMA nodes, and the claims of VMs on them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Fact;

/// Memory of a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HostMemory {
    /// Total memory.
    #[schemars(example = 274_877_906_944_u64)]
    pub total_bytes: u64,
    /// Memory that can be used without swapping (MemAvailable of /proc/meminfo; without a host probe, libvirt's free
    /// plus cached).
    #[schemars(example = 64_424_509_440_u64)]
    pub available_bytes: u64,
}

/// Huge pages of one size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HugePages {
    /// Size of one page.
    #[schemars(example = 2_097_152_u64)]
    pub page_bytes: u64,
    /// Number of pages that are not in use.
    #[schemars(example = 1024)]
    pub free: u64,
    /// True if a hugetlbfs of that page size is mounted, without which libvirt starts no VM on such pages; unknown for the
    /// pages of a NUMA node.
    #[schemars(example = true)]
    #[serde(default)]
    pub mounted: Fact<bool>,
}

/// A NUMA node of a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct NumaNode {
    /// Number of the node, as `numatune` names it.
    #[schemars(example = 0)]
    pub id: u32,
    /// Total memory of the node.
    #[schemars(example = 137_438_953_472_u64)]
    pub total_bytes: u64,
    /// Memory of the node that is free, or holds clean file pages that can be dropped.
    #[schemars(example = 68_719_476_736_u64)]
    pub available_bytes: u64,
    /// CPUs of the node that are online.
    #[schemars(example = vec![0, 1, 2, 3])]
    pub cpus: Vec<u32>,
    /// Huge pages of the node, one entry for each page size.
    pub huge_pages: Vec<HugePages>,
}

/// Memory that the VMs of a host may still claim, and the claims of VMs on their way to the host.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct MemoryClaims {
    /// Maximum memory of all VMs that run on the host, on ordinary or huge pages.
    #[schemars(example = 103_079_215_104_u64)]
    pub running_bytes: u64,
    /// Ordinary memory that VMs in an incoming migration have not filled yet.
    #[schemars(example = 4_294_967_296_u64)]
    pub incoming_bytes: u64,
    /// Ordinary memory of VMs that are planned to move to the host before this VM.
    #[schemars(example = 8_589_934_592_u64)]
    pub planned_bytes: u64,
    /// Huge pages of VMs that are planned to move to the host before this VM. VMs in an incoming migration are not
    /// counted here: QEMU takes their pages at its start.
    pub planned_huge_pages: Vec<HugePageClaim>,
    /// Names of the VMs that come in now or are planned to.
    #[schemars(example = vec!["web2"])]
    pub vms: Vec<String>,
}

/// Memory claimed in huge pages of one size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HugePageClaim {
    /// Size of one page.
    #[schemars(example = 2_097_152_u64)]
    pub page_bytes: u64,
    /// Memory claimed in pages of this size.
    #[schemars(example = 8_589_934_592_u64)]
    pub claimed_bytes: u64,
}
