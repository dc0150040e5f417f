//! Measurements of the guest's network: rehearsals of the switchover, and the silence that earlier moves had.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Bridge, BridgeController, Fact, Host, SpanningTree};

/// Rehearsal of the switchover on one network of the VM (`--probe-network`): a throw-away interface was reached at the
/// source's bridge, disappeared there and appeared at the destination's bridge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct NetworkRehearsal {
    /// Time of the rehearsal.
    #[schemars(example = &"2026-11-22T01:04:00Z")]
    pub at: Timestamp,
    /// Network: kind, source and VLANs of the interfaces on it.
    #[schemars(example = &"bridge br0")]
    pub network: String,
    /// Bridge at the source.
    #[schemars(example = &"br0")]
    pub source_bridge: String,
    /// Bridge at the destination.
    #[schemars(example = &"br0")]
    pub destination_bridge: String,
    /// Settings of that bridge on which the dark time depends; a rehearsal counts while they are the same.
    pub settings: RehearsedSettings,
    /// Time from the making of the port at the destination until the source's bridge reached it; absent where it did not
    /// within waited_seconds.
    #[schemars(example = 0.02)]
    pub dark_seconds: Option<f64>,
    /// Longest time that was waited for it.
    #[schemars(example = 75.0)]
    pub waited_seconds: f64,
}

/// Settings of a bridge on which its dark time depends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RehearsedSettings {
    /// Spanning tree protocol; absent where it was not known.
    #[schemars(example = &"stp")]
    pub spanning_tree: Option<SpanningTree>,
    /// Forward delay; absent where it was not known.
    #[schemars(example = 15.0)]
    pub forward_delay_seconds: Option<f64>,
    /// Party that decides where the bridge forwards to; absent where it was not known.
    #[schemars(example = &"itself")]
    pub controlled_by: Option<BridgeController>,
}

impl RehearsedSettings {
    /// Settings of a bridge now.
    pub fn of(bridge: &Bridge) -> Self {
        Self {
            spanning_tree: bridge.spanning_tree.known().copied(),
            forward_delay_seconds: bridge.forward_delay_seconds.known().copied(),
            controlled_by: bridge.controlled_by.known().copied(),
        }
    }
}

impl NetworkRehearsal {
    /// True if the bridge of this destination is as it was in the rehearsal.
    pub fn holds_at(&self, destination: &Fact<Host>) -> bool {
        let bridges = destination.known().and_then(|host| host.bridges.known());
        let bridge = bridges.and_then(|all| all.iter().find(|bridge| bridge.name == self.destination_bridge));
        bridge.is_some_and(|bridge| RehearsedSettings::of(bridge) == self.settings)
    }
}

/// Silence of one interface in an earlier move between the same hosts, as it was heard from the source's bridge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PastSilence {
    /// Time of the move.
    #[schemars(example = &"2026-11-22T01:04:00Z")]
    pub at: Timestamp,
    /// Network: kind, source and VLANs of the interface.
    #[schemars(example = &"bridge br0")]
    pub network: String,
    /// Longest time in which the interface was not heard.
    #[schemars(example = 0.31)]
    pub silence_seconds: f64,
    /// Part of it that is not QEMU's downtime.
    #[schemars(example = 0.1)]
    pub dark_seconds: f64,
}
