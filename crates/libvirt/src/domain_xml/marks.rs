//! Marks that the program which defined a VM left in its configuration: metadata in namespaces of its own, and the product
//! name in the firmware's tables.

use roxmltree::Node;
use vmgate_facts::{MetadataElement, VmMarks, text::plain};

use super::{child, children};

/// Most elements of metadata that are told, and most characters of one's text: marks are few and short.
const MOST_ELEMENTS: usize = 200;
const MOST_CHARACTERS: usize = 200;

/// The marks of a domain.
pub(super) fn of(domain: Node) -> VmMarks {
    let metadata = child(domain, "metadata").map(elements).unwrap_or_default();
    let product = children(domain, "sysinfo")
        .filter_map(|sysinfo| child(sysinfo, "system"))
        .flat_map(|system| children(system, "entry"))
        .find(|entry| entry.attribute("name") == Some("product"))
        .and_then(|entry| entry.text())
        .map(|text| cut(text.trim()));
    VmMarks { metadata, product, monitor: None }
}

/// Elements with a namespace, depth first; those below an element of the domain's own kind belong to the metadata, too.
fn elements(metadata: Node) -> Vec<MetadataElement> {
    let below = metadata.descendants().filter(|node| node.is_element() && *node != metadata);
    let told = below.filter_map(|node| {
        let namespace = plain(node.tag_name().namespace()?);
        let mut names: Vec<&str> = node
            .ancestors()
            .take_while(|above| *above != metadata)
            .map(|above| above.tag_name().name())
            .collect();
        names.reverse();
        let text = node.text().unwrap_or_default().trim();
        Some(MetadataElement { namespace, path: cut(&names.join("/")), text: cut(text) })
    });
    told.take(MOST_ELEMENTS).collect()
}

fn cut(text: &str) -> String {
    plain(&text.chars().take(MOST_CHARACTERS).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_text(xml: &str) -> VmMarks {
        of(vmgate_facts::xml::parse(xml).unwrap().root_element())
    }

    #[test]
    fn metadata_and_product_are_read() {
        let marks = of_text(
            "<domain><sysinfo type='fwcfg'><entry name='product'>no</entry></sysinfo>
             <sysinfo type='smbios'><system><entry name='product'> OpenStack Nova </entry></system></sysinfo>
             <metadata><plain>x</plain><n:instance xmlns:n='urn:n'><n:owner><n:project>web</n:project></n:owner></n:instance></metadata></domain>",
        );
        assert_eq!(marks.product.as_deref(), Some("OpenStack Nova"));
        let told: Vec<(&str, &str)> =
            marks.metadata.iter().map(|one| (one.path.as_str(), one.text.as_str())).collect();
        assert_eq!(told, [("instance", ""), ("instance/owner", ""), ("instance/owner/project", "web")]);
        assert!(marks.metadata.iter().all(|one| one.namespace == "urn:n"));
    }

    #[test]
    fn hostile_metadata_is_cut() {
        let many = "<a:b xmlns:a='u'/>".repeat(100) + &"<c xmlns='v'><d/></c>".repeat(27);
        assert!(
            of_text(&format!("<domain><metadata>{many}</metadata></domain>")).metadata.len() <= MOST_ELEMENTS
        );
        let long =
            format!("<domain><metadata><a xmlns='u'>{}</a></metadata></domain>", "x\u{9b}".repeat(900));
        assert_eq!(of_text(&long).metadata[0].text.chars().count(), MOST_CHARACTERS);
        assert_eq!(of_text("<domain/>"), VmMarks::default());
    }
}
