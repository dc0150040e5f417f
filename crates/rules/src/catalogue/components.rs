//! Catalogue of components of VMs: which devices, image formats and settings QEMU migrates. `classify` applies it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vmgate_facts::Version;

use super::{Reference, check::EntryCheck};

/// Group of components that migrate alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ComponentEntry {
    /// Id of the entry.
    pub id: String,
    /// Element of the domain XML, image for the format of an image, or kind of a device of the host.
    #[schemars(example = &"sound")]
    pub kind: String,
    /// Models, as vmgate reads them from the domain XML; an empty text for a component without a model. Of a PCI device the
    /// driver of the source's kernel.
    #[schemars(example = vec!["ich9"])]
    pub models: Vec<String>,
    /// True if QEMU migrates them, false if it refuses. Left out where it depends on the VM: then `shown_by` says who tells.
    #[serde(default)]
    pub migrates: Option<bool>,
    /// Evidence for whether such a component migrates; left out where QEMU's reasons for a refusal do.
    #[serde(default)]
    pub shown_by: Option<ShownBy>,
    /// Lowest versions that migrate them; older ones refuse.
    #[serde(default)]
    pub since: Option<Since>,
    /// Reason, in one sentence.
    pub why: String,
    /// Documents or sources that prove it.
    #[serde(default)]
    pub references: Vec<Reference>,
}

/// Evidence for whether a component of a VM migrates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ShownBy {
    /// QEMU's reasons for a refusal (query-migrate, blocked-reasons), which vmgate asks with --allow-monitor.
    #[default]
    BlockedReasons,
    /// libvirt's checks when a migration begins.
    Start,
    /// The end of a migration, when the state is sent.
    End,
}

/// Lowest versions of software.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Since {
    /// QEMU, at both hosts.
    #[serde(default)]
    #[schemars(example = &"8.1")]
    pub qemu: Option<Version>,
    /// libvirt, at the source.
    #[serde(default)]
    #[schemars(example = &"8.6")]
    pub libvirt: Option<Version>,
}

/// Checks an entry for problems that its types cannot express.
pub(super) fn check(check: &mut EntryCheck<'_>) {
    check.recognisable(&["models"]);
    if check.entry.get("migrates").is_none() && check.entry.get("shown_by").is_none() {
        let help = "write `migrates: true` or `false`, or `shown_by` where it depends on the VM";
        check.at(
            &check.entry.clone(),
            "the entry does not say if these components migrate",
            "this entry",
            help,
        );
    }
}
