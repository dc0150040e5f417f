//! The migration that a manager of VMs would run, by its settings on the source host.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Names;

/// Migration that a manager would run. Derived from its settings; never part of a facts file.
#[allow(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct ManagedMigration {
    /// Id of the manager in the catalogue.
    #[schemars(example = &"nova", extend("x-names" = Names::CATALOGUE))]
    pub manager: String,
    /// Name of the manager.
    #[schemars(example = &"OpenStack Nova", extend("x-names" = Names::FREE))]
    pub title: String,
    /// Settings that decide the migration, with their origins.
    pub settings: Vec<OriginOfSetting>,
    /// Downtime limits that it sets one after the other.
    pub downtime_limits: Vec<DowntimeStep>,
    /// Bandwidth limit; absent for none.
    #[schemars(example = 54_525_952_u64)]
    pub bandwidth_limit_bytes_per_second: Option<u64>,
    /// True if it throttles the guest's vCPUs.
    #[schemars(example = false)]
    pub auto_converge: bool,
    /// True if it switches to post-copy.
    #[schemars(example = false)]
    pub post_copy: bool,
    /// True if it sends differences to pages sent before.
    #[schemars(example = false)]
    pub xbzrle: bool,
    /// Number of connections that carry memory, where there are several.
    #[schemars(example = 4)]
    pub multifd_channels: Option<u32>,
    /// True if QEMU encrypts it.
    #[schemars(example = false)]
    pub tls: bool,
    /// True if another program, such as ssh or libvirtd, carries it.
    #[schemars(example = false)]
    pub tunnelled: bool,
    /// Time after which it is ended, and the way; absent where it may go on for ever.
    pub end: Option<ManagedEnd>,
    /// Steps that it takes where the migration makes no progress; absent where it takes none.
    pub stall: Option<ManagedStall>,
    /// Migrations that may leave a host at the same time; absent for any number.
    #[schemars(example = 1)]
    pub parallel_moves: Option<u32>,
    /// Part of such a migration that the forecast does not replay; absent where it replays all.
    #[schemars(example = &"the engine's policy decides over vdsm.conf", extend("x-names" = Names::FREE))]
    pub not_replayed: Option<String>,
}

/// Setting of a manager with its origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct OriginOfSetting {
    /// Name of the setting.
    #[schemars(example = &"libvirt/live_migration_downtime", extend("x-names" = Names::FREE))]
    pub name: String,
    /// Value in the manager's own unit.
    #[schemars(example = &"500", extend("x-names" = Names::FREE))]
    pub value: String,
    /// File on the source host, or the version whose default it is.
    #[schemars(example = &"/etc/nova/nova.conf", extend("x-names" = Names::FREE))]
    pub origin: String,
}

/// Downtime limit that a manager sets in the course of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct DowntimeStep {
    /// Time from the start of the migration.
    #[schemars(example = 150.0)]
    pub at_seconds: f64,
    /// Downtime limit from then on.
    #[schemars(example = 0.095)]
    pub limit_seconds: f64,
}

/// Steps of a manager that looks at a migration every so often, and counts what it sees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ManagedStall {
    /// Time between two looks.
    #[schemars(example = 10.0)]
    pub look_seconds: f64,
    /// Steps, in their order.
    pub steps: Vec<ManagedStallStep>,
}

/// Step that a manager takes where a migration makes no progress.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ManagedStallStep {
    /// Number of looks at which more memory was left than at the one before; 0 where they are not counted.
    #[serde(default)]
    #[schemars(example = 6)]
    pub rises: u32,
    /// Number of rounds since the first look, where a look finds a new one; 0 where they are not counted.
    #[serde(default)]
    #[schemars(example = 2)]
    pub rounds: u32,
    /// Downtime limit from then on; absent where the migration is aborted.
    #[serde(default)]
    #[schemars(example = 0.15)]
    pub limit_seconds: Option<f64>,
}

/// End that a manager makes of a migration that takes too long.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ManagedEnd {
    /// Time from the start of the migration.
    #[schemars(example = 1600.0)]
    pub at_seconds: f64,
    /// Way in which it ends.
    #[schemars(example = &"abort")]
    pub action: ManagedEndAction,
}

/// Way in which a manager ends a migration that takes too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ManagedEndAction {
    /// The VM stays at the source.
    Abort,
    /// The guest is paused until the rest of its memory is sent.
    Pause,
    /// The guest goes on at the destination before all of its memory is there.
    PostCopy,
}
