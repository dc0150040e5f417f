//! Look-ups in YAML, JSON and XML, which are parsed in bounds of size, nesting and aliases.

use roxmltree::Document;
use serde_json::Value;
use vmgate_facts::xml;

pub(crate) use super::yaml::parse as yaml;

/// Longest dotted key that is looked up.
const DEEPEST: usize = 8;

/// The scalar at a dotted key, as text. The key's parts may be nested or dotted: Elasticsearch accepts both.
pub(crate) fn scalar(value: &Value, key: &str) -> Option<String> {
    find(value, key, 0)?.as_str().map(str::to_owned)
}

fn find<'a>(value: &'a Value, key: &str, depth: usize) -> Option<&'a Value> {
    if depth > DEEPEST {
        return None;
    }
    let map = value.as_object()?;
    if let Some(found) = map.get(key) {
        return Some(found);
    }
    key.match_indices('.').find_map(|(at, _)| {
        let (first, rest) = (key.get(..at)?, key.get(at + 1..)?);
        find(map.get(first)?, rest, depth + 1)
    })
}

/// The value of an attribute of each element whose name `wanted` accepts; if the attribute is absent, the text of the
/// child element of that name.
pub(crate) fn attributes(text: &str, wanted: impl Fn(&str) -> bool, attribute: &str) -> Vec<String> {
    with_xml(text, |document| {
        let elements =
            document.descendants().filter(|node| node.is_element() && wanted(node.tag_name().name()));
        elements
            .filter_map(|element| {
                let within = || {
                    let child = element.children().find(|child| child.tag_name().name() == attribute)?;
                    child.text()
                };
                element.attribute(attribute).or_else(within).map(str::to_owned)
            })
            .collect()
    })
}

/// The `value`, or else the text, of the last element with that `name`: `<property name="…" value="…"/>`.
pub(crate) fn property(text: &str, name: &str) -> Option<String> {
    with_xml(text, |document| {
        let elements = document.descendants().filter(|node| node.attribute("name") == Some(name));
        elements
            .filter_map(|node| node.attribute("value").or_else(|| node.text()).map(str::to_owned))
            .collect()
    })
    .pop()
}

/// As [`property`], for all properties directly within elements whose `type` is accepted by `wanted`.
pub(crate) fn property_within(text: &str, wanted: impl Fn(&str) -> bool, name: &str) -> Vec<String> {
    with_xml(text, |document| {
        let elements = document.descendants().filter(|node| node.attribute("type").is_some_and(&wanted));
        let properties = elements.flat_map(|node| node.children().collect::<Vec<_>>());
        properties
            .filter(|node| node.attribute("name") == Some(name))
            .filter_map(|node| node.attribute("value").or_else(|| node.text()).map(str::to_owned))
            .collect()
    })
}

fn with_xml(text: &str, read: impl FnOnce(&Document<'_>) -> Vec<String>) -> Vec<String> {
    xml::parse(text).map(|document| read(&document)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::guest::software::format::tree::*;

    #[test]
    fn yaml_and_json_are_read_nested_and_dotted() {
        for text in [
            "a:\n  b.c: 10s # comment\n  d: [1, 2]\n",
            "a.b.c: 10s",
            "{\"a\": {\"b\": {\"c\": \"10s\"}}}",
            "base: &base {c: 10s}\na:\n  b: *base\n",
            "base: &base {c: 10s, d: 1}\na:\n  b:\n    <<: *base\n    d: 2\n",
            "base: &base [{c: 10s}, {c: 5s}]\na:\n  b: {<<: *base}\n",
        ] {
            assert_eq!(scalar(&yaml(text).unwrap(), "a.b.c").as_deref(), Some("10s"), "{text}");
        }
        assert_eq!(scalar(&yaml("t: 1500").unwrap(), "t").as_deref(), Some("1500"));
        assert_eq!(scalar(&yaml("t: {u: 1}").unwrap(), "t"), None);
        assert_eq!(scalar(&yaml("t: ~").unwrap(), "t"), None);
        for unclear in ["", "t: 1\nt: 2", "a: 1\n---\na: 2", "a: *b", "{[a]: b}", "a: [", "a: &b [*b]"] {
            assert_eq!(yaml(unclear), None, "{unclear}");
        }
    }

    #[test]
    fn xml_is_read_by_attribute_and_by_element() {
        let text = "<s xmlns='urn:x'><FD_ALL3 timeout='5000'/><protocol type='FD_ALL'><timeout>7</timeout></protocol>\
                    <property name='a' value='1'/><property name='b'> 2 </property></s>";
        assert_eq!(attributes(text, |name| name.starts_with("FD_ALL"), "timeout"), ["5000"]);
        assert_eq!(attributes(text, |name| name == "protocol", "timeout"), ["7"]);
        assert_eq!(property(text, "a").as_deref(), Some("1"));
        assert_eq!(property(text, "b").as_deref(), Some(" 2 "));
    }

    #[test]
    fn bombs_do_not_go_off() {
        let mut laughs = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..12 {
            let before = level - 1;
            let nine = format!("*a{before},").repeat(9);
            laughs.extend(["a", &level.to_string(), ": &a", &level.to_string(), " [", &nine, "]\n"]);
        }
        assert_eq!(yaml(&laughs), None);
        assert_eq!(yaml(&"[".repeat(100_000)), None);
        assert_eq!(yaml(&"{\"a\":".repeat(50_000)), None);
        assert!(attributes(&"<a>".repeat(80_000), |_| true, "x").is_empty());
        let dtd = "<!DOCTYPE a [<!ENTITY b 'c'>]><a x='1'/>";
        assert!(attributes(dtd, |_| true, "x").is_empty());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,100}", near in "[a{}\\[\\]<>/&*:'\"=! \n-]{0,120}") {
            for text in [text, near] {
                let _ = yaml(&text).map(|value| scalar(&value, "a.a"));
                let _ = attributes(&text, |_| true, "a");
                let _ = property(&text, "a");
            }
        }
    }
}
