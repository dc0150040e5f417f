//! Account of the elements and attributes of a document: read into facts, without effect on a migration, or known to matter
//! without a fact. What no account lists is told by its path.
//!
//! An account is a text: sections begin with `[read]`, `[no effect: REASON]` or `[unknown: REASON]`; a line has the path of an
//! element, or of an element and attributes of it (`@name`, or `@name=a|b` where other values are to be told).

use std::collections::HashMap;

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
