//! Parser of libvirt's XML of a volume of a storage pool.

use vmgate_facts::text::plain;

use super::domain_xml::child;

/// Volume of a storage pool, as a disk's source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Type of the source: file, block, dir, network.
    pub kind: String,
    /// Path of the file or device.
    pub path: String,
}

/// Reads a volume XML; none where it names no path. The error is the parser's.
pub fn parse(xml: &str) -> Result<Option<Volume>, roxmltree::Error> {
    let document = vmgate_facts::xml::parse(xml)?;
    let root = document.root_element();
    let path = child(root, "target").and_then(|target| child(target, "path")).and_then(|path| path.text());
    let kind = root.attribute("type").unwrap_or("file");
    Ok(path.map(|path| Volume { kind: plain(kind), path: plain(path) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_and_type_are_read() {
        let xml = "<volume type='block'><name>v</name><target><path>/dev/vg/v</path></target></volume>";
        let volume = Volume { kind: "block".into(), path: "/dev/vg/v".into() };
        assert_eq!(parse(xml).unwrap(), Some(volume));
        assert_eq!(parse("<volume/>").unwrap(), None);
        assert!(parse("<volume").is_err());
    }
}
