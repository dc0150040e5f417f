//! VMs of a host, their jobs, the machine types that its QEMU offers, and its time stamp counter.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Names, Uuid};

/// Machine type that QEMU on a host offers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct MachineType {
    /// Versioned name of the machine type.
    #[schemars(example = &"pc-q35-7.2")]
    pub name: String,
    /// True if QEMU announces the removal of the machine type.
    #[schemars(example = false)]
    pub deprecated: bool,
}

/// VM that libvirt knows on a host, running or only defined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HostVm {
    /// The domain's name.
    #[schemars(example = &"web2")]
    pub name: String,
    /// UUID of the domain.
    #[schemars(example = &"0c6d1a52-5d0f-4d0e-8d8e-7d5e2f0a9b10")]
    pub uuid: Uuid,
    /// True if the domain has a QEMU process on the host: running, paused or in an incoming migration.
    #[schemars(example = true)]
    pub active: bool,
}

/// Job that runs on a VM of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HostJob {
    /// The domain's name.
    #[schemars(example = &"web2")]
    pub vm: String,
    /// Kind of the job: migration-in, migration-out, backup, snapshot, save or other.
    #[schemars(example = &"migration-in", extend("x-names" = Names::OWN))]
    pub operation: String,
}

/// Time stamp counter (TSC) of a host, as libvirt measured it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Tsc {
    /// Frequency of the counter in hertz.
    #[schemars(example = 2_400_000_000_u64)]
    pub frequency_hertz: u64,
    /// True if the CPU can give a guest another TSC frequency than its own (TSC scaling).
    #[schemars(example = true)]
    pub scaling: bool,
}
