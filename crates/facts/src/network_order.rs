//! Orders to the on-host program about a guest's network, and its answers: a rehearsal of the switchover with a throw-away
//! interface, and listening to a guest during its move.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::{BridgeKind, HostRole};

/// An order about a guest's network. It is carried out until it is done or standard input ends, whichever is first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case")]
pub enum NetworkOrder {
    /// One side of a rehearsal of the switchover: answered with [`SwitchoverSeen`].
    Rehearse {
        /// Role of this host.
        role: HostRole,
        /// Port that the throw-away interface takes.
        port: BridgePort,
        /// Random number of this rehearsal, by which its frames and addresses are told from those of others.
        session: u64,
        /// Longest wait for the other side, and again for the network after the switchover, in seconds.
        limit_seconds: f64,
    },
    /// Listening to a guest from the host's bridge: answered with [`HeardGuest`].
    Listen {
        /// Bridge that the guest is reached over.
        bridge: String,
        /// Hardware address of the guest's interface.
        mac: String,
        /// Addresses that the guest is asked for by ARP.
        addresses: Vec<Ipv4Addr>,
        /// Longest time after the end of the input for which a guest that is silent is listened to.
        patience_seconds: f64,
    },
}

/// Port of a bridge, as a VM's interface has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgePort {
    /// Name of the bridge.
    pub bridge: String,
    /// Implementation of the bridge.
    pub kind: BridgeKind,
    /// VLAN of the port, untagged; none for the bridge's own.
    pub vlan: Option<u32>,
}

/// Result of one side of a rehearsal.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SwitchoverSeen {
    /// True if both sides heard and answered each other while the interface was at the source.
    pub met: bool,
    /// Time from the making of the port at the destination until an answer from the source's bridge reached it; none if
    /// none came. Only the destination knows it.
    pub dark_seconds: Option<f64>,
}

/// Result of listening to a guest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct HeardGuest {
    /// Number of frames of the guest that were heard.
    pub frames: u64,
    /// Time from the first of them to the end of listening.
    pub heard_for_seconds: f64,
    /// Longest time between two of them.
    pub longest_silence_seconds: f64,
    /// Time since the last of them, when listening ended.
    pub silent_since_seconds: f64,
}
