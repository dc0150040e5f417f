//! Hardware configuration of the VM beyond CPU, memory, disks and interfaces: placement, firmware, TPM, boot files.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Fact, Names};

/// NUMA nodes and CPUs of the host that the VM is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Placement {
    /// NUMA nodes of the host that numatune or memnode name; empty where memory may be anywhere.
    #[schemars(example = vec![0])]
    pub numa_nodes: Vec<u32>,
    /// True if memory may come from those nodes only (mode strict).
    #[schemars(example = true)]
    pub strict: bool,
    /// CPUs of the host that vCPUs, the emulator or I/O threads are pinned to; empty where they may run anywhere.
    #[schemars(example = vec![2, 3])]
    pub pinned_cpus: Vec<u32>,
}

/// Firmware of the guest other than the BIOS that comes with QEMU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Firmware {
    /// Firmware image on the host.
    #[schemars(example = &"/usr/share/OVMF/OVMF_CODE_4M.fd")]
    pub loader: String,
    /// File with the guest's firmware variables; absent where there is none.
    #[schemars(example = &"/var/lib/libvirt/qemu/nvram/web1_VARS.fd")]
    pub nvram: Option<String>,
    /// Template from which the file of variables is created; absent where the configuration names none.
    #[schemars(example = &"/usr/share/OVMF/OVMF_VARS_4M.fd")]
    pub nvram_template: Option<String>,
    /// True if the firmware runs in system management mode (needed for secure boot).
    #[schemars(example = false)]
    pub secure: bool,
}

/// The guest's trusted platform module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Tpm {
    /// TPM device model that the guest sees.
    #[schemars(example = &"tpm-crb")]
    pub model: String,
    /// TPM backend: emulator (swtpm), passthrough (the host's chip) or external.
    #[schemars(example = &"emulator", extend("x-names" = Names::TPM_BACKENDS))]
    pub backend: String,
    /// Folder of swtpm's state on the host; absent where the backend keeps no state on the host.
    #[schemars(example = &"/var/lib/libvirt/swtpm/5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11")]
    pub state_folder: Option<String>,
}

/// File that QEMU opens when the VM starts. The destination needs the file too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct BootFile {
    /// Purpose of the file: emulator, kernel, initrd, dtb, acpi, rom.
    #[schemars(example = &"kernel", extend("x-names" = Names::OWN))]
    pub purpose: String,
    /// Path of the file.
    #[schemars(example = &"/boot/guest/vmlinuz")]
    pub path: String,
}

/// Part of the VM that QEMU must be able to migrate: a device with its model, the format of an image, or a setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct VmComponent {
    /// Element of the domain XML, or image for the format of a disk's image. An element that vmgate does not know has its path
    /// here.
    #[schemars(example = &"sound", extend("x-names" = Names::CATALOGUE))]
    pub kind: String,
    /// Model of the component; empty where it has none.
    #[schemars(example = &"ich9", extend("x-names" = Names::CATALOGUE))]
    pub model: String,
    /// True if QEMU migrates it; unknown where the catalogue of components does not list it.
    #[serde(default)]
    #[schemars(example = true)]
    pub migrates: Fact<bool>,
    /// Reason in the catalogue; absent where it gives none.
    #[serde(default)]
    #[schemars(example = &"its state is not sent")]
    pub why: Option<String>,
}

/// Address of the host at which QEMU listens for the VM: of a display, or of a serial port that is a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct VmListener {
    /// Device that is reached there: vnc, spice, serial …
    #[schemars(example = &"vnc")]
    pub device: String,
    /// IP address or host name, as configured.
    #[schemars(example = &"0.0.0.0")]
    pub address: String,
}
