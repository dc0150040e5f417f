//! Rehearsal of a move with an empty twin of the VM.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Fact, Uuid, Version};

/// Rehearsal of a move: an empty twin of the VM, with its machine type, CPU and devices and without its memory, disks and
/// network, was started at the source, moved to the destination and back, and removed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Rehearsal {
    /// Time of the start.
    #[schemars(example = &"2026-11-22T01:04:00Z")]
    pub at: Timestamp,
    /// UUID of the VM of which the twin was made.
    #[schemars(example = &"5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11")]
    pub vm: Uuid,
    /// Version of the QEMU that started the twin: the one that is installed at the source.
    #[schemars(example = &"10.0.13")]
    pub source_version: Version,
    /// Version of the destination's QEMU.
    #[schemars(example = &"11.1.3")]
    pub destination_version: Version,
    /// Package of the source's QEMU, as QEMU names itself; absent where its log could not be read.
    #[schemars(example = &"10.0.13 (Debian 1:10.0.13+ds-1)")]
    #[serde(default)]
    pub source_build: Option<String>,
    /// Package of the destination's QEMU; absent where its log could not be read.
    #[schemars(example = &"11.1.3 (Debian 1:11.1.3+ds-1)")]
    #[serde(default)]
    pub destination_build: Option<String>,
    /// Machine type of both.
    #[schemars(example = &"pc-q35-7.2")]
    pub machine_type: String,
    /// Kinds of devices that the twin had, with their models, as in vm.components.
    #[schemars(example = vec!["disk virtio", "interface virtio"])]
    pub devices: Vec<String>,
    /// Why the twin did not arrive at the destination, in the words of libvirt and QEMU; absent if it did.
    #[schemars(example = &"VQ 0 vring.num 1024 exceeds allocated max 128")]
    pub failure: Option<String>,
    /// Why it did not come back; absent if it did, or never went.
    #[schemars(example = &"Missing section footer for mc146818rtc")]
    pub return_failure: Option<String>,
    /// Devices and settings of the VM that the twin lacked, each by name.
    #[schemars(example = vec!["hostdev pci subsystem"])]
    #[serde(default)]
    pub not_rehearsed: Vec<String>,
    /// Duration of the whole, until the twin was removed.
    #[schemars(example = 2.5)]
    pub total_seconds: f64,
}

impl Rehearsal {
    /// The fact where none was made.
    pub(super) fn not_made() -> Fact<Option<Self>> {
        Fact::Known(None)
    }
}
