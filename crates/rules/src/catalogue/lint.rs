//! Style checks of catalogues.

use std::collections::BTreeMap;

use vmgate_documents::{Node, Problem};

use super::CatalogueFile;
use crate::lint::reference_faults;

/// Returns a warning for everything in a catalogue that is not good style.
pub(super) fn lint(file: &CatalogueFile) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut warn = |node: &Node, message: String, label: &str, help: &str| {
        found.push(Problem::at(&file.source, node.span.clone(), message).label(label).help(help).warning());
    };
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    for (id, entry) in file.entries() {
        for (key, least, help) in [
            ("title", 2, "write the name that people use"),
            ("why", 12, "explain in a sentence what happens to a lost datagram"),
            ("detector", 8, "write the setting or mechanism, and its default"),
            ("ready", 12, "write the command that tells, and what it says then"),
            ("stop", 6, "write the command that takes the software out of service"),
            ("start", 6, "write the command that puts the software back into service"),
        ] {
            let Some(node) = entry.get(key) else { continue };
            let text = node.text().unwrap_or_default();
            if text.trim().chars().count() < least {
                warn(node, format!("`{key}` of {id} has fewer than {least} characters"), "this text", help);
            } else if text.ends_with('.') {
                warn(
                    node,
                    format!("`{key}` of {id} ends with a full stop"),
                    "at its end",
                    "remove the full stop: the text is put into sentences",
                );
            }
        }
        for setting in entry.get("files").map(Node::items).unwrap_or_default() {
            if let Some(node) = setting.get("file")
                && !node.text().is_some_and(|path| path.starts_with('/'))
            {
                warn(
                    node,
                    format!("a file of {id} has no absolute path"),
                    "not an absolute path",
                    "begin the path with /",
                );
            }
        }
        for reference in entry.get("references").map(Node::items).unwrap_or_default() {
            for (node, message, help) in reference_faults(reference) {
                warn(node, message, "this reference", help);
            }
        }
        let names = ["names", "processes"].into_iter().filter_map(|key| entry.get(key)).flat_map(Node::items);
        for node in names {
            let name = node.text().unwrap_or_default().to_owned();
            match owners.get(&name) {
                Some(other) if other == id => {
                    warn(node, format!("{id} names `{name}` twice"), "again", "remove one of them");
                }
                Some(other) => {
                    let message = format!("{id} and {other} both claim the process `{name}`");
                    warn(
                        node,
                        message,
                        "claimed before",
                        "tell them apart by a pattern for their command lines",
                    );
                }
                None => drop(owners.insert(name, id.to_owned())),
            }
        }
    }
    found
}
