//! The change file as people write it. Its JSON Schema comes from these types.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::RunsOn;
use vmgate_facts::Version;
use vmgate_verdict::waiver::Waiver;

/// Moves that belong together.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "`schema` is read to be checked: an unknown version must not load")]
pub(super) struct ChangeDocument {
    /// Names this format.
    pub(super) schema: ChangeSchema,
    /// Id of the change in your own books.
    #[schemars(example = &"CHG-2041")]
    pub(super) id: String,
    /// What it is for, in a line.
    #[schemars(example = &"Empty hv1 for its kernel update")]
    pub(super) title: Option<String>,
    /// When its moves may run; any time where it is left out.
    pub(super) window: Option<Window>,
    /// What every move must keep to.
    #[serde(default)]
    pub(super) goals: Goals,
    /// How QEMU is to migrate; for every move.
    #[serde(default)]
    pub(super) settings: Settings,
    /// Whether its moves try out a pair of hypervisor versions, on VMs that may be lost: the ledger remembers them as
    /// rehearsals, and no rehearsal is asked for before them.
    #[serde(default)]
    pub(super) rehearsal: bool,
    /// How guests are told.
    #[serde(default)]
    pub(super) notify: NotifyDocument,
    /// Done before each move, in this order, and undone after it in the other, whichever way it ends.
    #[serde(default)]
    pub(super) prepare: Vec<ActionDocument>,
    /// How many moves may run at once.
    #[serde(default)]
    pub(super) limits: Limits,
    /// How many moves may run at once altogether; as many as the hosts allow where it is left out.
    #[schemars(range(min = 1))]
    pub(super) at_once: Option<u32>,
    /// How many moves may fail before `vmgate run` begins no other; any number where it is left out.
    #[schemars(range(min = 1))]
    pub(super) error_budget: Option<u32>,
    /// Parts of the change, in their order: the moves of one begin when those before are over. One part where it is left
    /// out.
    #[serde(default)]
    pub(super) waves: Vec<WaveDocument>,
    /// VMs that a plan could not place. Nothing reads them but people.
    #[serde(default)]
    pub(super) stays: Vec<StaysDocument>,
    /// What happens to the moves after one that is NO-GO.
    #[serde(default)]
    pub(super) after_no_go: AfterNoGo,
    /// Exceptions that come with the change, as in a waiver file.
    #[serde(default)]
    pub(super) waivers: Vec<Waiver>,
    /// The moves, in the order in which they are made.
    pub(super) moves: Vec<MoveDocument>,
}

/// The names of the change format that this version reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(super) enum ChangeSchema {
    /// The first format.
    #[serde(rename = "vmgate/change/v1")]
    V1,
}

/// A part of a change.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WaveDocument {
    /// Its name, which its moves repeat.
    #[schemars(example = &"back to r1")]
    pub(super) name: String,
    /// What must be before its first move begins; nothing where it is left out.
    pub(super) wait_for: Option<WaitForDocument>,
}

/// Hosts that must have had their maintenance.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitForDocument {
    /// libvirt URIs of the hosts that must answer and take VMs.
    #[schemars(example = vec!["qemu+ssh://root@hv1/system"])]
    pub(super) hosts: Vec<String>,
    /// What they must have.
    #[serde(default)]
    pub(super) versions: Versions,
}

/// Versions that a host has. Where none is named, nothing tells that its maintenance is over but the people who did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Versions {
    /// Of the installed QEMU, at least.
    #[schemars(example = &"10.0.13")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qemu_version: Option<Version>,
    /// Of libvirt's daemon, at least.
    #[schemars(example = &"11.3.0")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub libvirt_version: Option<Version>,
}

/// A VM that a plan could not place.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "people read it, and its shape is checked")]
pub(super) struct StaysDocument {
    /// The VM.
    #[schemars(example = &"gpu1")]
    pub(super) vm: String,
    /// Libvirt URI of the host it stays on.
    #[schemars(example = &"qemu+ssh://root@hv1/system")]
    pub(super) on: String,
    /// Why, the most hopeful reason first.
    #[schemars(example = vec!["devices-migratable: 0000:3b:00.1 is given to the VM"])]
    pub(super) because: Vec<String>,
    /// The cheapest way out.
    #[schemars(example = &"free 4.0 GiB of memory on hv2")]
    pub(super) way_out: String,
}

/// The time in which a change may run.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Window {
    /// From when on.
    #[schemars(example = &"2026-11-24T01:00:00Z")]
    pub(super) start: Timestamp,
    /// Until when.
    #[schemars(example = &"2026-11-24T05:00:00Z")]
    pub(super) end: Timestamp,
}

/// What a move must keep to.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Goals {
    /// Longest silence of the guest that is accepted; 0.3 where it is left out.
    #[schemars(example = 0.3)]
    pub(super) longest_blackout_seconds: Option<f64>,
    /// Longest duration of the migration that is accepted; no limit where it is left out.
    #[schemars(example = 600.0)]
    pub(super) deadline_seconds: Option<f64>,
}

/// How QEMU is to migrate. What is left out at a move is taken from the change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Limit on the migration traffic; none where it is left out.
    #[schemars(example = 125_000_000_u64)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth_limit_bytes_per_second: Option<u64>,
    /// Whether QEMU may slow the guest's CPUs so that the migration converges; no where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_converge: Option<bool>,
    /// Whether the guest may go on at the destination before all its memory is there. A failure then loses the VM, so
    /// no where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_copy: Option<bool>,
    /// Whether the guest may be suspended at the source to end a migration that would not converge; no where it is
    /// left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Whether the VM is cut off the network at once where it does not work at the destination as it did before the move,
    /// so that the damage stays local; `vmgate isolate VM --on URI --release` lets it back. No where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolate: Option<bool>,
    /// Whether pages are sent as what changed in them (XBZRLE), which costs CPU time at the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xbzrle: Option<bool>,
    /// Connections to send over (multifd), 1 to 255; a single stream where it is left out.
    #[schemars(example = 4_u32, range(min = 1, max = 255))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multifd_channels: Option<u32>,
    /// Whether the traffic goes over TLS, with the certificates that the hosts have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<bool>,
}

impl Settings {
    /// These, and `others` where these say nothing.
    #[must_use]
    pub fn or(self, others: &Self) -> Self {
        Self {
            bandwidth_limit_bytes_per_second: self
                .bandwidth_limit_bytes_per_second
                .or(others.bandwidth_limit_bytes_per_second),
            auto_converge: self.auto_converge.or(others.auto_converge),
            post_copy: self.post_copy.or(others.post_copy),
            suspend: self.suspend.or(others.suspend),
            isolate: self.isolate.or(others.isolate),
            xbzrle: self.xbzrle.or(others.xbzrle),
            multifd_channels: self.multifd_channels.or(others.multifd_channels),
            tls: self.tls.or(others.tls),
        }
    }
}

/// How a guest is told of its move: what is executable in a folder of its own is run, in the order of the names, with
/// `before` and, when it is over, `after` or `stayed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notify {
    /// The folder in the guest; a guest without it is not told.
    pub folder: String,
    /// How long the guest may take before the move. A hook that fails objects: the VM is not moved.
    pub longest_delay_seconds: f64,
}

impl Notify {
    /// The folder where none is named.
    pub const FOLDER: &str = "/etc/vmgate/migrate.d";
    /// The delay where none is named.
    pub const LONGEST_DELAY_SECONDS: f64 = 60.0;
}

impl Default for Notify {
    fn default() -> Self {
        Self { folder: Self::FOLDER.to_owned(), longest_delay_seconds: Self::LONGEST_DELAY_SECONDS }
    }
}

/// How guests are told of their moves.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct NotifyDocument {
    /// Whether they are told at all; yes where it is left out.
    pub(super) enabled: Option<bool>,
    /// Folder of hooks in the guest; /etc/vmgate/migrate.d where it is left out.
    #[schemars(example = &"/etc/vmgate/migrate.d")]
    pub(super) folder: Option<String>,
    /// How long a guest may take before its move; 60 where it is left out.
    #[schemars(example = 60.0)]
    pub(super) longest_delay_seconds: Option<f64>,
}

/// Something that is done before a move and undone after it: either `stop_service` or `run`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ActionDocument {
    /// Service in the guest that is stopped, and started again if it ran.
    #[schemars(example = &"corosync")]
    pub(super) stop_service: Option<String>,
    /// Names of its processes, as the kernel has them; the service's own name where it is left out. The check judges
    /// the guest without them; whether they are really gone is seen just before the migration.
    #[schemars(example = vec!["mariadbd"])]
    pub(super) processes: Option<Vec<String>>,
    /// Program and arguments; it finds VMGATE_VM, VMGATE_VM_UUID, VMGATE_FROM, VMGATE_TO and VMGATE_CHANGE in its
    /// environment.
    pub(super) run: Option<Vec<String>>,
    /// Program and arguments that undo `run`, `[]` where there is nothing to undo. It must do no harm when it is run
    /// twice.
    pub(super) undo: Option<Vec<String>>,
    /// Where `run` and `undo` run; where vmgate runs if it is left out.
    #[serde(default)]
    pub(super) on: RunsOn,
    /// How long it may take; 60 where it is left out.
    #[schemars(example = 30.0)]
    pub(super) time_limit_seconds: Option<f64>,
}

/// How many moves may run at once, of this change and of others in the same ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Out of one host.
    #[schemars(range(min = 1))]
    pub per_source: u32,
    /// Into one host.
    #[schemars(range(min = 1))]
    pub per_destination: u32,
    /// Over one link: between the same two hosts, in either direction.
    #[schemars(range(min = 1))]
    pub per_link: u32,
}

impl Default for Limits {
    /// One at a time everywhere: a second migration halves the bandwidth that the first was judged with.
    fn default() -> Self {
        Self { per_source: 1, per_destination: 1, per_link: 1 }
    }
}

/// What happens to the moves after one that is NO-GO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AfterNoGo {
    /// They are not made.
    #[default]
    Stop,
    /// They are made if they are GO themselves.
    Continue,
}

/// One VM, from one host to another.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MoveDocument {
    /// Name or UUID of the VM.
    #[schemars(example = &"web1")]
    pub(super) vm: String,
    /// Libvirt URI of the host it runs on.
    #[schemars(example = &"qemu+ssh://root@hv1/system")]
    pub(super) from: String,
    /// Libvirt URI of the host it is to go to.
    #[schemars(example = &"qemu+ssh://root@hv2/system")]
    pub(super) to: String,
    /// Address at the destination that takes the traffic; as libvirt would choose where it is left out.
    #[schemars(example = &"10.0.1.2")]
    pub(super) migrate_address: Option<String>,
    /// The way into the guest: agent, exec, ssh, ssh://USER@HOST[:PORT] or none.
    #[schemars(example = &"agent")]
    pub(super) guest: Option<String>,
    /// Goals of this move; what is left out is taken from the change.
    #[serde(default)]
    pub(super) goals: Goals,
    /// Settings of this move; what is left out is taken from the change.
    #[serde(default)]
    pub(super) settings: Settings,
    /// How this guest is told; what is left out is taken from the change.
    #[serde(default)]
    pub(super) notify: NotifyDocument,
    /// Done before this move, after what the change does before each.
    #[serde(default)]
    pub(super) prepare: Vec<ActionDocument>,
    /// The part of the change that it belongs to, where the change has `waves`.
    #[schemars(example = &"empty r1")]
    pub(super) wave: Option<String>,
    /// Names of groups of which no other member moves at the same time: the members of one cluster.
    #[schemars(example = vec!["galera-shop"])]
    #[serde(default)]
    pub(super) exclusive: Vec<String>,
    /// How long it takes by the plan's forecast.
    #[schemars(example = 42.0)]
    pub(super) expected_seconds: Option<f64>,
}
