//! The guest's network during the move: how long it stays dark after the blackout, and why.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Fact, Quantiles};

/// Network of the guest's interfaces during the move.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct GuestNetwork {
    /// Dark time: time after the guest runs again until the network reaches all of its interfaces. Derived from the
    /// attachments at both hosts, unless it was measured.
    pub dark_seconds: Fact<Quantiles>,
    /// Part of the network that takes longest, in words that follow the dark time.
    #[schemars(example = &"bridge br0 of hv2 learns for 2 × 15 s, STP")]
    pub dark_because: Fact<String>,
    /// Dark time of each interface, the longest first.
    pub interfaces: Fact<Vec<DarkInterface>>,
}

/// Dark time of one interface of the guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct DarkInterface {
    /// Hardware address of the interface.
    #[schemars(example = &"52:54:00:12:34:56")]
    pub mac: String,
    /// Network of the interface: its kind, source and VLANs.
    #[schemars(example = &"bridge br0")]
    #[serde(default)]
    pub network: String,
    /// Time after the guest runs again until the network reaches this interface.
    pub dark_seconds: Fact<Quantiles>,
    /// Part of the network that decides, in words.
    #[schemars(example = &"switches learn the guest's new port from QEMU's announcements")]
    pub because: String,
    /// Announcements of the interface from its new place.
    #[schemars(example = &"QEMU's RARP, five times within 0.8 s")]
    #[serde(default)]
    pub announcements: String,
    /// Source of the figure.
    #[schemars(example = &"derived")]
    #[serde(default)]
    pub basis: DarkBasis,
}

/// Sources of a dark time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DarkBasis {
    /// The attachments at both hosts and their settings.
    #[default]
    Derived,
    /// A person who measured it (`--network-dark`, or the change).
    Given,
    /// A rehearsal of the switchover (`--probe-network`).
    Rehearsed,
    /// Earlier moves between the same hosts over the same network.
    PastMoves,
}
