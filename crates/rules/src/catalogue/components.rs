//! Catalogue of components of VMs: which devices, image formats and settings QEMU migrates.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vmgate_facts::{Cause, Fact, VmComponent};

use super::{Catalogues, Reference, check::EntryCheck};

/// A catalogue file of components.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ComponentCatalogue {
    /// Name and version of this format.
    pub schema: ComponentSchema,
    /// Entries, one for each group of components that migrate alike.
    pub entries: Vec<ComponentEntry>,
}

/// Versions of this format that this program reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ComponentSchema {
    /// The first format.
    #[serde(rename = "vmgate/catalogue/components/v1")]
    V1,
}

impl ComponentCatalogue {
    /// Name of the newest format.
    pub const SCHEMA: &'static str = "vmgate/catalogue/components/v1";
}

/// Group of components that migrate alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ComponentEntry {
    /// Id of the entry.
    pub id: String,
    /// Element of the domain XML, or image for the format of an image.
    #[schemars(example = &"sound")]
    pub kind: String,
    /// Models, as vmgate reads them from the domain XML; an empty text for a component without a model.
    #[schemars(example = vec!["ich9"])]
    pub models: Vec<String>,
    /// True if QEMU migrates them.
    pub migrates: bool,
    /// Reason, in one sentence.
    pub why: String,
    /// Documents or sources that prove it.
    #[serde(default)]
    pub references: Vec<Reference>,
}

/// Checks an entry for problems that its types cannot express.
pub(super) fn check(check: &mut EntryCheck<'_>) {
    check.recognisable(&["models"]);
}

impl Catalogues {
    /// The entry that lists a component; none if no entry does. Later entries do not override earlier ones.
    pub fn component(&self, kind: &str, model: &str) -> Option<&ComponentEntry> {
        let lists =
            |entry: &&ComponentEntry| entry.kind == kind && entry.models.iter().any(|listed| listed == model);
        self.components().iter().find(lists)
    }

    /// Fills in if QEMU migrates a component, unless that is known, or the reader of the configuration says why it is not.
    pub fn classify_component(&self, component: &mut VmComponent) {
        if !matches!(&component.migrates, Fact::Unknown(why) if why.cause == Cause::NotCollected) {
            return;
        }
        match self.component(&component.kind, &component.model) {
            Some(entry) => {
                component.migrates = Fact::Known(entry.migrates);
                component.why = Some(entry.why.clone());
            }
            None => {
                component.migrates = Fact::unknown(
                    Cause::NotSupported,
                    format!(
                        "vmgate does not know if QEMU migrates {}",
                        format!("{} {}", component.kind, component.model).trim()
                    ),
                );
            }
        }
    }
}
