//! Catalogue of managers of VMs: the marks by which their VMs are recognised, and the migrations that they run.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vmgate_facts::ManagedStall;

use super::{NamePattern, Reference, check::EntryCheck};

/// A manager of VMs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ManagerEntry {
    /// Id of the entry, as `--as` takes it.
    pub id: String,
    /// Name that people use.
    pub title: String,
    /// XML namespace of the manager's metadata, without a version at its end.
    #[serde(default)]
    #[schemars(example = &"http://openstack.org/xmlns/libvirt/nova/")]
    pub namespace: Option<String>,
    /// Elements of the metadata that hold the VM's name in the manager; the first that is there counts.
    #[serde(default)]
    #[schemars(example = vec!["instance/name"])]
    pub vm_elements: Vec<String>,
    /// Elements of the metadata that hold its project.
    #[serde(default)]
    #[schemars(example = vec!["instance/owner/project"])]
    pub project_elements: Vec<String>,
    /// Names that the manager gives to domains. A group `vm` is the VM's name in the manager, a group `project` its project.
    #[serde(default)]
    #[schemars(example = vec!["one-(?<vm>[0-9]+)"])]
    pub names: Vec<NamePattern>,
    /// Product names that the manager, and nothing else, puts into the firmware's tables.
    #[serde(default)]
    #[schemars(example = vec!["OpenStack Nova"])]
    pub products: Vec<String>,
    /// Sockets of QEMU's monitor, where the manager starts QEMU without libvirt. A group `vm` is the VM's name in the manager.
    #[serde(default)]
    #[schemars(example = vec!["/run/qemu-server/(?<vm>[0-9]+)[.]qmp"])]
    pub monitors: Vec<NamePattern>,
    /// Programs of the manager on a host.
    #[serde(default)]
    #[schemars(example = vec!["nova-compute"])]
    pub programs: Vec<String>,
    /// True if its VMs are those of the host's cluster configuration.
    #[serde(default)]
    pub cluster: bool,
    /// Command or way to move a VM through the manager; `{vm}` stands for its name there, `{project}` for its project.
    #[schemars(example = &"`openstack server migrate --live-migration --host HOST {vm}`")]
    pub way_out: String,
    /// Version whose source the defaults below are from.
    #[schemars(example = &"26.2.2")]
    pub version: String,
    /// Program that reads the files; the first of `programs` if left out.
    #[serde(default)]
    pub files: Vec<String>,
    /// Settings that decide how it migrates.
    #[serde(default)]
    pub settings: Vec<SettingEntry>,
    /// Steps that it takes as more and more memory is left; left out where it takes none.
    #[serde(default)]
    pub stall: Option<ManagedStall>,
    /// Part of its migrations that the forecast does not replay, in one sentence; left out where there is none.
    #[serde(default)]
    pub not_replayed: Option<String>,
    /// Documents or sources that prove it.
    #[serde(default)]
    pub references: Vec<Reference>,
}

/// Setting of a manager, and its meaning for a migration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SettingEntry {
    /// Name, with its section where the file has sections; left out where the manager leaves no choice.
    #[serde(default)]
    #[schemars(example = &"libvirt/live_migration_downtime")]
    pub name: Option<String>,
    /// Key in the setting's value where that is a list `key=value,key=value`; its first part may leave the key out.
    #[serde(default)]
    #[schemars(example = &"migration")]
    pub part: Option<String>,
    /// Effect on a migration.
    pub sets: MigrationKnob,
    /// Value that the manager has by default.
    #[schemars(example = &"500")]
    pub default: String,
    /// Factor from its unit to seconds, bytes a second or a number.
    #[serde(default)]
    #[schemars(example = 0.001)]
    pub times: Option<f64>,
    /// Least value that the manager uses, in its unit.
    #[serde(default)]
    #[schemars(example = 100.0)]
    pub least: Option<f64>,
    /// Meanings of its words: true, false, abort, pause or post-copy.
    #[serde(default)]
    pub words: BTreeMap<String, String>,
}

/// Part of a migration that a manager's setting decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MigrationKnob {
    /// Downtime limit of QEMU, at the end of its schedule.
    DowntimeLimit,
    /// Number of steps in which that limit is reached, from a step's part of it on; 0 or left out for the limit from the start.
    DowntimeSteps,
    /// Time between two steps for each GiB of memory.
    StepSecondsPerGib,
    /// Least memory, in GiB, that these times are multiplied by.
    LeastGib,
    /// Unit of memory, in bytes, that these times are given for, of which a part counts as a whole; whole GiB where it is left out.
    MemoryUnit,
    /// Bandwidth limit; 0 or less for none.
    BandwidthLimit,
    /// Throttling of the vCPUs.
    AutoConverge,
    /// Post-copy.
    PostCopy,
    /// Differences instead of whole pages.
    Xbzrle,
    /// Connections that carry memory; 1 or less for one.
    MultifdChannels,
    /// Encryption by QEMU.
    Tls,
    /// Transport through another program, such as libvirtd or ssh.
    Tunnelled,
    /// Longest duration; 0 or less for none.
    CompletionSeconds,
    /// Longest duration for each GiB of memory; 0 or less for none.
    CompletionSecondsPerGib,
    /// Action after the longest duration: abort, pause or post-copy.
    CompletionAction,
    /// Migrations that leave a host at the same time.
    ParallelMoves,
}

/// Checks an entry for problems that its types cannot express.
pub(super) fn check(check: &mut EntryCheck<'_>) {
    check.referenced();
    if check.entry.get("namespace").is_none() && check.entry.get("cluster").is_none() {
        check.recognisable(&["names", "products", "monitors"]);
    }
}
