//! Windows Server Failover Clustering: no guest with a /proc runs it, and what runs it keeps its settings in a registry.

use super::{Found, Software};
use vmgate_facts::{Cause, Unknown};

pub(super) const WSFC: Software = Software {
    id: "wsfc",
    names: &["clussvc", "clussvc.exe"],
    read: |_| {
        Found::Unknown(Unknown::new(
            Cause::NotSupported,
            "vmgate reads no Windows guest: Get-Cluster tells SameSubnetDelay and SameSubnetThreshold",
        ))
    },
    ..Software::PLAIN
};
