//! Parser of libvirt's network XML.

use vmgate_facts::{Fact, VirtualNetwork, text::plain};

use super::domain_xml::{child, children};

/// Reads a network XML; none where it has no name. The error is the parser's.
pub fn parse(xml: &str) -> Result<Option<VirtualNetwork>, roxmltree::Error> {
    let document = vmgate_facts::xml::parse(xml)?;
    let root = document.root_element();
    let attribute = |element: &str, name: &str| child(root, element).and_then(|node| node.attribute(name));
    let Some(name) = child(root, "name").and_then(|name| name.text()) else { return Ok(None) };
    Ok(Some(VirtualNetwork {
        name: plain(name),
        bridge: attribute("bridge", "name").map(plain),
        // A forward element without a mode is NAT (libvirt's network format).
        forward: Fact::Known(match child(root, "forward") {
            None => "isolated".to_owned(),
            Some(forward) => plain(forward.attribute("mode").unwrap_or("nat")),
        }),
        mtu_bytes: attribute("mtu", "size").and_then(|size| size.parse().ok()),
        virtual_port: attribute("virtualport", "type").map(plain),
        port_groups: children(root, "portgroup")
            .filter_map(|group| group.attribute("name"))
            .map(plain)
            .collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_read_with_its_port_groups() {
        let xml = "<network><name>ovs</name><forward mode='bridge'/><bridge name='br-int'/><mtu size='9000'/>
            <virtualport type='openvswitch'/><portgroup name='vlan42'><vlan><tag id='42'/></vlan></portgroup>
            <portgroup name='all' default='yes'/></network>";
        let network = parse(xml).unwrap().unwrap();
        assert_eq!((network.name.as_str(), network.bridge.as_deref()), ("ovs", Some("br-int")));
        assert_eq!((network.mtu_bytes, network.virtual_port.as_deref()), (Some(9000), Some("openvswitch")));
        assert_eq!(network.port_groups, ["vlan42", "all"]);
        assert_eq!(network.forward, Fact::Known("bridge".to_owned()));
        for (forward, expected) in
            [("", "isolated"), ("<forward/>", "nat"), ("<forward mode='open'/>", "open")]
        {
            let network = parse(&format!("<network><name>n</name>{forward}</network>")).unwrap().unwrap();
            assert_eq!(network.forward, Fact::Known(expected.to_owned()), "{forward}");
        }
        assert_eq!(parse("<network/>").unwrap(), None);
    }
}
