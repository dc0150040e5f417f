//! Elements of XML that is written: copied from what was read, or made anew.

use std::fmt::{self, Write as _};

use roxmltree::Node;

/// Element with its attributes and all that it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Element {
    name: String,
    attributes: Vec<(String, String)>,
    text: String,
    children: Vec<Element>,
}

impl Element {
    /// An empty element.
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), attributes: Vec::new(), text: String::new(), children: Vec::new() }
    }

    /// The same element with one attribute more, or another value of it.
    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.attributes.retain(|(known, _)| known != name);
        self.attributes.push((name.to_owned(), value.into()));
        self
    }

    /// The same element with this text in it.
    pub(super) fn saying(mut self, text: impl Into<String>) -> Self {
        self.text = text.into();
        self
    }

    /// The same element with these inside, behind those that it has.
    pub(super) fn holding(mut self, children: impl IntoIterator<Item = Self>) -> Self {
        self.children.extend(children);
        self
    }

    /// A copy with all that it holds, but for aliases, which libvirt gives anew, and what belongs to another program.
    pub(super) fn copy(node: Node) -> Self {
        let children = node.children().filter(|child| is_libvirts(*child) && !child.has_tag_name("alias"));
        let text = node.text().map(str::trim).unwrap_or_default();
        Self::shell(node).saying(text).holding(children.map(Self::copy))
    }

    /// A copy with its attributes alone.
    pub(super) fn shell(node: Node) -> Self {
        let attributes = node.attributes().filter(|attribute| attribute.namespace().is_none());
        let attributes =
            attributes.map(|attribute| (attribute.name().to_owned(), attribute.value().to_owned()));
        Self { attributes: attributes.collect(), ..Self::new(node.tag_name().name()) }
    }

    /// A copy with those of its attributes that are named.
    pub(super) fn only(node: Node, attributes: &[&str]) -> Self {
        let mut shell = Self::shell(node);
        shell.attributes.retain(|(name, _)| attributes.contains(&name.as_str()));
        shell
    }

    /// The same element without those of its children.
    pub(super) fn without(mut self, children: &[&str]) -> Self {
        self.children.retain(|child| !children.contains(&child.name.as_str()));
        self
    }
}

/// True for an element of libvirt's own.
pub(super) fn is_libvirts(node: Node) -> bool {
    node.is_element() && node.tag_name().namespace().is_none()
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}", self.name)?;
        for (name, value) in &self.attributes {
            write!(f, " {name}='{}'", Escaped(value))?;
        }
        if self.text.is_empty() && self.children.is_empty() {
            return f.write_str("/>");
        }
        write!(f, ">{}", Escaped(&self.text))?;
        self.children.iter().try_for_each(|child| child.fmt(f))?;
        write!(f, "</{}>", self.name)
    }
}

/// Text as it stands in XML, in an element or in an attribute.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '\'' => f.write_str("&apos;"),
            '\n' | '\t' | '\r' => write!(f, "&#{};", u32::from(character)),
            _ => f.write_char(character),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_copied_reads_as_before_but_for_aliases() {
        let text = "<a x='1 &lt; 2 &amp; &apos;3&apos;'><alias name='n'/><b>t&gt;u</b><c/></a>";
        let document = vmgate_facts::xml::parse(text).unwrap();
        let copied = Element::copy(document.root_element()).to_string();
        assert_eq!(copied, text.replace("<alias name='n'/>", ""));
        let hostile = Element::new("a").with("x", "'/><b y='\n").saying("</a>").to_string();
        let again = vmgate_facts::xml::parse(&hostile).unwrap();
        assert_eq!(again.root_element().attribute("x"), Some("'/><b y='\n"));
        assert_eq!(again.root_element().text(), Some("</a>"));
    }
}
