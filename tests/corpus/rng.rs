//! Every element and attribute that a RELAX NG schema of libvirt allows, by the reader's own paths.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs,
    path::Path,
};

use roxmltree::{Document, Node, ParsingOptions};

/// Attributes of each element, by path.
pub(crate) type Schema = BTreeMap<String, BTreeMap<String, Values>>;

/// Values that the schema allows for an attribute.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Values {
    /// Values that it lists.
    pub(crate) listed: BTreeSet<String>,
    /// True if others are allowed.
    pub(crate) open: bool,
}

type Reader = fn(&str, &str) -> String;

/// Reads a schema. `place` is the reader's path of an element, given that of its parent and its name.
pub(crate) fn read(file: &Path, place: Reader) -> Schema {
    let mut texts = Vec::new();
    load(file, &mut texts, &mut HashSet::new());
    let documents: Vec<Document> = texts.iter().map(|text| parse(text)).collect();
    let mut walk = Walk { definitions: HashMap::new(), place, seen: HashSet::new(), schema: Schema::new() };
    for document in &documents {
        for node in document.root_element().children().filter(|node| node.has_tag_name("define")) {
            walk.definitions.entry(node.attribute("name").unwrap()).or_default().push(node);
        }
    }
    let start = documents[0].root_element().children().find(|node| node.has_tag_name("start"));
    walk.inside(start.unwrap(), "");
    walk.schema
}

/// The schema and those that it includes.
fn load(file: &Path, texts: &mut Vec<String>, seen: &mut HashSet<String>) {
    if !seen.insert(file.display().to_string()) {
        return;
    }
    let text = fs::read_to_string(file).unwrap();
    let includes: Vec<String> = parse(&text)
        .descendants()
        .filter(|node| node.has_tag_name("include"))
        .map(|node| node.attribute("href").unwrap().to_owned())
        .collect();
    texts.push(text);
    for include in includes {
        load(&file.with_file_name(include), texts, seen);
    }
}

#[allow(clippy::disallowed_methods, reason = "a schema of libvirt's own, larger than what hosts send")]
fn parse(text: &str) -> Document<'_> {
    Document::parse_with_options(text, ParsingOptions::default()).unwrap()
}

struct Walk<'a, 'input> {
    definitions: HashMap<&'a str, Vec<Node<'a, 'input>>>,
    place: Reader,
    /// Patterns that were walked, by path: schemas are recursive.
    seen: HashSet<(String, usize)>,
    schema: Schema,
}

impl<'a, 'input> Walk<'a, 'input> {
    fn inside(&mut self, pattern: Node<'a, 'input>, path: &str) {
        for node in pattern.children().filter(Node::is_element) {
            match node.tag_name().name() {
                "element" => self.element(node, path),
                "attribute" => self.attribute(node, path),
                "ref" => {
                    for definition in self.definitions[node.attribute("name").unwrap()].clone() {
                        if self.seen.insert((
                            path.to_owned(),
                            definition.range().start + definition.document().input_text().len(),
                        )) {
                            self.inside(definition, path);
                        }
                    }
                }
                "value" | "data" | "text" | "param" | "list" => {}
                _ => self.inside(node, path),
            }
        }
    }

    fn element(&mut self, node: Node<'a, 'input>, path: &str) {
        // Elements of other namespaces are for QEMU or other hypervisors; the reader treats them apart.
        if node.attribute("ns").is_some_and(|namespace| !namespace.is_empty()) {
            return;
        }
        for name in names(node) {
            // The root has no path; its children's paths begin with their own names.
            let inner = if path.is_empty() && self.schema.is_empty() {
                String::new()
            } else {
                (self.place)(path, &name)
            };
            self.schema.entry(inner.clone()).or_default();
            if self.seen.insert((inner.clone(), node.range().start + node.document().input_text().len())) {
                self.inside(node, &inner);
            }
        }
    }

    fn attribute(&mut self, node: Node<'a, 'input>, path: &str) {
        for name in names(node) {
            let mut values = Values::default();
            self.values(node, &mut values, &mut HashSet::new());
            // An attribute without a pattern takes any text.
            values.open |= values.listed.is_empty();
            let known = self.schema.entry(path.to_owned()).or_default().entry(name).or_default();
            known.listed.extend(values.listed);
            known.open |= values.open;
        }
    }

    fn values(&self, pattern: Node<'a, 'input>, values: &mut Values, seen: &mut HashSet<&'a str>) {
        for node in pattern.children().filter(Node::is_element) {
            match node.tag_name().name() {
                "value" => {
                    values.listed.insert(node.text().unwrap_or_default().trim().to_owned());
                }
                "data" | "text" => values.open = true,
                "ref" => {
                    let name = node.attribute("name").unwrap();
                    if seen.insert(name) {
                        for definition in &self.definitions[name] {
                            self.values(*definition, values, seen);
                        }
                    }
                }
                "name" => {}
                _ => self.values(node, values, seen),
            }
        }
    }
}

/// Names of an element or attribute; none where any name is allowed.
fn names(node: Node) -> Vec<String> {
    if let Some(name) = node.attribute("name") {
        return vec![name.to_owned()];
    }
    let class = node.children().find(Node::is_element);
    let choice = class.filter(|class| class.has_tag_name("choice"));
    choice
        .into_iter()
        .flat_map(|choice| choice.children())
        .filter(|node| node.has_tag_name("name"))
        .filter_map(|node| node.text())
        .map(|name| name.trim().to_owned())
        .collect()
}
