//! VMs of a Pacemaker cluster, from the copy of its configuration (CIB) that every node keeps on disk.

use std::{fs, io::ErrorKind, path::Path};

use roxmltree::Node;
use vmgate_facts::{Cause, ClusterVm, Unknown, text::plain, xml};

use crate::host::not_read;

/// Copy of the cluster's configuration (CIB) on a node.
const CIB: &str = "/var/lib/pacemaker/cib/cib.xml";

/// VMs that are resources of the cluster; none where the host is no node of one.
pub(super) fn vms() -> Result<Vec<ClusterVm>, Unknown> {
    match fs::read_to_string(CIB) {
        Ok(text) => in_cib(&text, |path| fs::read_to_string(path).ok()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        Err(error) => Err(not_read(CIB, &error)),
    }
}

/// VMs in the text of a CIB; `read` gives the text of a domain's file.
fn in_cib(text: &str, read: impl Fn(&str) -> Option<String>) -> Result<Vec<ClusterVm>, Unknown> {
    let document = xml::parse(text)
        .map_err(|error| Unknown::new(Cause::Malformed, format!("{CIB} on the host: {error}")))?;
    let all = || document.descendants().filter(Node::is_element);
    let template =
        |id: &str| all().find(|node| node.has_tag_name("template") && node.attribute("id") == Some(id));
    let mut found = Vec::new();
    for primitive in all().filter(|node| node.has_tag_name("primitive")) {
        let template = primitive.attribute("template").and_then(template);
        let parts = || std::iter::once(primitive).chain(template);
        if !parts().any(|node| node.attribute("type") == Some("VirtualDomain")) {
            continue;
        }
        let resource = plain(primitive.attribute("id").unwrap_or("without an id"));
        let Some(file) = parts().find_map(|node| parameter(node, "config")) else { continue };
        // A file that only the other nodes can read now is named like its domain, as libvirt names its own.
        let domain = read(file)
            .and_then(|text| name_of(&text))
            .or_else(|| Path::new(file).file_stem().and_then(|stem| stem.to_str()).map(plain));
        found.extend(domain.map(|domain| ClusterVm { resource, domain }));
    }
    Ok(found)
}

/// Value of a parameter in the instance attributes of a resource.
fn parameter<'a>(resource: Node<'a, '_>, name: &str) -> Option<&'a str> {
    resource
        .children()
        .filter(|node| node.has_tag_name("instance_attributes"))
        .flat_map(|attributes| attributes.descendants())
        .find(|node| node.has_tag_name("nvpair") && node.attribute("name") == Some(name))?
        .attribute("value")
}

fn name_of(domain: &str) -> Option<String> {
    let document = xml::parse(domain).ok()?;
    let name = document.root_element().children().find(|node| node.has_tag_name("name"))?;
    name.text().map(|text| plain(text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `pcs resource create` and crmsh with a template write them.
    const TEXT: &str = r#"<cib crm_feature_set="3.16.2"><configuration><resources>
        <primitive id="ip" class="ocf" provider="heartbeat" type="IPaddr2"/>
        <template id="vm-t" class="ocf" provider="heartbeat" type="VirtualDomain"/>
        <group id="g"><primitive id="vm-web1" class="ocf" provider="heartbeat" type="VirtualDomain">
          <instance_attributes id="a"><nvpair id="n" name="config" value="/srv/vms/one.xml"/>
          <nvpair id="m" name="migration_transport" value="ssh"/></instance_attributes></primitive></group>
        <primitive id="vm-db1" template="vm-t"><instance_attributes id="b">
          <nvpair id="o" name="config" value="/etc/libvirt/qemu/db1.xml"/></instance_attributes></primitive>
        </resources></configuration><status/></cib>"#;

    #[test]
    fn vms_of_a_cluster_are_found_by_the_name_in_their_files() {
        let read = |path: &str| {
            (path == "/srv/vms/one.xml").then(|| "<domain><name>web1</name></domain>".to_owned())
        };
        let vm =
            |resource: &str, domain: &str| ClusterVm { resource: resource.into(), domain: domain.into() };
        assert_eq!(in_cib(TEXT, read).unwrap(), [vm("vm-web1", "web1"), vm("vm-db1", "db1")]);
    }

    #[test]
    fn a_configuration_that_is_none_is_unknown() {
        assert_eq!(in_cib("<cib>", |_| None).unwrap_err().cause, Cause::Malformed);
        assert_eq!(in_cib("<cib/>", |_| None), Ok(Vec::new()));
    }
}
