//! What memory a host has, by kind and node, and what is promised of it already.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Memory of a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HostMemory {
    /// All of it.
    #[schemars(example = 274_877_906_944_u64)]
    pub total_bytes: u64,
    /// What can be used without swapping (MemAvailable of /proc/meminfo; libvirt's free and cached where there is no probe).
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
    /// Pages not in use.
    #[schemars(example = 1024)]
    pub free: u64,
}

/// A NUMA node of a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct NumaNode {
    /// Its number, as `numatune` names it.
    #[schemars(example = 0)]
    pub id: u32,
    /// All of its memory.
    #[schemars(example = 137_438_953_472_u64)]
    pub total_bytes: u64,
    /// Memory that is free there, or holds clean file pages that can be dropped.
    #[schemars(example = 68_719_476_736_u64)]
    pub available_bytes: u64,
    /// CPUs of the node that are online.
    #[schemars(example = vec![0, 1, 2, 3])]
    pub cpus: Vec<u32>,
    /// Huge pages of the node, one entry a size.
    pub huge_pages: Vec<HugePages>,
}

/// What the VMs of a host may still ask of it, and the VMs that are on their way to it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Claims {
    /// Most memory that all VMs running there may use together, on ordinary pages or huge ones.
    #[schemars(example = 103_079_215_104_u64)]
    pub running_bytes: u64,
    /// Ordinary memory that VMs coming in now have yet to fill.
    #[schemars(example = 4_294_967_296_u64)]
    pub incoming_bytes: u64,
    /// Ordinary memory of VMs that are planned to come before this one.
    #[schemars(example = 8_589_934_592_u64)]
    pub planned_bytes: u64,
    /// Huge pages of VMs that are planned to come before this one. A QEMU that receives a VM has taken its pages at its start.
    pub planned_huge_pages: Vec<HugePageClaim>,
    /// Names of the VMs that come in now or are planned to.
    #[schemars(example = vec!["web2"])]
    pub vms: Vec<String>,
}

/// Huge pages of one size that are promised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HugePageClaim {
    /// Size of one page.
    #[schemars(example = 2_097_152_u64)]
    pub page_bytes: u64,
    /// Memory promised in such pages.
    #[schemars(example = 8_589_934_592_u64)]
    pub claimed_bytes: u64,
}
