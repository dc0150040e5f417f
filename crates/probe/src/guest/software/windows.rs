//! Windows Server Failover Clustering: a guest that runs it has no /proc and keeps its settings in the registry.

use vmgate_facts::{Cause, Unknown};

use crate::guest::software::{Reading, Software};

pub(super) const WSFC: Software = Software {
    id: "wsfc",
    names: &["clussvc", "clussvc.exe"],
    read: |_| {
        Reading::Unknown(Unknown::new(
            Cause::NotSupported,
            "vmgate cannot read a Windows guest: Get-Cluster shows SameSubnetDelay and SameSubnetThreshold",
        ))
    },
    ..Software::BASE
};
