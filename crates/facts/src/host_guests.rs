//! What a host runs now and what it can run: its VMs, their jobs, and the CPUs and devices that its QEMU offers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A machine type that a QEMU offers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct MachineType {
    /// Versioned name.
    #[schemars(example = &"pc-q35-7.2")]
    pub name: String,
    /// Whether QEMU announces its removal.
    #[schemars(example = false)]
    pub deprecated: bool,
}

/// A VM that a host knows, running or only defined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HostVm {
    /// The domain's name.
    #[schemars(example = &"web2")]
    pub name: String,
    /// The domain's UUID.
    #[schemars(example = &"0c6d1a52-5d0f-4d0e-8d8e-7d5e2f0a9b10")]
    pub uuid: String,
    /// Whether it has a QEMU process there, running, paused or just arriving.
    #[schemars(example = true)]
    pub active: bool,
}

/// A job that runs on one of a host's VMs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HostJob {
    /// The domain's name.
    #[schemars(example = &"web2")]
    pub vm: String,
    /// What the job does: migration-in, migration-out, backup, snapshot, save or other.
    #[schemars(example = &"migration-in")]
    pub operation: String,
}

/// A host's time stamp counter, as libvirt measured it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Tsc {
    /// Its frequency in hertz.
    #[schemars(example = 2_400_000_000_u64)]
    pub frequency_hertz: u64,
    /// Whether the CPU can show a guest another frequency than its own.
    #[schemars(example = true)]
    pub scaling: bool,
}
