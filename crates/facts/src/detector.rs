//! Failure detectors of the software in the guest, as it is configured.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Fact;

/// How long the peers of one cluster member bear its silence. Configured here and, as members of a cluster carry the
/// same configuration, at its peers, whose clocks decide while the guest is stopped.
///
/// The figure counts from the last message that the peers saw. That may be one heartbeat older than the blackout, so
/// it is to be compared with a margin: every detector here allows for at least two heartbeats.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Detector {
    /// The catalogue's id of the software.
    #[schemars(example = &"corosync")]
    pub software: String,
    /// Process id in the guest; absent where the processes are not known and the configuration was found in its place.
    #[schemars(example = 812)]
    pub pid: Option<u32>,
    /// How long its peers bear silence before they declare this member dead.
    #[schemars(example = 3.15)]
    pub detector_seconds: Fact<f64>,
    /// What the figure rests on.
    #[schemars(example = &"tool")]
    pub basis: DetectorBasis,
    /// The settings with their values, where they stand and what was made of them; a vendor's default says so.
    #[schemars(example = &"/etc/corosync/corosync.conf: token 2500 ms + 1 x token_coefficient 650 ms")]
    pub source: String,
}

/// What the figure of a failure detector rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DetectorBasis {
    /// The running software said it.
    Tool,
    /// A configuration file, the command line or the environment says it.
    Configuration,
    /// Nothing says otherwise, or what does could not be read.
    VendorDefault,
}
