//! Trial of a move: the migration was begun for real, at the least bandwidth, and taken back as soon as it sent
//! (`vmgate check --trial`). Nothing tells better than both hosts whether they take the start of a migration.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Fact;

/// A migration that was begun with the settings of the move, and taken back as soon as it sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Trial {
    /// Start of the trial.
    #[schemars(example = &"2026-11-23T01:00:00Z")]
    pub at: Timestamp,
    /// Answer of the hosts.
    #[schemars(example = &"accepted")]
    pub answer: TrialAnswer,
    /// Component that refused the start; absent if it was accepted.
    #[schemars(example = &"destination-qemu")]
    pub refused_by: Option<TrialRefuser>,
    /// Refusal in the words of who refused; absent if the start was accepted.
    #[schemars(example = &"unable to map backing store for guest RAM: Cannot allocate memory")]
    pub refusal: Option<String>,
    /// Time from the start until memory of the guest was sent; absent if none was.
    #[schemars(example = 0.38)]
    pub until_sent_seconds: Option<f64>,
    /// Time from the start until both hosts were seen as before.
    #[schemars(example = 0.66)]
    pub total_seconds: f64,
    /// Time that the guest's CPUs were stopped during the trial, by the events of its QEMU.
    #[schemars(example = 0.0)]
    pub guest_stopped_seconds: Fact<f64>,
    /// State of VM and hosts after the trial that differs from the state before it, in words; absent if nothing is left of the
    /// trial.
    #[schemars(example = &"the destination still has the VM")]
    pub left_behind: Option<String>,
}

/// Answer of the hosts to the start of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TrialAnswer {
    /// Memory of the guest was sent, and the destination took it.
    Accepted,
    /// The migration ended before that.
    Refused,
}

/// Component that refused the start of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TrialRefuser {
    /// libvirt on the source.
    SourceLibvirt,
    /// libvirt on the destination.
    DestinationLibvirt,
    /// The QEMU that libvirt started at the destination.
    DestinationQemu,
    /// A hook script of the destination.
    DestinationHook,
    /// The connection between both hosts: address, port, firewall or TLS.
    Connection,
    /// The VM's QEMU, or the destination's while it read.
    Qemu,
}

impl Trial {
    /// The ordinary state: no trial was made.
    pub(super) fn not_made() -> Fact<Option<Self>> {
        Fact::Known(None)
    }
}
