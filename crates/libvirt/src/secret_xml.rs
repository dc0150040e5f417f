//! Parser of libvirt's XML of a secret: the names by which a domain can refer to it.

use vmgate_facts::text::plain;

use super::domain_xml::child;

/// UUID and usage of a secret, those that it has. The error is the parser's.
pub fn names(xml: &str) -> Result<Vec<String>, roxmltree::Error> {
    let document = vmgate_facts::xml::parse(xml)?;
    let root = document.root_element();
    let usage = child(root, "usage");
    let usage = ["name", "volume", "target"].iter().find_map(|kind| child(usage?, kind));
    Ok([child(root, "uuid"), usage].into_iter().flatten().filter_map(|node| node.text()).map(plain).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_and_usage_are_read() {
        let xml = "<secret ephemeral='no' private='yes'><uuid>u-1</uuid><usage type='ceph'><name>client.x</name></usage></secret>";
        assert_eq!(names(xml).unwrap(), ["u-1", "client.x"]);
        assert_eq!(
            names("<secret><usage type='volume'><volume>/a</volume></usage></secret>").unwrap(),
            ["/a"]
        );
        assert!(names("<secret/>").unwrap().is_empty());
        assert!(names("<secret").is_err());
    }
}
