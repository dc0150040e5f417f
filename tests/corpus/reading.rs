//! The reading is complete: the account of elements and attributes is libvirt's schema, and what it calls read is read.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use vmgate_libvirt::{
    accounts::{Account, Accounts, Place},
    domain_xml::{self, DomainConfig, accounts_of_domain, place},
};

use crate::{rng, source};

/// Occurrences of one element or attribute that are changed before it counts as unread.
const MOST_TRIES: usize = 150;

/// Elements and attributes that the reader takes, but of which libvirt's tests have none, or none that makes a difference.
const WITHOUT_SAMPLE: &[&str] = &[
    // Read with what it stands in: a node of the guest with huge pages of its own, a timer that is a TSC.
    "clock/timer@name",
    "memoryBacking/hugepages/page@nodeset",
    // Read of an accelerated VM whose driver is to be vhost.
    "devices/interface/backend@vhost",
    // Read of CD-ROM and floppy drives.
    "devices/disk/source@startupPolicy",
];

fn read(xml: &str) -> Option<DomainConfig> {
    domain_xml::parse(xml).ok()
}

#[test]
#[ignore = "needs libvirt's source"]
fn every_element_and_attribute_of_the_schema_has_an_account() {
    let accounts = accounts_of_domain();
    let schema = rng::read(&source::schema("domain.rng"), place);
    let mut missing = Vec::new();
    let mut total = (0, 0);
    for (path, attributes) in &schema {
        // libvirt lets anything into the metadata, and the root has attributes only.
        if !path.is_empty() && accounts.element(path).is_none() {
            missing.push(path.clone());
        }
        total = (total.0 + 1, total.1 + attributes.len());
        for name in attributes.keys() {
            if accounts.attribute(path, name).is_none() {
                missing.push(format!("{path}@{name}"));
            }
        }
    }
    assert!(total.0 > 700 && total.1 > 1600, "the schema was read whole: {total:?}");
    assert!(missing.is_empty(), "without an account:\n{}", missing.join("\n"));
    println!("{} elements, {} attributes", total.0, total.1);
    let newer = rng::read(&source::newer_schema("domain.rng"), place);
    let gone: Vec<&str> = accounts
        .keys()
        .map(|(key, _)| key)
        .filter(|key| !key.is_empty() && !key.contains('*') && !is_in(&schema, key) && !is_in(&newer, key))
        .collect();
    assert!(gone.is_empty(), "in the account, but not in libvirt's schema: {gone:?}");
}

pub(crate) fn is_in(schema: &rng::Schema, key: &str) -> bool {
    match key.split_once('@') {
        Some((path, name)) => schema.get(path).is_some_and(|attributes| attributes.contains_key(name)),
        None => schema.contains_key(key),
    }
}

#[test]
#[ignore = "needs libvirt's source"]
fn what_the_account_calls_read_makes_a_difference() {
    let texts: Vec<String> = source::domains().into_iter().map(|sample| sample.xml).collect();
    let schema = rng::read(&source::schema("domain.rng"), place);
    let (read_keys, unread) = differences(&texts, (accounts_of_domain(), &schema, place), read);
    let unread: Vec<&String> = unread.iter().filter(|key| !WITHOUT_SAMPLE.contains(&key.as_str())).collect();
    assert!(read_keys > 300, "{read_keys}");
    println!("{read_keys} elements and attributes make a difference");
    assert!(unread.is_empty(), "called read, but nothing changes with them: {unread:#?}");
}

/// Number of the elements and attributes that an account calls read and with which what is read of these documents changes, and those
/// with which it does not.
pub(crate) fn differences<T: PartialEq>(
    texts: &[String],
    (accounts, schema, place): (&Accounts, &rng::Schema, Place),
    read: impl Fn(&str) -> Option<T>,
) -> (usize, Vec<String>) {
    let is_called_read = |key: &str| {
        let account = match key.split_once('@') {
            Some((path, name)) => accounts.attribute(path, name),
            None => accounts.element(key),
        };
        account == Some(Account::Read)
    };
    let mut tries: BTreeMap<String, usize> = BTreeMap::new();
    let mut read_keys = BTreeSet::new();
    for text in texts {
        let before = read(text).unwrap();
        for part in parts(text, schema, place) {
            let tried = tries.entry(part.key.clone()).or_default();
            if !is_called_read(&part.key) || read_keys.contains(&part.key) || *tried >= MOST_TRIES {
                continue;
            }
            *tried += 1;
            let changed = part.replacements.iter().any(|replacement| {
                let mut xml = text.clone();
                xml.replace_range(part.range.clone(), replacement);
                read(&xml).is_some_and(|after| after != before)
            });
            if changed {
                // An element is read where its attributes are.
                read_keys.extend(part.key.split_once('@').map(|(path, _)| path.to_owned()));
                read_keys.insert(part.key);
            }
        }
    }
    let unread = tries.into_keys().filter(|key| is_called_read(key) && !read_keys.contains(key)).collect();
    (read_keys.len(), unread)
}

/// Part of a domain that is changed: its key in the account, its place, and what may stand there instead.
struct Part {
    key: String,
    range: Range<usize>,
    replacements: Vec<String>,
}

fn parts(xml: &str, schema: &rng::Schema, place: Place) -> Vec<Part> {
    let document = vmgate_facts::xml::parse(xml).unwrap();
    let mut found = Vec::new();
    let mut open = vec![(document.root_element(), String::new())];
    while let Some((node, path)) = open.pop() {
        for attribute in node.attributes().filter(|attribute| attribute.namespace().is_none()) {
            let values = schema.get(&path).and_then(|known| known.get(attribute.name()));
            let key = format!("{path}@{}", attribute.name());
            let others = others(attribute.value(), values);
            found.push(Part { key: key.clone(), range: attribute.range_value(), replacements: others });
            found.push(Part { key, range: attribute.range(), replacements: vec![String::new()] });
        }
        if !path.is_empty() {
            let mut replacements = vec![String::new()];
            let text =
                node.first_child().filter(|child| child.text().is_some_and(|text| !text.trim().is_empty()));
            if let Some(text) = text.filter(roxmltree::Node::is_text) {
                let whole = &xml[node.range()];
                let others = others(text.text().unwrap(), None);
                replacements.extend(others.iter().map(|other| whole.replacen(&xml[text.range()], other, 1)));
            }
            found.push(Part { key: path.clone(), range: node.range(), replacements });
        }
        if path != "metadata" {
            let inner =
                node.children().filter(|node| node.is_element() && node.tag_name().namespace().is_none());
            open.extend(inner.map(|child| (child, place(&path, child.tag_name().name()))));
        }
    }
    found
}

/// Other values that the schema allows: those that it lists, or a number or text like the present one.
fn others(value: &str, known: Option<&rng::Values>) -> Vec<String> {
    let listed = known.into_iter().flat_map(|known| &known.listed);
    let mut found: Vec<String> = listed.filter(|other| *other != value).cloned().collect();
    if known.is_none_or(|known| known.open) {
        found.push(match value.trim().parse::<u64>() {
            Ok(number) => (number / 2 + 1).to_string(),
            Err(_) if value.starts_with('/') => format!("/other{value}"),
            Err(_) => format!("{value}x"),
        });
        found.push("1".to_owned());
    }
    found
}

#[test]
#[ignore = "needs libvirt's source"]
fn no_domain_of_libvirts_tests_has_a_part_without_an_account() {
    let samples = source::domains();
    assert!(samples.len() > 2_300, "{} domains were found", samples.len());
    let mut untold: BTreeMap<String, String> = BTreeMap::new();
    for sample in &samples {
        let config =
            domain_xml::parse(&sample.xml).unwrap_or_else(|error| panic!("{}: {error}", sample.name));
        let xml = vmgate_facts::xml::parse(&sample.xml).unwrap();
        let dropped = dropped(xml.root_element());
        let named = |path: &String| config.components.iter().any(|component| component.kind == *path);
        for path in dropped.iter().filter(|path| !named(path)) {
            untold.entry(path.clone()).or_insert_with(|| sample.name.clone());
        }
    }
    println!("{} domains", samples.len());
    assert!(untold.is_empty(), "neither accounted for nor told by name: {untold:#?}");
}

/// Parts without an account, walked here apart from the reader.
fn dropped(domain: roxmltree::Node) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![(domain, String::new(), String::new())];
    while let Some((node, path, shown)) = open.pop() {
        for child in node.children().filter(|node| node.is_element() && node.tag_name().namespace().is_none())
        {
            let name = child.tag_name().name();
            let (place, shown) =
                (place(&path, name), format!("{shown}/{name}").trim_start_matches('/').to_owned());
            match accounts_of_domain().element(&place) {
                None | Some(Account::Unknown(_)) => found.push(shown),
                Some(_) if place == "metadata" => {}
                Some(_) => {
                    let attributes = child.attributes().filter(|attribute| attribute.namespace().is_none());
                    let unlisted = attributes.filter(|attribute| {
                        accounts_of_domain().attribute(&place, attribute.name()).is_none()
                    });
                    found.extend(unlisted.map(|attribute| format!("{shown}/@{}", attribute.name())));
                    open.push((child, place, shown));
                }
            }
        }
    }
    // The reader tells the first of very many.
    found.truncate(64);
    found
}
