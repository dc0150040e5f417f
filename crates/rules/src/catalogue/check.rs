//! What is wrong with an entry of a catalogue beyond its shape, each at its place.

use std::{collections::BTreeSet, sync::Arc};

use super::{Pattern, PortRange};
use vmgate_documents::{Node, Problem, SourceFile};

/// Characters of a process name that the kernel keeps (TASK_COMM_LEN less the final zero).
const KERNEL_NAME_LENGTH: usize = 15;

/// One entry while it is checked.
pub(super) struct Check<'a> {
    file: &'a Arc<SourceFile>,
    /// The entry.
    pub(super) entry: &'a Node,
    found: Vec<Problem>,
}

/// Checks every entry of a catalogue; `known` are the ids of those before it.
pub(super) fn entries(
    file: &Arc<SourceFile>,
    root: &Node,
    mut known: BTreeSet<String>,
    each: fn(&mut Check<'_>),
) -> Vec<Problem> {
    let mut found = Vec::new();
    for entry in root.get("entries").map(Node::items).unwrap_or_default() {
        let mut check = Check { file, entry, found: Vec::new() };
        check.id(&mut known);
        each(&mut check);
        found.append(&mut check.found);
    }
    found
}

impl Check<'_> {
    /// A problem at a place of the entry.
    pub(super) fn at(&mut self, node: &Node, message: impl Into<String>, label: &str, help: &str) {
        self.found.push(Problem::at(self.file, node.span.clone(), message).label(label).help(help));
    }

    /// The items of one of its lists; none where it has none.
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
            let help = "small letters, digits and hyphens: `redis-cluster`";
            self.at(&node, format!("`{id}` is not an id"), "not kebab-case", help);
        }
        if !known.insert(id.to_owned()) {
            let help = "an entry cannot be replaced: add yours under another id";
            self.at(&node, format!("there is an entry `{id}` already"), "the same id", help);
        }
    }

    /// At least one of these lists has an item, or nothing would ever be recognised.
    pub(super) fn recognisable(&mut self, keys: &[&str]) {
        if keys.iter().all(|key| self.items(key).is_empty()) {
            let help = format!("give one of {}", keys.join(", "));
            self.at(&self.entry.clone(), "there is nothing to recognise it by", "this entry", &help);
        }
    }

    /// Names of processes are as long as the kernel keeps them.
    pub(super) fn names(&mut self, key: &str) {
        for node in self.items(key) {
            let name = node.text().unwrap_or_default();
            let length = name.chars().count();
            if length > KERNEL_NAME_LENGTH {
                let cut: String = name.chars().take(KERNEL_NAME_LENGTH).collect();
                let message = format!(
                    "no process is called `{name}`: the kernel keeps {KERNEL_NAME_LENGTH} characters"
                );
                self.at(&node, message, &format!("{length} characters"), &format!("write `{cut}`"));
            } else if name.trim_end_matches('*').trim().is_empty() {
                self.at(
                    &node,
                    "every process is called like this",
                    "nothing before the star",
                    "name the process",
                );
            }
        }
    }

    /// A pattern; `groups` are the capture groups it must have.
    pub(super) fn pattern(&mut self, node: &Node, groups: usize) {
        let Some(text) = node.text() else { return };
        match Pattern::try_from(text.to_owned()) {
            Err(error) => {
                self.at(
                    node,
                    error.to_string(),
                    "not a pattern",
                    "the syntax is that of https://docs.rs/regex",
                );
            }
            Ok(pattern) if pattern.groups() != groups => {
                let (message, help) = if groups == 0 {
                    (
                        "this pattern captures what nobody reads",
                        "write `(?:…)` for a group that captures nothing",
                    )
                } else {
                    (
                        "this pattern must have exactly one group",
                        "put brackets around the number: `token: (\\d+)`",
                    )
                };
                self.at(node, message, &format!("{} groups", pattern.groups()), help);
            }
            Ok(pattern) if pattern.is_in("") => {
                self.at(
                    node,
                    "this pattern is found in every text",
                    "it fits nothing",
                    "name what it looks for",
                );
            }
            Ok(_) => {}
        }
    }

    /// Ports as they are written.
    pub(super) fn ports(&mut self) {
        for node in self.items("ports") {
            if let Some(Err(error)) = node.text().map(str::parse::<PortRange>) {
                self.at(&node, error.to_string(), "no port", "write `\"53\"` or `\"67-68\"`");
            }
        }
    }

    /// A time is more than nothing.
    pub(super) fn seconds(&mut self, node: Option<&Node>) {
        if let Some(node) = node
            && node.to_json().as_f64().is_some_and(|seconds| seconds <= 0.0)
        {
            self.at(
                node,
                "a time must be above zero",
                "in seconds",
                "leave it out where the vendor names none",
            );
        }
    }

    /// A figure without a source is hearsay.
    pub(super) fn referenced(&mut self) {
        if self.items("references").is_empty() {
            let node = self.entry.get("references").unwrap_or(self.entry).clone();
            let help = "name the vendor's documentation with title and url";
            self.at(&node, "there is no reference for its figures", "none here", help);
        }
    }
}
