//! Elements, attributes and values of a domain XML that no account lists, or that are known to matter without a fact.
//!
//! A newer libvirt may have elements that stop a migration, so each is told by its path. The account is accounts/domain.txt; a test over
//! libvirt's own schema shows that it is complete, and one over libvirt's own tests that what it calls read is read.

use std::{collections::BTreeSet, sync::LazyLock};

use roxmltree::Node;
use vmgate_facts::text::plain;

use crate::accounts::{self, Accounts, MOST_UNREAD, Unread};

/// Namespace of elements that go to QEMU without libvirt knowing what they mean.
pub(super) const QEMU_NAMESPACE: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

static DOMAIN: LazyLock<Accounts> = LazyLock::new(|| Accounts::new(include_str!("../accounts/domain.txt")));

/// Account of the elements and attributes of a domain.
pub fn accounts() -> &'static Accounts {
    &DOMAIN
}

/// Path in the account of an element with this name below another. Images below an image are described like one another,
/// however deep: their paths begin with `image`.
pub fn place(parent: &str, name: &str) -> String {
    let parent = match parent {
        "devices/disk/backingStore"
        | "devices/disk/mirror"
        | "image/backingStore"
        | "image/source/dataStore" => "image",
        "devices/disk/source" | "os/nvram/source" => "image/source",
        _ => parent,
    };
    accounts::place(parent, name)
}

/// Children of a domain of which there may be several; of others the first is read.
const REPEATED: &[&str] = &["sysinfo", "seclabel"];

/// Paths of elements and attributes that are not accounted for, each once and in order, with the reason for which one that is
/// known may matter.
pub(super) fn unread(domain: Node) -> Unread {
    let mut found = DOMAIN.unread(domain, place);
    let mut seen = BTreeSet::new();
    for node in domain.children().filter(|node| node.is_element() && node.tag_name().namespace().is_none()) {
        let name = node.tag_name().name();
        if !seen.insert(name) && !REPEATED.contains(&name) && found.len() < MOST_UNREAD {
            found.insert(plain(&format!("{name} (a second one)")), None);
        }
    }
    found
}

#[cfg(test)]
mod tests {

    use super::*;

    fn told(xml: &str) -> Vec<String> {
        unread(vmgate_facts::xml::parse(xml).unwrap().root_element()).into_keys().collect()
    }

    #[test]
    fn what_is_not_accounted_for_is_told_by_its_path() {
        let xml = "<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>a</name>
            <metadata><anything><at all='1'/></anything></metadata><hyperspace on='yes'><inner/></hyperspace>
            <devices><disk type='file'><source file='/a' teleport='yes'/><wormhole/></disk><flux model='x'/></devices>
            <qemu:commandline><qemu:arg value='-x'/></qemu:commandline></domain>";
        assert_eq!(
            told(xml),
            ["devices/disk/source/@teleport", "devices/disk/wormhole", "devices/flux", "hyperspace"]
        );
    }

    #[test]
    fn a_known_name_at_an_unknown_place_is_told() {
        let xml = "<domain><cputune><source/></cputune><vcpu machine='x'>1</vcpu>
            <devices><disk type='wormhole' device='disk'/><input><address type='pci'/><address2/></input></devices></domain>";
        assert_eq!(
            told(xml),
            ["cputune/source", "devices/disk/@type=wormhole", "devices/input/address2", "vcpu/@machine"]
        );
    }

    #[test]
    fn a_second_element_of_which_only_the_first_is_read_is_told() {
        let xml = "<domain><sysinfo/><sysinfo/><devices/><devices><disk/></devices><name>a</name></domain>";
        assert_eq!(told(xml), ["devices (a second one)"]);
    }

    #[test]
    fn images_below_images_are_accounted_for_at_every_depth() {
        let store = |inner: &str| {
            format!(
                "<backingStore type='file'><format type='qcow2'/><source file='/b'><reservations managed='no'/></source>{inner}</backingStore>"
            )
        };
        let disk =
            |inner: &str| format!("<domain><devices><disk type='file'>{inner}</disk></devices></domain>");
        assert!(told(&disk(&store(&store(&store("<backingStore/>"))))).is_empty());
        assert_eq!(told(&disk(&store(&store("<warp/>")))), ["devices/disk/backingStore/backingStore/warp"]);
    }

    #[test]
    fn thousands_of_unread_elements_are_cut() {
        let many = (0..5000).map(|number| format!("<x{number}/>")).collect::<Vec<_>>().concat();
        assert_eq!(told(&format!("<domain>{many}</domain>")).len(), MOST_UNREAD);
    }
}
