//! XML of hypervisors, hosts and guests, read in bounds.
//!
//! The parser compares each attribute with all others of its element, and copies namespaces from element to element: a few
//! megabytes would take it minutes. So both are counted first. Every reader of XML calls [`parse`] (clippy.toml).

use roxmltree::{Document, Error, ParsingOptions};

/// Most bytes of a document: libvirt carries no longer text (VIR_NET_MESSAGE_STRING_MAX).
const MOST_BYTES: usize = 4 << 20;
/// Most elements, texts and comments.
const MOST_NODES: u32 = 200_000;
/// Most attributes of one element; libvirt's have a dozen.
const MOST_ATTRIBUTES: usize = 128;
/// Most declarations of namespaces.
const MOST_NAMESPACES: usize = 128;

/// Parses a document without a document type, so that no entity multiplies the text.
#[allow(clippy::disallowed_methods, reason = "the one place that may")]
pub fn parse(text: &str) -> Result<Document<'_>, Error> {
    if text.len() > MOST_BYTES {
        return Err(Error::NodesLimitReached);
    }
    if text.matches("xmlns").nth(MOST_NAMESPACES).is_some() {
        return Err(Error::NamespacesLimitReached);
    }
    if most_attributes(text) > MOST_ATTRIBUTES {
        return Err(Error::AttributesLimitReached);
    }
    let options = ParsingOptions { allow_dtd: false, nodes_limit: MOST_NODES, ..ParsingOptions::default() };
    Document::parse_with_options(text, options)
}

/// Number of quoted values in the tag that has most of them.
fn most_attributes(text: &str) -> usize {
    let mut most = 0;
    let mut rest = text;
    while let Some((_, markup)) = rest.split_once('<') {
        let skipped =
            [("!--", "-->"), ("![CDATA[", "]]>"), ("?", "?>")].into_iter().find_map(|(begin, end)| {
                let inside = markup.strip_prefix(begin)?;
                Some(inside.split_once(end).map_or("", |(_, after)| after))
            });
        rest = skipped.unwrap_or_else(|| {
            let (values, after) = values_in_tag(markup);
            most = most.max(values);
            after
        });
    }
    most
}

/// Number of quoted values in the tag at the beginning, and the text after the tag.
fn values_in_tag(markup: &str) -> (usize, &str) {
    let mut values = 0;
    let mut rest = markup;
    while let Some(at) = rest.find(['"', '\'', '>']) {
        let (mark, after) = rest.split_at(at).1.split_at(1);
        if mark == ">" {
            return (values, after);
        }
        values += 1;
        rest = after.split_once(mark).map_or("", |(_, after)| after);
    }
    (values, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hypervisors_write_is_read() {
        let text = "<?xml version='1.0'?><!-- it's \"one\" --><domain a=\"x>y\" b='\"'><n>&lt;</n><![CDATA[<']]></domain>";
        let document = parse(text).unwrap();
        assert_eq!(document.root_element().attribute("a"), Some("x>y"));
        assert_eq!(most_attributes(text), 2);
    }

    #[test]
    fn what_would_take_the_parser_for_ever_is_refused() {
        let attributes =
            |count: usize| (0..count).map(|number| format!(" a{number}=''")).collect::<Vec<_>>().concat();
        assert!(parse(&format!("<d{}/>", attributes(128))).is_ok());
        for hidden in ["", "<!-- ' -->", "<![CDATA[ \" ]]>", "<?p '?>", "<a b='\"'/>"] {
            let text = format!("<d>{hidden}<e{}/></d>", attributes(129));
            assert_eq!(parse(&text).unwrap_err(), Error::AttributesLimitReached, "{hidden}");
        }
        let nested =
            (0..200).map(|number| format!("<a xmlns:n{number}='{number}'>")).collect::<Vec<_>>().concat();
        assert_eq!(parse(&nested).unwrap_err(), Error::NamespacesLimitReached);
        assert_eq!(
            parse(&format!("<d>{}</d>", "<a/>".repeat(300_000))).unwrap_err(),
            Error::NodesLimitReached
        );
        assert_eq!(parse(&" ".repeat(MOST_BYTES + 1)).unwrap_err(), Error::NodesLimitReached);
        assert!(parse("<!DOCTYPE d [<!ENTITY a 'b'>]><d>&a;</d>").is_err());
    }

    #[test]
    fn deep_nesting_needs_no_stack() {
        let deep = format!("{}{}", "<a>".repeat(90_000), "</a>".repeat(90_000));
        assert!(parse(&deep).is_ok());
    }
}
