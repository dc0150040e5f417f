//! Document of a change file, as people write it. Its JSON Schema comes from these types.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vmgate_facts::Version;
use vmgate_verdict::waiver::Waiver;

use super::RunsOn;

/// A change: moves that belong together.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "`schema` is read to be checked: an unknown version must not load")]
pub(super) struct ChangeDocument {
    /// Name and version of this format.
    pub(super) schema: ChangeSchema,
    /// Id of the change in your ticket system.
    #[schemars(example = &"CHG-2041")]
    pub(super) id: String,
    /// Purpose of the change, in one line.
    #[schemars(example = &"Empty hv1 for its kernel update")]
    pub(super) title: Option<String>,
    /// Time window in which the moves may run; any time if left out.
    pub(super) window: Option<Window>,
    /// Goals of every move.
    #[serde(default)]
    pub(super) goals: Goals,
    /// Settings of the migration, for every move.
    #[serde(default)]
    pub(super) settings: MoveSettings,
    /// True if the moves test a pair of hypervisor versions, with VMs that may be lost. The ledger records them as
    /// rehearsals, and the rules demand no earlier rehearsal.
    #[serde(default)]
    pub(super) rehearsal: bool,
    /// Notification of the guests.
    #[serde(default)]
    pub(super) notify: NotifyDocument,
    /// Actions before each move, in this order. They are undone after the move in the reverse order, even if the move fails.
    #[serde(default)]
    pub(super) prepare: Vec<ActionDocument>,
    /// Limits on the number of moves that run at the same time.
    #[serde(default)]
    pub(super) limits: Limits,
    /// Limit on all moves that run at the same time; only `limits` apply if left out.
    #[schemars(range(min = 1))]
    pub(super) at_once: Option<u32>,
    /// Number of moves that may fail before `vmgate run` starts no further move; no limit if left out.
    #[schemars(range(min = 1))]
    pub(super) error_budget: Option<u32>,
    /// Waves: parts of the change, in their order. The moves of a wave start when those of the waves before have ended. One
    /// wave if left out.
    #[serde(default)]
    pub(super) waves: Vec<WaveDocument>,
    /// VMs for which a plan found no destination. Only people read this field.
    #[serde(default)]
    pub(super) stays: Vec<UnplacedVmDocument>,
    /// Treatment of the moves after a move that is NO-GO.
    #[serde(default)]
    pub(super) after_no_go: AfterNoGo,
    /// Waivers of the change, as in a waiver file.
    #[serde(default)]
    pub(super) waivers: Vec<Waiver>,
    /// The moves, in the order of their execution.
    pub(super) moves: Vec<MoveDocument>,
}

vmgate_facts::schema_id!(pub(super) ChangeSchema = "vmgate/change/v1");

/// A wave: a part of a change.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WaveDocument {
    /// Name of the wave; its moves repeat this name.
    #[schemars(example = &"back to r1")]
    pub(super) name: String,
    /// Condition for the first move of the wave; none if left out.
    pub(super) wait_for: Option<WaitForDocument>,
}

/// Hosts whose maintenance must be complete.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitForDocument {
    /// libvirt URIs of the hosts that must answer and take VMs.
    #[schemars(example = vec!["qemu+ssh://root@hv1/system"])]
    pub(super) hosts: Vec<String>,
    /// Versions that these hosts must have.
    #[serde(default)]
    pub(super) versions: Versions,
}

/// Minimum versions on a host. Without a version, only people can confirm that the maintenance is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)] // in a change file; the ledger ignores them
pub struct Versions {
    /// Minimum version of the installed QEMU.
    #[schemars(example = &"10.0.13")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qemu_version: Option<Version>,
    /// Minimum version of libvirt's daemon.
    #[schemars(example = &"11.3.0")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub libvirt_version: Option<Version>,
}

/// A VM for which a plan found no destination.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "people read it, and its shape is checked")]
pub(super) struct UnplacedVmDocument {
    /// Name or UUID of the VM that stays.
    #[schemars(example = &"gpu1")]
    pub(super) vm: String,
    /// Libvirt URI of the host that the VM stays on.
    #[schemars(example = &"qemu+ssh://root@hv1/system")]
    pub(super) on: String,
    /// Reasons, the most hopeful first.
    #[schemars(example = vec!["devices-migratable: 0000:3b:00.1 is given to the VM"])]
    pub(super) because: Vec<String>,
    /// The cheapest way out.
    #[schemars(example = &"free 4.0 GiB of memory on hv2")]
    pub(super) way_out: String,
}

/// Time window in which a change may run.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Window {
    /// Start of the window.
    #[schemars(example = &"2026-11-24T01:00:00Z")]
    pub(super) start: Timestamp,
    /// End of the window.
    #[schemars(example = &"2026-11-24T05:00:00Z")]
    pub(super) end: Timestamp,
}

/// Goals of a move.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_field_names, reason = "the unit belongs to each name that people write")]
pub(super) struct Goals {
    /// Longest blackout of the guest that is accepted; 0.3 if left out.
    #[schemars(example = 0.3)]
    pub(super) longest_blackout_seconds: Option<f64>,
    /// Longest duration of the migration that is accepted; no limit if left out.
    #[schemars(example = 600.0)]
    pub(super) deadline_seconds: Option<f64>,
    /// Dark time that you measured on the guests' network: from the guest's start at the destination until its network
    /// reaches it. Derived from the hosts' bridges if left out.
    #[schemars(example = 2.5)]
    pub(super) network_dark_seconds: Option<f64>,
}

/// Settings of a migration. A setting that a move leaves out is taken from the change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)] // in a change file; the ledger ignores them
pub struct MoveSettings {
    /// Limit on the migration traffic; no limit if left out.
    #[schemars(example = 125_000_000_u64)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth_limit_bytes_per_second: Option<u64>,
    /// True if QEMU may throttle the guest's CPUs so that pre-copy converges; false if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_converge: Option<bool>,
    /// True for post-copy: the guest may continue at the destination before all of its memory is copied. A failure then
    /// loses the VM, so the default is false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_copy: Option<bool>,
    /// True if the guest may be suspended at the source to complete a migration that does not converge; false if left
    /// out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// True if the VM is disconnected from the network at once when it does not work at the destination as before the move,
    /// so that the damage stays local; `vmgate isolate VM --on URI --release` connects it again. False if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolate: Option<bool>,
    /// True for XBZRLE: only the changed bytes of a page are sent, which costs CPU time at the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xbzrle: Option<bool>,
    /// Number of connections of the migration (multifd), 1 to 255; a single stream if left out.
    #[schemars(example = 4_u32, range(min = 1, max = 255))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multifd_channels: Option<u32>,
    /// True for migration traffic over TLS, with the certificates of the hosts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<bool>,
    /// True for a trial before each move: the migration is begun at the least bandwidth and taken back as soon as it sends, and what
    /// both hosts say to it counts for the verdict. False if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trial: Option<bool>,
    /// Manager that runs the migration, by its id in the catalogue of managers; vmgate asks libvirt if left out.
    #[schemars(example = &"nova")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_by: Option<String>,
    /// True for a rehearsal of the switchover on the VMs' networks before the moves, once a day for each network between two
    /// hosts; the time until a network followed counts for the verdict. False if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe_network: Option<bool>,
}

impl MoveSettings {
    /// Fills the settings that are left out with those of `others`.
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
            trial: self.trial.or(others.trial),
            run_by: self.run_by.or_else(|| others.run_by.clone()),
            probe_network: self.probe_network.or(others.probe_network),
        }
    }
}

/// Notification of a guest about its move: every executable in a folder in the guest is run, in the order of the names, with the
/// argument `before` and, when the move has ended, `after` or `stayed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notify {
    /// Folder in the guest; a guest without this folder is not notified.
    pub folder: String,
    /// Longest time that the guest may delay the move. A hook that fails is an objection: the VM is not moved.
    pub longest_delay_seconds: f64,
}

impl Notify {
    /// Default folder.
    pub const FOLDER: &str = "/etc/vmgate/migrate.d";
    /// Default of the longest delay.
    pub const LONGEST_DELAY_SECONDS: f64 = 60.0;
}

impl Default for Notify {
    fn default() -> Self {
        Self { folder: Self::FOLDER.to_owned(), longest_delay_seconds: Self::LONGEST_DELAY_SECONDS }
    }
}

/// Notification of guests about their moves.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct NotifyDocument {
    /// True if guests are notified; true if left out.
    pub(super) enabled: Option<bool>,
    /// Folder of hooks in the guest; /etc/vmgate/migrate.d if left out.
    #[schemars(example = &"/etc/vmgate/migrate.d")]
    pub(super) folder: Option<String>,
    /// Longest time that a guest may delay its move; 60 if left out.
    #[schemars(example = 60.0)]
    pub(super) longest_delay_seconds: Option<f64>,
}

/// An action before a move, which is undone after the move: `take_out`, `stop_service` or `run`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ActionDocument {
    /// Cluster software in the guest, by its id in vmgate's catalogue. If the others can do without this member now, it is taken out as its
    /// vendor asks, and brought back after the move; otherwise the VM is not moved.
    #[schemars(example = &"etcd")]
    pub(super) take_out: Option<String>,
    /// Service in the guest that is stopped, and started again if it was running.
    #[schemars(example = &"postfix")]
    pub(super) stop_service: Option<String>,
    /// Names of its processes, as the kernel has them; the service's own name where it is left out. The check judges
    /// the guest without them; whether they are really gone is seen just before the migration.
    #[schemars(example = vec!["mariadbd"])]
    pub(super) processes: Option<Vec<String>>,
    /// Program and arguments. The environment has VMGATE_VM, VMGATE_VM_UUID, VMGATE_FROM, VMGATE_TO and
    /// VMGATE_CHANGE.
    pub(super) run: Option<Vec<String>>,
    /// Program and arguments that undo `run`, or `[]` if there is nothing to undo. The program must do no harm if it runs
    /// twice.
    pub(super) undo: Option<Vec<String>>,
    /// Machine on which `run` and `undo` run; the machine of vmgate if left out.
    #[serde(default)]
    pub(super) on: RunsOn,
    /// Time limit of the action, and of its undoing; 60 if left out, 300 for `take_out`.
    #[schemars(example = 30.0)]
    pub(super) time_limit_seconds: Option<f64>,
}

/// Limits on the number of moves that run at the same time, of this change and of others in the same ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Moves out of one host.
    #[schemars(range(min = 1))]
    pub per_source: u32,
    /// Moves into one host.
    #[schemars(range(min = 1))]
    pub per_destination: u32,
    /// Moves over one link: between the same two hosts, in either direction.
    #[schemars(range(min = 1))]
    pub per_link: u32,
}

impl Default for Limits {
    /// One move at a time everywhere: a second migration halves the bandwidth of the forecast for the first.
    fn default() -> Self {
        Self { per_source: 1, per_destination: 1, per_link: 1 }
    }
}

/// Treatment of the moves after a move that is NO-GO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AfterNoGo {
    /// The later moves are not made.
    #[default]
    Stop,
    /// The later moves are made if they are GO themselves.
    Continue,
}

/// One move: one VM, from one host to another.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MoveDocument {
    /// Name or UUID of the VM.
    #[schemars(example = &"web1")]
    pub(super) vm: String,
    /// Libvirt URI of the source.
    #[schemars(example = &"qemu+ssh://root@hv1/system")]
    pub(super) from: String,
    /// Libvirt URI of the destination.
    #[schemars(example = &"qemu+ssh://root@hv2/system")]
    pub(super) to: String,
    /// Address of the destination for the migration traffic; libvirt chooses if left out.
    #[schemars(example = &"10.0.1.2")]
    pub(super) migrate_address: Option<String>,
    /// Access to the guest: agent, exec, ssh, ssh://USER@HOST[:PORT] or none.
    #[schemars(example = &"agent")]
    pub(super) guest: Option<String>,
    /// Goals of this move; goals that are left out are taken from the change.
    #[serde(default)]
    pub(super) goals: Goals,
    /// Settings of this move; settings that are left out are taken from the change.
    #[serde(default)]
    pub(super) settings: MoveSettings,
    /// Notification of this guest; fields that are left out are taken from the change.
    #[serde(default)]
    pub(super) notify: NotifyDocument,
    /// Actions before this move, after the change's actions for every move.
    #[serde(default)]
    pub(super) prepare: Vec<ActionDocument>,
    /// Wave of this move, if the change has `waves`.
    #[schemars(example = &"empty r1")]
    pub(super) wave: Option<String>,
    /// Names of groups of which no other member moves at the same time: the members of one cluster.
    #[schemars(example = vec!["galera-shop"])]
    #[serde(default)]
    pub(super) exclusive: Vec<String>,
    /// Duration by the plan's forecast, in seconds.
    #[schemars(example = 42.0)]
    pub(super) expected_seconds: Option<f64>,
}
