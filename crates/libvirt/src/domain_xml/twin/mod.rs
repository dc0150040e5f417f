//! Configuration of an empty twin: a VM with the machine, CPU and devices of another one, and nothing of what those are
//! connected to. Started paused and moved, it shows if the destination's QEMU loads the state of such devices.
//!
//! Tables say what is kept, replaced or left out. What stands in none of them is left out by name: it was not rehearsed.

mod devices;
mod element;

use roxmltree::Node;
use vmgate_facts::{Uuid, text::plain};

use self::element::{Element, is_libvirts};
use super::{child, children, elements::QEMU_NAMESPACE};

/// Namespace of the note in a twin's metadata.
pub const TWIN_NAMESPACE: &str = "https://vmgate.dev/twin/v1";

/// Memory of a twin, of all guest nodes together. The guest never runs, so hardly any of it is touched.
const MEMORY_KIB: u64 = 64 << 10;
/// Least memory of one guest node.
const NODE_KIB: u64 = 16 << 10;

/// Elements of a domain whose copy a twin has.
const COPIED: &[&str] = &[
    "maxMemory",
    "vcpus",
    "iothreads",
    "iothreadids",
    "defaultiothread",
    "features",
    "clock",
    "pm",
    "genid",
];

/// Elements that a twin has otherwise, see [`of`].
const REPLACED: &[&str] = &["name", "uuid", "metadata", "memory", "vcpu", "os", "cpu", "devices", "sysinfo"];

/// Elements that say nothing about devices: what people wrote, and what the host gives to a guest that runs.
const LEFT_OUT: &[&str] = &[
    "title",
    "description",
    "currentMemory",
    "memoryBacking",
    "memtune",
    "numatune",
    "cputune",
    "blkiotune",
    "throttlegroups",
    "resource",
    "perf",
    "seclabel",
    "on_poweroff",
    "on_reboot",
    "on_crash",
    "on_lockfailure",
];

/// Elements below `<os>` that are copied. A kernel and what belongs to it is only read when the guest boots.
const COPIED_OF_OS: &[&str] = &["type", "boot", "bootmenu", "smbios", "bios"];
const LEFT_OUT_OF_OS: &[&str] =
    &["loader", "firmware", "kernel", "initrd", "cmdline", "dtb", "shim", "loadparm"];

/// Name, UUID and note of a twin that is to be made, and what both hosts' libvirt can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwinIdentity {
    /// Name of its domain.
    pub name: String,
    /// Its own UUID, which no other VM has.
    pub uuid: Uuid,
    /// Attributes of the note in its metadata: who made it, when, and of which VM.
    pub note: Vec<(&'static str, String)>,
    /// True if both hosts can have UEFI without a file of variables (libvirt 8.6).
    pub stateless_firmware: bool,
}

/// Configuration of a twin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwinConfig {
    /// The domain XML.
    pub xml: String,
    /// Devices and settings of the VM that its twin lacks, each by name.
    pub not_rehearsed: Vec<String>,
}

/// Reason why a VM can have no twin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoTwin {
    /// The configuration could not be read.
    #[error("the VM's configuration cannot be read: {0}")]
    Unreadable(String),
    /// A part without which there is no VM.
    #[error("the VM's configuration has no <{0}>")]
    Missing(&'static str),
}

/// The twin of the VM with this live configuration.
pub fn of(live_xml: &str, identity: &TwinIdentity) -> Result<TwinConfig, NoTwin> {
    let document =
        vmgate_facts::xml::parse(live_xml).map_err(|error| NoTwin::Unreadable(error.to_string()))?;
    let domain = document.root_element();
    let part = |name| child(domain, name).ok_or(NoTwin::Missing(name));
    let mut not_rehearsed = Vec::new();
    let os = os(part("os")?, identity, &mut not_rehearsed);
    let devices = devices::of(domain, part("devices")?, &mut not_rehearsed);
    let note = Element::new("vmgate:twin").with("xmlns:vmgate", TWIN_NAMESPACE);
    let note = identity.note.iter().fold(note, |note, (name, value)| note.with(name, value));
    let vcpu = part("vcpu")?;
    let own = [
        Element::new("name").saying(&identity.name),
        Element::new("uuid").saying(identity.uuid.as_str()),
        Element::new("metadata").holding([note]),
        Element::new("memory").with("unit", "KiB").saying(MEMORY_KIB.to_string()),
        Element::only(vcpu, &["current"]).saying(vcpu.text().unwrap_or_default().trim()),
        os,
    ];
    let mut twin = Element::only(domain, &["type"]).holding(own);
    for element in domain.children().filter(Node::is_element) {
        let name = element.tag_name().name();
        match name {
            _ if !is_libvirts(element) => not_rehearsed.extend(of_another_program(element)),
            "cpu" => twin = twin.holding([cpu(element)]),
            "sysinfo" if element.attribute("type") == Some("smbios") => {
                twin = twin.holding([Element::copy(element)]);
            }
            _ if COPIED.contains(&name) => twin = twin.holding([Element::copy(element)]),
            _ if REPLACED.contains(&name) || LEFT_OUT.contains(&name) => {}
            _ => not_rehearsed.push(label(element)),
        }
    }
    let xml = twin.holding([devices]).to_string();
    Ok(TwinConfig { xml, not_rehearsed })
}

/// Arguments that were handed to QEMU past libvirt, which may be anything.
fn of_another_program(element: Node) -> Option<String> {
    let has_words = element.children().any(|inner| inner.is_element());
    (element.tag_name().namespace() == Some(QEMU_NAMESPACE) && has_words)
        .then(|| format!("qemu:{}", element.tag_name().name()))
}

/// Firmware and what the guest sees of its boot. UEFI's variables are a file of the VM, which a twin has not.
fn os(os: Node, identity: &TwinIdentity, not_rehearsed: &mut Vec<String>) -> Element {
    let mut twin = Element::new("os");
    for element in os.children().filter(Node::is_element) {
        let name = element.tag_name().name();
        match name {
            "loader" if element.attribute("type") == Some("pflash") => {
                if identity.stateless_firmware {
                    let loader = Element::copy(element).with("stateless", "yes");
                    twin = twin.holding([loader]);
                } else {
                    not_rehearsed.push("UEFI (both hosts need libvirt 8.6 for that)".to_owned());
                }
            }
            "loader" => twin = twin.holding([Element::copy(element)]),
            "nvram" => not_rehearsed.push("UEFI's variables (nvram)".to_owned()),
            _ if COPIED_OF_OS.contains(&name) => twin = twin.holding([Element::copy(element)]),
            _ if LEFT_OUT_OF_OS.contains(&name) => {}
            _ => not_rehearsed.push(format!("os {}", plain(name))),
        }
    }
    twin
}

/// The CPU with its topology. Guest nodes get as little memory as QEMU takes.
fn cpu(cpu: Node) -> Element {
    let copy = Element::copy(cpu).without(&["numa"]);
    let Some(numa) = child(cpu, "numa") else { return copy };
    let count = u64::try_from(children(numa, "cell").count()).unwrap_or(u64::MAX).max(1);
    let memory = (MEMORY_KIB / count).max(NODE_KIB).to_string();
    let parts = numa.children().filter(|part| is_libvirts(*part)).map(|part| {
        let copy = Element::copy(part);
        if part.has_tag_name("cell") {
            // Shared memory is of the back end, which a twin has not.
            let cell =
                Element::only(part, &["id", "cpus", "discard"]).with("memory", &memory).with("unit", "KiB");
            let inner = part.children().filter(|inner| is_libvirts(*inner));
            return cell.holding(inner.map(Element::copy));
        }
        copy
    });
    copy.holding([Element::new("numa").holding(parts)])
}

/// Name of an element for people: its kind, type and model, and where it is.
fn label(node: Node) -> String {
    let attribute = |name: &str| node.attribute(name).map(str::to_owned);
    let inner = |element: &str, name: &str| child(node, element)?.attribute(name).map(str::to_owned);
    let parts = [
        Some(node.tag_name().name().to_owned()),
        attribute("type"),
        attribute("mode"),
        attribute("model").or_else(|| inner("model", "type")),
        inner("driver", "type").filter(|_| node.has_tag_name("filesystem")),
        inner("target", "dev").or_else(|| inner("target", "dir")),
        inner("mac", "address"),
    ];
    plain(&parts.into_iter().flatten().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests;
