//! Parser of libvirt's capabilities XML: the host's UUID, its CPU and the machine types of its QEMU.

use std::collections::BTreeMap;

use roxmltree::Node;
use vmgate_facts::{MachineType, QemuUser, Tsc, Uuid, text::plain};

use super::domain_xml::{child, children};

/// Capabilities of a host.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Capabilities {
    /// The host's UUID.
    pub uuid: Option<Uuid>,
    /// Model of the host's CPU.
    pub cpu_model: Option<String>,
    /// The time stamp counter, where libvirt could measure it.
    pub tsc: Option<Tsc>,
    /// Models of security labels that libvirt sets on this host.
    pub security_models: Vec<String>,
    /// User and group as which libvirt starts QEMU; none where libvirt runs without privileges.
    pub qemu_user: Option<QemuUser>,
    /// Offer of the host, by the guest's architecture.
    pub guests: BTreeMap<String, GuestArch>,
}

/// Offer of a host to guests of one architecture.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GuestArch {
    /// Path of the QEMU that libvirt runs for a domain that names none.
    pub emulator: Option<String>,
    /// Machine types, sorted by name.
    pub machine_types: Vec<MachineType>,
}

/// Reads a capabilities XML. The error is the parser's.
pub fn parse(xml: &str) -> Result<Capabilities, roxmltree::Error> {
    let document = vmgate_facts::xml::parse(xml)?;
    let root = document.root_element();
    let host = child(root, "host");
    let text = |node: Option<Node>| node.and_then(|node| node.text()).map(plain);
    let mut guests = BTreeMap::new();
    for arch in children(root, "guest").filter_map(|guest| child(guest, "arch")) {
        if let Some(name) = arch.attribute("name") {
            let offer =
                GuestArch { emulator: text(child(arch, "emulator")), machine_types: machine_types(arch) };
            guests.insert(plain(name), offer);
        }
    }
    Ok(Capabilities {
        uuid: host.and_then(|host| child(host, "uuid")?.text()?.parse().ok()),
        security_models: host
            .into_iter()
            .flat_map(|host| children(host, "secmodel"))
            .filter_map(|model| text(child(model, "model")))
            .collect(),
        qemu_user: host.and_then(qemu_user),
        tsc: host.and_then(|host| child(host, "cpu")).and_then(tsc),
        cpu_model: text(host.and_then(|host| child(host, "cpu")).and_then(|cpu| child(cpu, "model"))),
        guests,
    })
}

/// The label that libvirt's DAC driver gives a domain without one of its own: it is the user and group of qemu.conf, or those
/// that libvirt was built with.
fn qemu_user(host: Node) -> Option<QemuUser> {
    let dac = children(host, "secmodel")
        .find(|model| child(*model, "model").and_then(|name| name.text()) == Some("dac"))?;
    ownership(child(dac, "baselabel")?.text()?)
}

/// User and group of a DAC label, `+64055:+108`; none where the label names them, for only the host knows its names.
pub(super) fn ownership(label: &str) -> Option<QemuUser> {
    let (uid, gid) = label.trim().split_once(':')?;
    let number = |text: &str| text.strip_prefix('+').unwrap_or(text).parse().ok();
    Some(QemuUser { uid: number(uid)?, gid: number(gid)? })
}

/// Time stamp counter that the host's CPU element names.
fn tsc(cpu: Node) -> Option<Tsc> {
    let counter = children(cpu, "counter").find(|counter| counter.attribute("name") == Some("tsc"))?;
    Some(Tsc {
        frequency_hertz: counter.attribute("frequency")?.parse().ok()?,
        scaling: counter.attribute("scaling") == Some("yes"),
    })
}

/// Machine types of an architecture: those of the architecture itself and of each accelerator, once each. Aliases
/// such as `q35` are left out: a running VM has the versioned name.
fn machine_types(arch: Node) -> Vec<MachineType> {
    let mut found = BTreeMap::new();
    let nodes = std::iter::once(arch).chain(children(arch, "domain"));
    for machine in nodes.flat_map(|node| children(node, "machine")) {
        let name = machine.attribute("canonical").or_else(|| machine.text());
        if let Some(name) = name {
            let deprecated = machine.attribute("deprecated") == Some("yes");
            *found.entry(plain(name)).or_insert(false) |= deprecated;
        }
    }
    found.into_iter().map(|(name, deprecated)| MachineType { name, deprecated }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_types_are_listed_once_with_their_real_names() {
        let xml = "<capabilities><host><uuid>0d5f1b5a-1111-4222-8333-000000000001</uuid>
            <cpu><arch>x86_64</arch><model>Cascadelake-Server</model></cpu>
            <secmodel><model>apparmor</model><doi>0</doi></secmodel><secmodel><model>dac</model><doi>0</doi>
            <baselabel type='kvm'>+64055:+108</baselabel></secmodel></host>
            <guest><os_type>hvm</os_type><arch name='i686'><machine>pc-i440fx-7.2</machine></arch></guest>
            <guest><os_type>hvm</os_type><arch name='x86_64'><emulator>/usr/bin/qemu-system-x86_64</emulator>
              <machine maxCpus='255'>pc-i440fx-7.2</machine>
              <machine canonical='pc-i440fx-7.2' maxCpus='255'>pc</machine>
              <machine maxCpus='288' deprecated='yes'>pc-q35-2.4</machine>
              <machine canonical='pc-q35-7.2' maxCpus='288'>q35</machine>
              <domain type='qemu'/><domain type='kvm'><machine>pc-q35-7.2</machine></domain>
            </arch></guest></capabilities>";
        let capabilities = parse(xml).unwrap();
        assert_eq!(capabilities.uuid.unwrap().as_str(), "0d5f1b5a-1111-4222-8333-000000000001");
        assert_eq!(capabilities.cpu_model.as_deref(), Some("Cascadelake-Server"));
        assert_eq!(capabilities.security_models, ["apparmor", "dac"]);
        assert_eq!(capabilities.qemu_user, Some(QemuUser { uid: 64_055, gid: 108 }));
        let offer = &capabilities.guests["x86_64"];
        assert_eq!(offer.emulator.as_deref(), Some("/usr/bin/qemu-system-x86_64"));
        let types: Vec<_> = offer.machine_types.iter().map(|m| (m.name.as_str(), m.deprecated)).collect();
        assert_eq!(types, [("pc-i440fx-7.2", false), ("pc-q35-2.4", true), ("pc-q35-7.2", false)]);
        assert!(!capabilities.guests.contains_key("s390x"));
    }

    #[test]
    fn empty_capabilities_are_unknown_and_no_crash() {
        assert_eq!(parse("<capabilities/>").unwrap(), Capabilities::default());
        assert!(parse("<capabilities").is_err());
    }
}
