//! What is known of software by name: which of it watches its peers, and which UDP services bear loss.
//!
//! The shipped catalogues are YAML in `rules/catalogues/`, embedded in the program; a user's rule folder may add
//! entries under ids of its own. Everything here is pure: names, command lines and ports in, facts out.

mod detectors;
mod load;
mod memory_sync;
mod pattern;
mod ports;
mod udp;

use std::collections::BTreeSet;

use serde::{Deserialize, de::DeserializeOwned};
use thiserror::Error;

pub use load::CataloguesError;
pub use memory_sync::{ListenerPort, MemorySyncCatalogue, MemorySyncEntry, Protocol, Setting};
pub use pattern::{InvalidPattern, Pattern};
pub use ports::{InvalidPorts, PortRange};
pub use udp::{UdpCatalogue, UdpEntry};

use super::Reference;

/// Names and contents of the shipped catalogues.
const SHIPPED: [(&str, &str); 2] = [
    ("rules/catalogues/memory-sync.yaml", include_str!("../../../rules/catalogues/memory-sync.yaml")),
    ("rules/catalogues/udp-services.yaml", include_str!("../../../rules/catalogues/udp-services.yaml")),
];

/// All catalogues in use. Order matters only among entries that match equally well: the first wins.
#[derive(Debug, Clone, Default)]
pub struct Catalogues {
    memory_sync: Vec<MemorySyncEntry>,
    udp_services: Vec<UdpEntry>,
}

/// What is wrong with a catalogue file. Several entries may have several problems each.
#[derive(Debug, Error)]
pub enum CatalogueError {
    /// The file is not YAML, or not of the shape that its schema says.
    #[error("{file}: not a catalogue")]
    Syntax {
        /// The file as it was named.
        file: String,
        /// Line, column and what was expected.
        source: serde_yaml::Error,
    },
    /// The file names no schema that this version reads.
    #[error("{file}: schema `{schema}` is not one of {}", [MemorySyncCatalogue::SCHEMA, UdpCatalogue::SCHEMA].join(", "))]
    UnknownSchema {
        /// The file as it was named.
        file: String,
        /// What it says.
        schema: String,
    },
    /// An entry says something that cannot be.
    #[error("{file}: entry `{id}`: {problem}")]
    Entry {
        /// The file as it was named.
        file: String,
        /// The entry's id.
        id: String,
        /// What is wrong with it.
        problem: Problem,
    },
}

/// What can be wrong with an entry of a catalogue.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum Problem {
    /// Ids are used in rules and reports.
    #[error("an id is written in lower case with hyphens, such as `redis-cluster`")]
    Id,
    /// One id, two meanings.
    #[error("another entry has this id already; an entry cannot be replaced, only added under another id")]
    Duplicate,
    /// Nothing would ever match it.
    #[error("nothing to recognise it by: give names, commands, processes or ports")]
    Unrecognisable,
    /// A figure without a source is hearsay.
    #[error("no reference: name the vendor's documentation with title and url")]
    NoReference,
    /// A link that nobody can follow.
    #[error("`{0}` is not an http or https address: name a page of the vendor's documentation")]
    Url(String),
    /// The kernel cuts names.
    #[error("process name `{0}` is longer than the 15 characters that the kernel keeps")]
    LongName(String),
    /// A time that cannot be one.
    #[error("{0} is not a time in seconds above zero")]
    Seconds(f64),
    /// A pattern that cannot yield a figure.
    #[error("pattern `{0}` must have exactly one capture group, around the number")]
    CaptureGroups(String),
    /// `with_process` and no process.
    #[error(
        "with_process is set and no process is named: name one under processes, or take with_process out"
    )]
    NoProcess,
}

/// What every kind of entry has.
trait Entry {
    /// Its id.
    fn id(&self) -> &str;
    /// What is wrong with it by itself.
    fn problems(&self) -> Vec<Problem>;
}

impl Catalogues {
    /// The catalogues that vmgate ships.
    ///
    /// # Errors
    /// Only if the program was built from broken catalogues; a test sees to it that it was not.
    pub fn shipped() -> Result<Self, Vec<CatalogueError>> {
        let mut all = Self::default();
        let errors: Vec<_> =
            SHIPPED.into_iter().filter_map(|(file, text)| all.add(file, text).err()).flatten().collect();
        if errors.is_empty() { Ok(all) } else { Err(errors) }
    }

    /// Adds the entries of one more file, named for messages. Adds nothing if anything in it is wrong.
    ///
    /// # Errors
    /// All problems of the file, not just the first.
    pub fn add(&mut self, file: &str, text: &str) -> Result<(), Vec<CatalogueError>> {
        match schema_of(file, text)?.as_str() {
            MemorySyncCatalogue::SCHEMA => {
                let read: MemorySyncCatalogue = parse(file, text)?;
                extend(&mut self.memory_sync, file, read.entries)
            }
            UdpCatalogue::SCHEMA => {
                let read: UdpCatalogue = parse(file, text)?;
                extend(&mut self.udp_services, file, read.entries)
            }
            other => {
                Err(vec![CatalogueError::UnknownSchema { file: file.to_owned(), schema: other.to_owned() }])
            }
        }
    }

    /// Software that watches its peers.
    pub fn memory_sync(&self) -> &[MemorySyncEntry] {
        &self.memory_sync
    }

    /// UDP services.
    pub fn udp_services(&self) -> &[UdpEntry] {
        &self.udp_services
    }
}

fn schema_of(file: &str, text: &str) -> Result<String, Vec<CatalogueError>> {
    #[derive(Deserialize)]
    struct Head {
        schema: String,
    }
    parse(file, text).map(|head: Head| head.schema)
}

fn parse<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, Vec<CatalogueError>> {
    serde_yaml::from_str(text)
        .map_err(|source| vec![CatalogueError::Syntax { file: file.to_owned(), source }])
}

fn extend<T: Entry>(known: &mut Vec<T>, file: &str, new: Vec<T>) -> Result<(), Vec<CatalogueError>> {
    let mut ids: BTreeSet<&str> = known.iter().map(Entry::id).collect();
    let mut errors = Vec::new();
    for entry in &new {
        let mut problems = entry.problems();
        if !is_kebab_case(entry.id()) {
            problems.push(Problem::Id);
        }
        if !ids.insert(entry.id()) {
            problems.push(Problem::Duplicate);
        }
        errors.extend(problems.into_iter().map(|problem| CatalogueError::Entry {
            file: file.to_owned(),
            id: entry.id().to_owned(),
            problem,
        }));
    }
    if errors.is_empty() {
        known.extend(new);
        Ok(())
    } else {
        Err(errors)
    }
}

fn is_kebab_case(id: &str) -> bool {
    id.split('-').all(|part| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    })
}

/// The problem of a process name that no process can have.
fn name_problem(name: &str) -> Option<Problem> {
    (name.len() > KERNEL_NAME_LENGTH).then(|| Problem::LongName(name.to_owned()))
}

/// Characters of a process name that the kernel keeps (TASK_COMM_LEN less the final zero).
const KERNEL_NAME_LENGTH: usize = 15;

fn reference_problems(references: &[Reference]) -> impl Iterator<Item = Problem> + '_ {
    references
        .iter()
        .filter(|reference| !reference.url.starts_with("https://") && !reference.url.starts_with("http://"))
        .map(|reference| Problem::Url(reference.url.clone()))
}

#[cfg(test)]
mod tests;
