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
    /// attachments at the destination, unless it was measured.
    pub dark_seconds: Fact<Quantiles>,
    /// Part of the network that takes longest, in words that follow the dark time.
    #[schemars(example = &"bridge br0 of hv2 listens and learns for 2 × 15 s before it forwards, STP")]
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
    /// Time after the guest runs again until the network reaches this interface.
    pub dark_seconds: Fact<Quantiles>,
    /// Part of the network that decides, in words.
    #[schemars(example = &"switches learn the guest's new port from QEMU's announcements")]
    pub because: String,
}
