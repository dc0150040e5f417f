//! What the VM was built with beyond CPU, memory, disks and interfaces: placement, firmware, TPM, files of the host.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where on a host the VM's memory and threads may be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Placement {
    /// NUMA nodes of the host that numatune or memnode name; empty where memory may be anywhere.
    #[schemars(example = vec![0])]
    pub numa_nodes: Vec<u32>,
    /// Whether memory may come from those nodes only (mode strict).
    #[schemars(example = true)]
    pub strict: bool,
    /// CPUs of the host that vCPUs, the emulator or I/O threads are pinned to; empty where they may run anywhere.
    #[schemars(example = vec![2, 3])]
    pub pinned_cpus: Vec<u32>,
}

/// The guest's firmware, where it is not the BIOS that comes with QEMU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Firmware {
    /// The image on the host.
    #[schemars(example = &"/usr/share/OVMF/OVMF_CODE_4M.fd")]
    pub loader: String,
    /// File of the guest's variables; absent where it has none.
    #[schemars(example = &"/var/lib/libvirt/qemu/nvram/web1_VARS.fd")]
    pub nvram: Option<String>,
    /// File that new variables are copied from; absent where none is named.
    #[schemars(example = &"/usr/share/OVMF/OVMF_VARS_4M.fd")]
    pub nvram_template: Option<String>,
    /// Whether it runs in system management mode (secure boot needs it).
    #[schemars(example = false)]
    pub secure: bool,
}

/// The guest's trusted platform module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Tpm {
    /// The device that the guest sees.
    #[schemars(example = &"tpm-crb")]
    pub model: String,
    /// Who answers: emulator (swtpm), passthrough (the host's chip) or external.
    #[schemars(example = &"emulator")]
    pub backend: String,
    /// Folder of swtpm's state on the host; absent where the backend keeps none there.
    #[schemars(example = &"/var/lib/libvirt/swtpm/5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11")]
    pub state_folder: Option<String>,
}

/// A file of the host that QEMU opens at its start, at the destination too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct BootFile {
    /// What it is for: emulator, kernel, initrd, dtb, acpi, rom.
    #[schemars(example = &"kernel")]
    pub purpose: String,
    /// Its path.
    #[schemars(example = &"/boot/guest/vmlinuz")]
    pub path: String,
}
