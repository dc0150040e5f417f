//! Failures of migrations that are known from the field, as far as they can concern this move, and the evidence for one of
//! them: the queues of virtio devices.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Fact;

/// Entry of the catalogue of known failures that may concern this move. Entries that do not are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct KnownFailure {
    /// Id of the entry.
    #[schemars(example = &"virtio-queues-of-1024")]
    pub id: String,
    /// True if the move fails for it; unknown where it may, and only a rehearsal or another fact can tell.
    #[serde(default)]
    #[schemars(example = true)]
    pub fails: Fact<bool>,
    /// Course of the failure, in a sentence.
    #[schemars(example = &"the destination refuses the state of a virtio device at the end of the copy")]
    pub why: String,
    /// Way around it.
    #[schemars(example = &"restart the guest on a host with another QEMU")]
    pub remedy: String,
}

/// Queues of a virtio device of the VM, as QEMU has them now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct VirtioQueues {
    /// Path of the device in QEMU.
    #[schemars(example = &"/machine/peripheral/virtio-disk0/virtio-backend")]
    pub device: String,
    /// Kind of the device.
    #[schemars(example = &"virtio-blk")]
    pub name: String,
    /// Sizes of its first and its last queue.
    #[schemars(example = vec![256])]
    pub sizes: Vec<u32>,
}
