//! Catalogues: programs that monitor their peers, UDP services with their tolerance of loss, components of VMs that QEMU
//! migrates or not, migrations that are known to fail, control protocols, and managers of VMs.
//!
//! The shipped catalogues are YAML in `rules/catalogues/`, embedded in the program; a user's rule folder may add
//! entries under ids of its own in `catalogues/`. The test of each is in the same folder. Everything here is pure: names, command
//! lines and ports in, facts out.

mod check;
mod classify;
mod components;
mod control;
mod detectors;
mod known_failures;
mod lint;
mod managed;
mod managers;
mod memory_sync;
mod name_pattern;
mod pattern;
mod ports;
mod recognise_manager;
mod udp;
mod version_range;

use std::{collections::BTreeSet, sync::Arc};

pub use classify::{Migrator, QemuAnswer};
pub use components::{ComponentEntry, ShownBy, Since};
pub use control::ControlEntry;
pub use known_failures::{KnownFailureEntry, Versions};
pub use managers::{ManagerEntry, MigrationKnob, SettingEntry};
pub use memory_sync::{
    CommandLineSetting, FileSetting, ListenerPort, MemorySyncEntry, Protocol, TakeOut, is_process_name,
};
pub use name_pattern::NamePattern;
pub use pattern::{InvalidPattern, Pattern};
pub use ports::{InvalidPorts, PortRange};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
pub use udp::UdpEntry;
pub use version_range::{InvalidRange, VersionRange};
use vmgate_documents::{Node, Parsed, Problem, Problems, Shape, SourceFile, closest, parse};

use super::{
    Reference, RuleSource,
    files::{self, FileRole},
};

/// Declares the catalogues: the list of entries that each fills, the document that it is read from, and the check of an entry.
macro_rules! catalogues {
    ($($(#[$doc:meta])+ $list:ident: $document:ident($schema:ident = $id:tt), $entry:ident, $check:path;)+) => {
        /// All catalogues in use. Order matters only for entries that match equally well: the first wins.
        #[derive(Debug, Clone, Default)]
        pub struct Catalogues {
            $($list: Vec<$entry>,)+
            files: Vec<CatalogueFile>,
        }

        $(
            vmgate_facts::schema_id!(pub $schema = $id);

            $(#[$doc])+
            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
            #[serde(deny_unknown_fields)]
            pub struct $document {
                /// Name and version of this format.
                pub schema: $schema,
                /// Entries of the catalogue.
                pub entries: Vec<$entry>,
            }

            impl $document {
                /// Name of the newest format.
                pub const SCHEMA: &'static str = $id;
            }
        )+

        const SCHEMAS: &[&str] = &[$($id),+];

        impl Catalogues {
            $(
                $(#[$doc])+
                pub fn $list(&self) -> &[$entry] {
                    &self.$list
                }
            )+

            /// Adds the entries of one file; none of them if the file has a problem.
            fn add(&mut self, file: &Arc<SourceFile>) -> Result<(), Vec<Problem>> {
                let parsed = parse(file);
                let schema = parsed.node.as_ref().and_then(|root| root.get("schema")).and_then(Node::text);
                let node = match schema {
                    $(Some($id) => {
                        static SHAPE: Shape<$document> = Shape::new();
                        let known = self.$list.iter().map(|entry| entry.id.clone()).collect();
                        let check = |root: &Node| check::entries(file, root, known, $check);
                        let (read, node) = SHAPE.read_parsed(file, parsed, check)?;
                        self.$list.extend(read.entries);
                        node
                    })+
                    _ => return Err(not_a_catalogue(file, parsed)),
                };
                self.files.push(CatalogueFile { source: Arc::clone(file), node });
                Ok(())
            }
        }
    };
}

catalogues! {
    /// Software that monitors its peers.
    memory_sync: MemorySyncCatalogue(MemorySyncSchema = "vmgate/catalogue/memory-sync/v1"), MemorySyncEntry, memory_sync::check;
    /// UDP services.
    udp_services: UdpCatalogue(UdpSchema = "vmgate/catalogue/udp-services/v1"), UdpEntry, udp::check;
    /// Components of VMs.
    components: ComponentCatalogue(ComponentSchema = "vmgate/catalogue/components/v1"), ComponentEntry, components::check;
    /// Migrations that are known to fail.
    known_failures: KnownFailureCatalogue(KnownFailureSchema = "vmgate/catalogue/known-failures/v1"), KnownFailureEntry, known_failures::check;
    /// Managers of VMs.
    managers: ManagerCatalogue(ManagerSchema = "vmgate/catalogue/managers/v1"), ManagerEntry, managers::check;
    /// Control protocols, by which machines watch each other.
    control_protocols: ControlCatalogue(ControlSchema = "vmgate/catalogue/control-protocols/v1"), ControlEntry, control::check;
}

/// File of a catalogue, kept for messages about its entries.
#[derive(Debug, Clone)]
pub(super) struct CatalogueFile {
    pub(super) source: Arc<SourceFile>,
    pub(super) node: Node,
}

impl CatalogueFile {
    /// Entries with their ids.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, &Node)> {
        let entries = self.node.get("entries").map(Node::items).unwrap_or_default();
        entries.iter().filter_map(|entry| Some((entry.get("id")?.text()?, entry)))
    }
}

impl Catalogues {
    /// Loads every catalogue of the sources; entries of a user's folder come after the shipped ones.
    ///
    /// The shipped catalogues are used even if the shipped rules are left out; in this case a folder's file replaces the
    /// shipped file of the same name.
    pub fn load(sources: &[RuleSource]) -> Result<Self, Problems> {
        let folders = sources.iter().filter(|source| **source != RuleSource::Builtin);
        let all: Vec<RuleSource> = std::iter::once(&RuleSource::Builtin).chain(folders).cloned().collect();
        let (mut files, mut problems) = files::collect(&all, &[FileRole::Catalogue]);
        if !sources.contains(&RuleSource::Builtin) {
            let own: BTreeSet<String> =
                files.iter().filter(|file| !file.builtin).map(|file| file.stem.clone()).collect();
            files.retain(|file| !file.builtin || !own.contains(&file.stem));
        }
        let mut catalogues = Self::default();
        for file in &files {
            problems.extend(catalogues.add(&file.file).err().unwrap_or_default());
        }
        if problems.is_empty() { Ok(catalogues) } else { Err(Problems::new(problems)) }
    }

    /// Loads the shipped catalogues.
    pub fn shipped() -> Result<Self, Problems> {
        Self::load(&[RuleSource::Builtin])
    }

    /// Returns a warning for everything in the catalogues that is not good style.
    pub fn lint(&self) -> Vec<Problem> {
        self.files.iter().flat_map(lint::lint).collect()
    }

    /// Software that vmgate itself takes out of its cluster, by id: that of an entry, or of one that is taken out with another.
    pub fn take_out(&self, id: &str) -> Option<(&MemorySyncEntry, &TakeOut)> {
        let entry = self.memory_sync.iter().find(|entry| entry.id == id)?;
        match (&entry.take_out, &entry.taken_out_with) {
            (Some(take_out), _) => Some((entry, take_out)),
            (None, Some(other)) if other != id => {
                let entry = self.memory_sync.iter().find(|entry| entry.id == *other)?;
                Some((entry, entry.take_out.as_ref()?))
            }
            _ => None,
        }
    }

    /// The file with the given name.
    pub(super) fn file(&self, name: &str) -> Option<&CatalogueFile> {
        self.files.iter().find(|file| file.source.name == name)
    }

    /// Copy of the catalogues with one entry changed.
    pub(super) fn with_changed_entry(
        &self,
        id: &str,
        software: impl FnOnce(&mut MemorySyncEntry),
        service: impl FnOnce(&mut UdpEntry),
    ) -> Self {
        let mut changed = self.clone();
        if let Some(entry) = changed.memory_sync.iter_mut().find(|entry| entry.id == id) {
            software(entry);
        }
        if let Some(entry) = changed.udp_services.iter_mut().find(|entry| entry.id == id) {
            service(entry);
        }
        changed
    }
}

/// Problems of a file whose schema is not the schema of a catalogue.
fn not_a_catalogue(file: &Arc<SourceFile>, parsed: Parsed) -> Vec<Problem> {
    let Parsed { node, mut problems } = parsed;
    let Some(root) = node else { return problems };
    let schema = root.get("schema");
    let text = schema.and_then(Node::text).unwrap_or_default();
    let help = match closest(text, SCHEMAS.iter().copied()) {
        Some(like) => format!("did you mean `{like}`?"),
        None => format!(
            "begin it with one of {}",
            SCHEMAS.iter().map(|id| format!("`schema: {id}`")).collect::<Vec<_>>().join(", ")
        ),
    };
    let span = schema.map_or(root.span.clone(), |schema| schema.span.clone());
    problems.push(
        Problem::at(file, span, "this is not a catalogue").label("not the schema of a catalogue").help(help),
    );
    problems
}

#[cfg(test)]
mod tests;
