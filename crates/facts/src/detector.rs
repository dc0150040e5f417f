//! Failure detectors of the software in the guest, as it is configured.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Fact;

/// Failure detector of one cluster member: the time of silence after which its peers declare the member dead.
/// Configured here and, as members of a cluster carry the same configuration, at the peers, whose clocks decide while
/// the guest is stopped.
///
/// The time counts from the last message that the peers received. That message may be one heartbeat older than the
/// blackout, so compare with a margin: every detector here allows for at least two heartbeats.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Detector {
    /// Id of the software in the catalogue.
    #[schemars(example = &"corosync")]
    pub software: String,
    /// Process id in the guest; absent where the processes are not known and the configuration was found at its usual
    /// path.
    #[schemars(example = 812)]
    pub pid: Option<u32>,
    /// Time of silence after which the peers declare this member dead.
    #[schemars(example = 3.15)]
    pub detector_seconds: Fact<f64>,
    /// Source of the figure.
    #[schemars(example = &"tool")]
    pub basis: DetectorBasis,
    /// Settings with their values, their file, and the calculation from them; a vendor's default is marked as such.
    #[schemars(example = &"/etc/corosync/corosync.conf: token 2500 ms + 1 x token_coefficient 650 ms")]
    pub source: String,
}

/// Source of a failure detector's figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DetectorBasis {
    /// The running software reported the value.
    Tool,
    /// A configuration file, the command line or the environment sets the value.
    Configuration,
    /// Default of the vendor: nothing sets another value, or the configuration could not be read.
    VendorDefault,
}
