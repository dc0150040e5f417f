//! Sessions of control protocols that a guest takes part in, as its packets at the tap show them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Cause, Fact, FlowDirection};

/// One session of a protocol by which machines watch each other: VRRP, BFD, OSPF, heartbeats of a cluster.
///
/// While the guest is stopped its own timers stand still and those of its peers run on. So the time-out here is the
/// peers': the time after the guest's last packet at which they declare it dead, withdraw its routes or take its address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ControlSession {
    /// Id of the protocol in the catalogue of control protocols.
    #[schemars(example = &"vrrp")]
    pub protocol: String,
    /// Name of the protocol for people, from the catalogue.
    #[serde(default)]
    #[schemars(example = &"VRRP")]
    pub title: String,
    /// Role that the guest states in its packets; absent where they state none.
    #[serde(default)]
    #[schemars(example = &"master")]
    pub role: Option<String>,
    /// The guest's end: an address, with the port if it is the service's, or the Ethernet address where the protocol has no
    /// IP. The group, where the guest only receives what others send to a group.
    #[schemars(example = &"10.0.0.5")]
    pub local: String,
    /// The other end, or the multicast group that the guest sends to.
    #[schemars(example = &"224.0.0.18")]
    pub remote: String,
    /// Names of the session in the protocol: VRID, discriminator, group; empty where it has none.
    #[serde(default)]
    #[schemars(example = &"VRID 51")]
    pub identity: String,
    /// VLAN id of the outer tag; absent where the guest sends and receives untagged.
    #[serde(default)]
    #[schemars(example = 7)]
    pub vlan: Option<u16>,
    /// Direction of the packets that were seen. The peers wait for the guest only where it sends.
    #[schemars(example = &"from-guest")]
    pub direction: FlowDirection,
    /// Packets of the session that the guest sent in the window.
    #[schemars(example = 10)]
    pub packets_from_guest: u64,
    /// Packets of the session that the guest received in the window.
    #[schemars(example = 0)]
    pub packets_to_guest: u64,
    /// True if the session is up as far as its packets tell: the peers rely on the guest.
    #[schemars(example = true)]
    pub active: bool,
    /// Time between two packets of the guest: as they state it, else the median of the times between those seen.
    #[schemars(example = 1.0)]
    pub interval_seconds: Fact<f64>,
    /// Time between two keep-alives of the guest as far as the window shows it, which is its interval or less; 0 where it sent
    /// none, or other traffic of the session hides their rhythm.
    #[serde(default)]
    #[schemars(example = 1.02)]
    pub keepalive_gap_seconds: f64,
    /// Intervals without a packet after which the peers declare the guest dead; absent where the packets state none.
    #[serde(default)]
    #[schemars(example = 3)]
    pub multiplier: Option<u32>,
    /// Silence of the guest after which its peers declare it dead.
    #[schemars(example = 3.0)]
    pub timeout_seconds: Fact<f64>,
    /// Source of the time-out.
    #[schemars(example = &"packet")]
    pub basis: ControlBasis,
    /// Calculation of the time-out, with its reference.
    #[serde(default)]
    #[schemars(example = &"3 × 1 s (RFC 9568 section 6.1)")]
    pub source: String,
    /// Silence that is sure to pass unnoticed: the time-out less one interval, as the last packet before the blackout may be
    /// that old.
    #[serde(default = "not_derived")]
    #[schemars(example = 2.0)]
    pub tolerated_seconds: Fact<f64>,
    /// Id of the member of a cluster in the guest (`guest.memory_sync`) whose failure detector this is, and with which it is
    /// judged; absent where no such software is known. Derived.
    #[serde(default)]
    #[schemars(example = &"keepalived")]
    pub member: Option<String>,
    /// Action of the peers when they declare the guest dead, from the catalogue.
    #[serde(default)]
    #[schemars(example = &"the backups take over the virtual address")]
    pub why: String,
    /// Way out for the operator, from the catalogue: what takes the guest out of service safely, or which setting to raise.
    #[serde(default)]
    #[schemars(example = &"lower the priority in keepalived.conf and reload keepalived, so that the backup takes over in order")]
    pub way_out: String,
}

/// Source of the time-out of a control session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ControlBasis {
    /// The packets state it, or state the interval that the standard multiplies.
    Packet,
    /// The standard's multiple of the time between packets that were seen.
    Spacing,
    /// Default of the standard or the vendor: the packets tell no time.
    Default,
    /// Nothing tells: the time-out is unknown.
    None,
}

fn not_derived() -> Fact<f64> {
    Fact::unknown(Cause::NotCollected, "the catalogue of control protocols was not consulted")
}

impl Default for ControlSession {
    /// A session of which nothing is known.
    fn default() -> Self {
        Self {
            protocol: String::new(),
            title: String::new(),
            role: None,
            local: String::new(),
            remote: String::new(),
            identity: String::new(),
            vlan: None,
            direction: FlowDirection::ToGuest,
            packets_from_guest: 0,
            packets_to_guest: 0,
            active: false,
            interval_seconds: Fact::default(),
            keepalive_gap_seconds: 0.0,
            multiplier: None,
            timeout_seconds: Fact::default(),
            basis: ControlBasis::None,
            source: String::new(),
            tolerated_seconds: not_derived(),
            member: None,
            why: String::new(),
            way_out: String::new(),
        }
    }
}
