//! Devices that tie a VM to its host, and what a host's kernel tells of the devices that it passes through to VMs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Fact, Names};

/// Device that ties the VM to its host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HostDevice {
    /// Kind of device: pci, usb, mdev, scsi, virtiofs, 9p, shmem, vhost-user, vdpa …
    #[schemars(example = &"pci", extend("x-names" = Names::HOST_DEVICES))]
    pub kind: String,
    /// Address or name of the device on the host.
    #[schemars(example = &"0000:3b:00.1", extend("x-names" = Names::FREE))]
    pub address: String,
    /// True if libvirt unplugs the device before the move and plugs in another one afterwards (teaming with a virtio
    /// interface).
    #[schemars(example = false)]
    #[serde(default)]
    pub teamed: bool,
    /// Further part that decides, beside the kind: the source kernel's driver of a PCI or mediated device, the role in shared memory, the
    /// device that a vhost-user process serves. Empty where the kind says all.
    #[schemars(example = &"mlx5_vfio_pci")]
    #[serde(default)]
    pub model: Fact<String>,
    /// True if a migration leaves the device out where the destination has none (startupPolicy optional or requisite).
    #[schemars(example = false)]
    #[serde(default)]
    pub optional: bool,
    /// True if libvirt chooses a device of the network's pool at each host, so that the address differs.
    #[schemars(example = false)]
    #[serde(default)]
    pub from_pool: bool,
    /// True if the destination has a device at this address.
    #[schemars(example = true)]
    #[serde(default)]
    pub at_destination: Fact<bool>,
    /// True if QEMU migrates the device; unknown where only QEMU itself can tell, and was not asked.
    #[schemars(example = true)]
    #[serde(default)]
    pub migrates: Fact<bool>,
    /// Reason; absent where none is known.
    #[schemars(example = &"the kernel's generic driver saves no state")]
    #[serde(default)]
    pub why: Option<String>,
}

/// Device of a host that a VM has, or would have after its move, by the address in the VM's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PassthroughDevice {
    /// PCI address, UUID of a mediated device, vendor and product of a USB device, or name of a SCSI device, as the VM's
    /// configuration writes it.
    #[schemars(example = &"0000:3b:00.1")]
    pub address: String,
    /// True if the host has a device at this address.
    #[schemars(example = true)]
    pub present: bool,
    /// Driver of the kernel that is bound to the device; absent where none is.
    #[schemars(example = &"mlx5_vfio_pci")]
    #[serde(default)]
    pub driver: Option<String>,
    /// Vendor and device of a PCI device, or type of a mediated device; absent where the kernel names none.
    #[schemars(example = &"15b3:101e")]
    #[serde(default)]
    pub model: Option<String>,
    /// True if the driver saves the device's state and tracks which memory the device writes; the kernel tells it in debugfs,
    /// while a VM has the device.
    #[schemars(example = true)]
    #[serde(default)]
    pub saves_state: Fact<bool>,
}

/// Build of a program on a host: two files of one version may be different builds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ProgramBuild {
    /// Path of the program.
    #[schemars(example = &"/usr/bin/qemu-system-x86_64")]
    pub path: String,
    /// Build id that the compiler's linker wrote into it; the same build has the same.
    #[schemars(example = &"15dfff3239aa7c3b16a71e6b2e3b6e4009dab998")]
    pub build: String,
}
