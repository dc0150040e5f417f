//! Account of the elements and attributes of a document: read into facts, without effect on a migration, or known to matter
//! without a fact. What no account lists is told by its path.
//!
//! An account is a text: sections begin with `[read]`, `[no effect: REASON]` or `[unknown: REASON]`; a line has the path of an
//! element, or of an element and attributes of it (`@name`, or `@name=a|b` where other values are to be told).

mod document;

use std::collections::{BTreeMap, HashMap};

pub use document::Document;
use roxmltree::Node;
use vmgate_facts::text::plain;

/// Deepest element that is accounted for: libvirt allows 200 images below each other.
const DEEPEST: usize = 512;

/// Most unread elements that are told; a document with more is not read any better by naming them.
pub(crate) const MOST_UNREAD: usize = 64;

/// Paths of what was not read, with the reason for which one that is known may matter.
pub(crate) type Unread = BTreeMap<String, Option<&'static str>>;

/// Path in the account of an element with this name below another.
pub type Place = fn(&str, &str) -> String;

/// The path of an element where elements are described by their own names alone.
pub fn place(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") }
}

/// Account of one element, attribute or value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Account {
    /// Read into facts.
    Read,
    /// Without effect on a migration, for this reason.
    NoEffect(&'static str),
    /// Possibly an obstacle that no fact shows, for this reason.
    Unknown(&'static str),
}

/// Accounts of a kind of document.
#[derive(Debug, Default)]
pub struct Accounts {
    entries: HashMap<String, Account>,
    /// Values by attribute, of attributes whose other values are to be told.
    values: HashMap<String, Vec<&'static str>>,
}

impl Accounts {
    /// Reads an account.
    pub fn new(text: &'static str) -> Self {
        let mut accounts = Self::default();
        let mut section = Account::Read;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(heading) = line.strip_prefix('[') {
                section = match heading.trim_end_matches(']').split_once(": ") {
                    Some(("no effect", reason)) => Account::NoEffect(reason),
                    Some((_, reason)) => Account::Unknown(reason),
                    None => Account::Read,
                };
                continue;
            }
            accounts.add(line, section);
        }
        accounts
    }

    fn add(&mut self, line: &'static str, section: Account) {
        // Attributes of the root element stand alone.
        let (path, attributes) = line
            .strip_prefix('@')
            .map_or_else(|| line.split_once(" @").unwrap_or((line, "")), |rest| ("", rest));
        if attributes.is_empty() {
            self.entries.insert(path.to_owned(), section);
            return;
        }
        for attribute in attributes.split(" @") {
            let (name, values) = attribute.split_once('=').unwrap_or((attribute, ""));
            let key = format!("{path}@{name}");
            if !values.is_empty() {
                self.values.insert(key.clone(), values.split('|').collect());
            }
            self.entries.insert(key, section);
        }
        self.entries.entry(path.to_owned()).or_insert(section);
    }

    /// Account of an element; none for one that is not listed.
    pub fn element(&self, path: &str) -> Option<Account> {
        self.entry(path, "")
    }

    /// Account of an attribute; none for one that is not listed.
    pub fn attribute(&self, path: &str, name: &str) -> Option<Account> {
        self.entry(path, &format!("@{name}"))
    }

    /// False if the account lists the values of an attribute, and not this one.
    pub fn has_value(&self, path: &str, name: &str, value: &str) -> bool {
        let attribute = format!("@{name}");
        let key = std::iter::once(format!("{path}{attribute}")).chain(of_any_device(path, &attribute));
        let values = key.into_iter().find_map(|key| self.values.get(&key));
        values.is_none_or(|values| values.contains(&value))
    }

    fn entry(&self, path: &str, attribute: &str) -> Option<Account> {
        let own = self.entries.get(&format!("{path}{attribute}"));
        own.or_else(|| self.entries.get(&of_any_device(path, attribute)?)).copied()
    }

    /// Paths of elements and attributes below `root` that are not accounted for, each once and in order.
    pub(crate) fn unread(&self, root: Node, place: Place) -> Unread {
        let mut walk = Walk { accounts: self, place, found: Unread::new() };
        walk.attributes(root, "", "");
        walk.children(root, 0, "", "");
        walk.found
    }

    /// Keys of the account, for tests of it.
    pub fn keys(&self) -> impl Iterator<Item = (&str, Account)> {
        self.entries.iter().map(|(key, account)| (key.as_str(), *account))
    }

    /// Values of an attribute, where the account lists them.
    pub fn values(&self, key: &str) -> Option<&[&'static str]> {
        self.values.get(key).map(Vec::as_slice)
    }
}

/// Key of the entry for any device (`devices/*/alias`).
fn of_any_device(path: &str, attribute: &str) -> Option<String> {
    let (_, part) = path.strip_prefix("devices/")?.split_once('/')?;
    Some(format!("devices/*/{part}{attribute}"))
}

struct Walk<'a> {
    accounts: &'a Accounts,
    place: Place,
    found: Unread,
}

impl Walk<'_> {
    fn children(&mut self, parent: Node, depth: usize, shown: &str, place_of_parent: &str) {
        for node in parent.children().filter(Node::is_element) {
            let tag = node.tag_name();
            // Elements for QEMU are components by themselves; others of foreign namespaces are for other programs.
            if tag.namespace().is_some() || self.found.len() >= MOST_UNREAD {
                continue;
            }
            let name = place(shown, tag.name());
            let path = (self.place)(place_of_parent, tag.name());
            match self.accounts.element(&path) {
                // Anybody may write anything into the metadata.
                Some(_) if path == "metadata" => {}
                Some(Account::Unknown(reason)) => {
                    self.found.insert(plain(&name), Some(reason));
                }
                Some(_) if depth > DEEPEST => {
                    let top = name.split('/').take(3).collect::<Vec<_>>().join("/");
                    self.found.insert(plain(&format!("{top} (nested deeper than {DEEPEST} elements)")), None);
                }
                Some(_) => {
                    self.attributes(node, &name, &path);
                    self.children(node, depth + 1, &name, &path);
                }
                None => {
                    self.found.insert(plain(&name), None);
                }
            }
        }
    }

    fn attributes(&mut self, node: Node, shown: &str, path: &str) {
        for attribute in node.attributes().filter(|attribute| attribute.namespace().is_none()) {
            let (name, value) = (attribute.name(), attribute.value());
            let told = match self.accounts.attribute(path, name) {
                Some(Account::Unknown(reason)) => Some(reason),
                Some(_) if self.accounts.has_value(path, name, value) => continue,
                _ => None,
            };
            let listed = self.accounts.attribute(path, name).is_some();
            let value = if listed { format!("={value}") } else { String::new() };
            self.found.insert(plain(&format!("{shown}/@{name}{value}")), told);
        }
    }
}
