//! Facts about a move: typed values, each known or unknown for a stated reason, with unit and provenance.
//!
//! The types here are the only source of the facts' JSON Schema, of the names that a rule may use, and of the reference
//! for rule authors. A number's name ends with its unit. Nothing here collects or judges: no I/O, no clock. Every crate
//! may depend on this one, the on-host program included; it depends on no other crate of vmgate.
//!
//! Walls, which the compiler keeps:
//!
//! ```compile_fail
//! use vmgate_rules::Pack;
//! ```
//!
//! ```compile_fail
//! use vmgate_probe::guest::look;
//! ```

#![forbid(unsafe_code)]

mod bridge;
mod certificate;
mod change;
mod collection_method;
mod connection;
mod control_session;
mod day;
mod detector;
mod flow;
mod forecast;
mod guest;
mod guest_machine;
mod guest_memory;
mod guest_network;
mod history;
mod host;
mod host_access;
mod host_device;
mod host_guests;
mod host_hooks;
mod host_memory;
mod host_network;
mod host_sockets;
mod host_storage;
mod host_uri;
mod known_failure;
mod link;
mod machine_type;
mod managed_migration;
mod manager;
mod names;
mod network_order;
mod network_rehearsal;
mod path;
mod path_probe;
mod rehearsal;
mod schema_id;
mod serde_by_text;
pub mod text;
pub mod trace;
mod trial;
mod unit;
mod uri;
mod uuid;
mod value;
mod version;
mod vm;
mod vm_hardware;
mod wire;
pub mod xml;

use std::collections::BTreeMap;

pub use bridge::{Bridge, BridgeController, BridgeKind, SpanningTree, StatefulFilter, SwitchPort, Uplink};
pub use certificate::{Certificate, CertificateUse};
pub use change::{Change, MigrationSettings, guarded_limit_seconds};
pub use collection_method::CollectionMethod;
pub use connection::{DecidedBy, KeepAlive, Sctp, SctpAssociation, TcpEvidence, TcpTimer};
pub use control_session::{ControlBasis, ControlSession};
pub use day::{Day, InvalidDay};
pub use detector::{Detector, DetectorBasis};
pub use flow::{CaptureMethod, FlowDirection, MulticastGroup, UdpCapture, UdpFlow};
pub use forecast::{
    Alternative, Forecast, ForecastMethod, HourChance, LoadDependence, Quantiles, RemainingMemory,
};
pub use guest::{
    DirtyWriter, Guest, Listener, LiveMoveSupport, LossTolerance, MemorySync, Neighbour, Process, Sysctl,
    Tcp, TcpConnection, TcpPeer, TcpState, Udp, UdpService, UdpSocket,
};
pub use guest_machine::{GuestMachine, GuestWatchdog};
pub use guest_memory::{
    Allocation, GuestClock, GuestMemory, HugePageProcess, KernelBypass, MemoryPressure, UserSpaceDevice,
};
pub use guest_network::{DarkBasis, DarkInterface, GuestNetwork};
pub use history::{History, ObservedHour, PastMigration, VersionPair};
pub use host::{DeviceModels, Host, Nic, NicKind, Route};
pub use host_access::{FileOpening, OpenedFile, QemuUser};
pub use host_device::{HostDevice, PassthroughDevice, ProgramBuild};
pub use host_guests::{HostJob, HostVm, MachineType, Tsc};
pub use host_hooks::{HOOK_MARK, HostHook};
pub use host_memory::{HostMemory, HugePageClaim, HugePages, MemoryClaims, NumaNode};
pub use host_network::VirtualNetwork;
pub use host_sockets::{BoundPort, DisplayPorts, PortProtocol, VmPort, VmServer};
pub use host_storage::{FileKind, HostFile};
pub use host_uri::{GuestAddress, HostUri};
use jiff::Timestamp;
pub use known_failure::{KnownFailure, VirtioQueues};
pub use link::{Bond, BondPort, Duplex, Shaper, ShaperKind};
pub use machine_type::machine_version;
pub use managed_migration::{
    DowntimeStep, ManagedEnd, ManagedEndAction, ManagedMigration, ManagedStall, ManagedStallStep,
    OriginOfSetting,
};
pub use manager::{
    ClusterVm, HostManagers, ManagerConfidence, ManagerSetting, MetadataElement, VmManager, VmMarks,
};
pub use names::{Absence, Names};
pub use network_order::{BridgePort, HeardGuest, NetworkOrder, SwitchoverSeen};
pub use network_rehearsal::{NetworkRehearsal, PastSilence, RehearsedSettings};
pub use path::{HostRole, MigrationPath, MigrationTransport, PathNic, PathRoute};
pub use path_probe::{Goodput, MigrationPorts, PortsBasis};
pub use rehearsal::Rehearsal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
pub use trial::{Trial, TrialAnswer, TrialRefuser};
pub use unit::Unit;
pub use uri::{InvalidUri, Uri};
pub use uuid::{InvalidUuid, Uuid};
pub use value::{Cause, Fact, Unknown};
pub use version::{InvalidVersion, Version};
pub use vm::{Accelerator, CpuMode, DirtyRate, DirtyRateMethod, DirtyWindow, Vm, VmDisk, VmNic, VmState};
pub use vm_hardware::{BootFile, Firmware, Placement, Tpm, VmComponent, VmListener};
pub use wire::{
    Denied, DeniedKind, Opener, SystemFamily, Wire, WireConnection, WireGroup, WireLease, WireNeighbours,
    WireProtocol, WireSystem,
};

/// All facts of one move. The document that `vmgate collect` writes and `vmgate check --facts` reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Facts {
    /// Name of this format.
    pub schema: FactsSchema,
    /// Start of the collection.
    pub collected_at: Timestamp,
    /// Provenance of facts, by the path of the fact or of a group that contains it; the longest matching path applies.
    #[serde(default)]
    pub provenance: BTreeMap<String, Provenance>,
    /// The VM that is to move.
    #[serde(default)]
    pub vm: Fact<Vm>,
    /// The guest inside the VM, collected through its guest agent, or by the guest probe over ssh or a command
    /// (`--guest`).
    #[serde(default)]
    pub guest: Fact<Guest>,
    /// Host that the VM runs on.
    #[serde(default)]
    pub source: Fact<Host>,
    /// Host that the VM is to move to.
    #[serde(default)]
    pub destination: Fact<Host>,
    /// Migration path between the two hosts.
    #[serde(default)]
    pub path: Fact<MigrationPath>,
    /// Earlier moves and observations of this VM, from the ledger.
    #[serde(default)]
    pub history: Fact<History>,
    /// Newest rehearsal that counts for this move: an empty copy of the VM, or of one with the same kinds of devices, that went
    /// the same way (`vmgate rehearse`); absent if there is none.
    #[serde(default = "Rehearsal::not_made")]
    pub rehearsal: Fact<Option<Rehearsal>>,
    /// A migration that was begun and taken back, to hear what both hosts say (`vmgate check --trial`); absent if none was.
    #[serde(default = "Trial::not_made")]
    pub trial: Fact<Option<Trial>>,
    /// Limits and settings of the change, given by the operator.
    #[serde(default)]
    pub change: Change,
}

crate::schema_id!(pub FactsSchema = "vmgate/facts/v1");

/// Source, method and time of a fact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Provenance {
    /// Component that collected the fact.
    #[schemars(example = &"guest agent")]
    pub collector: String,
    /// Call, file or command that the fact comes from.
    #[schemars(example = &"guest-file-read /proc/net/tcp")]
    pub method: String,
    /// Time of collection.
    pub at: Timestamp,
    /// Length of the observation; absent for a single reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_seconds: Option<f64>,
}

impl Facts {
    /// A document with every fact unknown.
    pub fn empty(collected_at: Timestamp) -> Self {
        Self {
            schema: FactsSchema::V1,
            collected_at,
            provenance: BTreeMap::new(),
            vm: Fact::default(),
            guest: Fact::default(),
            source: Fact::default(),
            destination: Fact::default(),
            path: Fact::default(),
            history: Fact::default(),
            rehearsal: Rehearsal::not_made(),
            trial: Trial::not_made(),
            change: Change::default(),
        }
    }

    /// Provenance of the fact at `path` (dots between names, as in a rule).
    pub fn provenance_of(&self, path: &str) -> Option<&Provenance> {
        let mut path = path;
        loop {
            if let Some(found) = self.provenance.get(path) {
                return Some(found);
            }
            path = path.rsplit_once(['.', '['])?.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_fact_is_unknown_an_absent_one_is_null() {
        let text = "{schema: vmgate/facts/v1, collected_at: 2026-11-23T00:00:00Z,
                    vm: {name: web1, job: null, vcpus: {unknown: no answer, cause: timed-out}}}";
        let facts: Facts = serde_yaml::from_str(text).unwrap();
        let vm = facts.vm.known().unwrap();
        assert_eq!(vm.name, Fact::Known("web1".into()));
        assert_eq!(vm.job, Fact::Known(None));
        assert_eq!(vm.vcpus, Fact::unknown(Cause::TimedOut, "no answer"));
        assert_eq!(vm.uuid, Fact::default());
        let again: Facts = serde_yaml::from_str(&serde_yaml::to_string(&facts).unwrap()).unwrap();
        assert_eq!(again, facts);
    }

    #[test]
    fn provenance_is_that_of_the_longest_path() {
        let mut facts = Facts::empty(Timestamp::UNIX_EPOCH);
        let by = |collector: &str| Provenance {
            collector: collector.into(),
            method: String::new(),
            at: Timestamp::UNIX_EPOCH,
            window_seconds: None,
        };
        facts.provenance.insert("guest".into(), by("agent"));
        facts.provenance.insert("guest.udp".into(), by("capture"));
        let collector = |path| facts.provenance_of(path).map(|p| p.collector.as_str());
        assert_eq!(collector("guest.udp.sockets[3].drops"), Some("capture"));
        assert_eq!(collector("guest.tcp"), Some("agent"));
        assert_eq!(collector("vm.name"), None);
    }
}
