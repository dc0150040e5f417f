//! Checks of catalogue entries that their types cannot express.

use std::{collections::BTreeSet, sync::Arc};

use vmgate_documents::{Node, Problem, SourceFile};

use super::{Pattern, PortRange};

/// Characters of a process name that the kernel keeps (TASK_COMM_LEN without the final zero).
const KERNEL_NAME_LENGTH: usize = 15;

/// Check of one entry.
pub(super) struct EntryCheck<'a> {
    file: &'a Arc<SourceFile>,
    /// The entry.
    pub(super) entry: &'a Node,
    found: Vec<Problem>,
}

/// Checks every entry of a catalogue; `known` has the ids of earlier catalogues.
pub(super) fn entries(
    file: &Arc<SourceFile>,
    root: &Node,
    mut known: BTreeSet<String>,
    each: fn(&mut EntryCheck<'_>),
) -> Vec<Problem> {
    let mut found = Vec::new();
    for entry in root.get("entries").map(Node::items).unwrap_or_default() {
        let mut check = EntryCheck { file, entry, found: Vec::new() };
        check.id(&mut known);
        each(&mut check);
        found.append(&mut check.found);
    }
    found
}

impl EntryCheck<'_> {
    /// Reports a problem at a place of the entry.
    pub(super) fn at(&mut self, node: &Node, message: impl Into<String>, label: &str, help: &str) {
        self.found.push(Problem::at(self.file, node.span.clone(), message).label(label).help(help));
    }

    /// Items of a list of the entry; empty if the entry has no such list.
    pub(super) fn items(&self, key: &str) -> Vec<Node> {
        self.entry.get(key).map(Node::items).unwrap_or_default().to_vec()
    }

    fn id(&mut self, known: &mut BTreeSet<String>) {
        let Some(node) = self.entry.get("id").cloned() else { return };
        let Some(id) = node.text() else { return };
        let kebab = id.split('-').all(|word| {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        });
        if !kebab {
            let help = "use lower-case letters, digits and hyphens: `redis-cluster`";
            self.at(&node, format!("`{id}` is not a valid id"), "not kebab-case", help);
        }
        if !known.insert(id.to_owned()) {
            let help = "give your entry another id: an entry cannot be replaced";
            self.at(&node, format!("an entry with the id `{id}` already exists"), "the same id", help);
        }
    }

    /// Checks that at least one of these lists has an item; otherwise the entry could never be recognised.
    pub(super) fn recognisable(&mut self, keys: &[&str]) {
        if keys.iter().all(|key| self.items(key).is_empty()) {
            let help = format!("add at least one of {}", keys.join(", "));
            self.at(&self.entry.clone(), "nothing can match this entry", "this entry", &help);
        }
    }

    /// Checks that process names are not longer than the kernel's.
    pub(super) fn names(&mut self, key: &str) {
        self.names_of(&self.entry.clone(), key);
    }

    /// Checks the process names of a part of the entry.
    pub(super) fn names_of(&mut self, part: &Node, key: &str) {
        for node in part.get(key).map(Node::items).unwrap_or_default().to_vec() {
            let name = node.text().unwrap_or_default();
            let length = name.chars().count();
            if length > KERNEL_NAME_LENGTH {
                let cut: String = name.chars().take(KERNEL_NAME_LENGTH).collect();
                let message = format!(
                    "the process name `{name}` is too long: the kernel keeps {KERNEL_NAME_LENGTH} characters"
                );
                self.at(&node, message, &format!("{length} characters"), &format!("write `{cut}`"));
            } else if name.trim_end_matches('*').trim().is_empty() {
                self.at(
                    &node,
                    "this name matches every process",
                    "nothing before the `*`",
                    "write the name of the process, or its beginning and `*`",
                );
            }
        }
    }

    /// Checks a pattern; `groups` is the required number of capture groups.
    pub(super) fn pattern(&mut self, node: &Node, groups: usize) {
        let Some(text) = node.text() else { return };
        match Pattern::try_from(text.to_owned()) {
            Err(error) => {
                self.at(node, error.to_string(), "not a pattern", "use the syntax of https://docs.rs/regex");
            }
            Ok(pattern) if pattern.groups() != groups => {
                let (message, help) = if groups == 0 {
                    ("this pattern must have no capture group", "write `(?:…)` for a group without a capture")
                } else {
                    (
                        "this pattern must have exactly one capture group",
                        "put brackets around the number: `token: (\\d+)`",
                    )
                };
                self.at(node, message, &format!("{} capture groups", pattern.groups()), help);
            }
            Ok(pattern) if pattern.is_in("") => {
                self.at(
                    node,
                    "this pattern matches every text",
                    "matches even an empty text",
                    "write a text that only this software has",
                );
            }
            Ok(_) => {}
        }
    }

    /// Checks the port ranges.
    pub(super) fn ports(&mut self) {
        for node in self.items("ports") {
            if let Some(Err(error)) = node.text().map(str::parse::<PortRange>) {
                self.at(&node, error.to_string(), "not a port", "write `\"53\"` or `\"67-68\"`");
            }
        }
    }

    /// Checks that a time is more than 0.
    pub(super) fn seconds(&mut self, node: Option<&Node>) {
        if let Some(node) = node
            && node.to_json().as_f64().is_some_and(|seconds| seconds <= 0.0)
        {
            self.at(node, "a time must be more than 0 seconds", "this time", "write a time in seconds");
        }
    }

    /// Checks that the entry has a reference, which is the source of its values.
    pub(super) fn referenced(&mut self) {
        if self.items("references").is_empty() {
            let node = self.entry.get("references").unwrap_or(self.entry).clone();
            let help = "name the vendor's documentation with title and url";
            self.at(&node, "the entry has no reference for its values", "no reference here", help);
        }
    }
}
