//! Network interfaces and their link states in a domain XML, and vmgate's isolation note in its metadata. No I/O.

use quick_xml::escape::escape;
use roxmltree::Node;
use serde::Serialize;
use vmgate_facts::text::plain;

/// XML namespace of vmgate's isolation note in a domain's metadata.
pub(super) const NOTE_URI: &str = "https://vmgate.dev/isolated/v1";

/// Network interface of a VM, as shown to people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    /// MAC address.
    pub mac: String,
    /// Tap device on the host; absent if the interface has none.
    pub tap: Option<String>,
}

/// Network device of a VM that was not cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UncutDevice {
    /// Description of the device.
    pub device: String,
    /// Reason, and what the operator can do.
    pub why: String,
}

/// Link state of an interface: `<link state=…/>` in the domain XML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkState {
    /// `up`.
    Up,
    /// No `<link>` element, which means up.
    Unspecified,
    /// `down`.
    Down,
}

/// Interface in the domain XML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    alias: Option<String>,
    mac: String,
    kind: String,
    tap: Option<String>,
    pub(super) state: LinkState,
    /// The `<interface>` element, unchanged.
    xml: String,
    /// Byte range of its `<link>` element in `xml`.
    link: Option<(usize, usize)>,
}

/// Interface that an isolation cut, and its link state before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CutInterface {
    alias: Option<String>,
    mac: String,
    pub(super) was: LinkState,
}

/// Isolation note in the metadata of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct IsolationNote {
    pub(super) cut: Vec<CutInterface>,
    pub(super) at: String,
    pub(super) by: String,
    pub(super) reason: String,
}

/// Network devices and isolation note of a domain XML.
pub(super) struct NetworkDevices {
    pub(super) interfaces: Vec<Interface>,
    /// Host devices that are passed through to the guest and may be network cards.
    pub(super) host_devices: Vec<UncutDevice>,
    pub(super) note: Option<IsolationNote>,
}

/// Reads a live domain XML.
pub(super) fn read(xml: &str) -> Result<NetworkDevices, roxmltree::Error> {
    let document = vmgate_facts::xml::parse(xml)?;
    let domain = document.root_element();
    let devices = child(domain, "devices");
    let named = |name: &'static str| {
        devices
            .into_iter()
            .flat_map(move |devices| devices.children().filter(move |node| node.has_tag_name(name)))
    };
    Ok(NetworkDevices {
        interfaces: named("interface").map(|node| interface(node, xml)).collect(),
        host_devices: named("hostdev").filter_map(host_device).collect(),
        note: child(domain, "metadata").and_then(note),
    })
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|node| node.has_tag_name(name))
}

fn interface(node: Node, xml: &str) -> Interface {
    let attribute =
        |element: &str, name: &str| child(node, element).and_then(|node| node.attribute(name)).map(plain);
    let link = child(node, "link");
    let begin = node.range().start;
    Interface {
        alias: attribute("alias", "name"),
        mac: attribute("mac", "address").unwrap_or_default(),
        kind: node.attribute("type").map(plain).unwrap_or_default(),
        tap: attribute("target", "dev"),
        state: LinkState::of(link.and_then(|link| link.attribute("state"))),
        xml: xml.get(node.range()).unwrap_or_default().to_owned(),
        link: link.map(|link| (link.range().start - begin, link.range().end - begin)),
    }
}

/// Only PCI and mediated devices can be network cards.
fn host_device(node: Node) -> Option<UncutDevice> {
    let kind = node.attribute("type").filter(|kind| matches!(*kind, "pci" | "mdev"))?;
    let address = child(child(node, "source")?, "address")?;
    let part = |name: &str| address.attribute(name).map(|text| text.trim_start_matches("0x").to_owned());
    let place = part("uuid").unwrap_or_else(|| {
        let part = |name: &str| part(name).unwrap_or_default();
        format!("{}:{}:{}.{}", part("domain"), part("bus"), part("slot"), part("function"))
    });
    Some(UncutDevice {
        device: plain(&format!("host device {kind} {place}")),
        why: "the guest drives this device directly; if it is a network card, disable its port at the switch or detach it (virsh \
              detach-device)"
            .to_owned(),
    })
}

impl LinkState {
    fn of(text: Option<&str>) -> Self {
        match text {
            Some("down") => Self::Down,
            Some("up") => Self::Up,
            _ => Self::Unspecified,
        }
    }

    fn element(self) -> &'static str {
        match self {
            Self::Up => "<link state='up'/>",
            Self::Unspecified => "",
            Self::Down => "<link state='down'/>",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Unspecified => "unsaid",
            Self::Down => "down",
        }
    }
}

impl Interface {
    /// True if libvirt can set the link state: not where the guest drives the host's network card directly.
    pub(super) fn has_link(&self) -> bool {
        self.kind != "hostdev"
    }

    pub(super) fn link(&self) -> Link {
        Link { mac: self.mac.clone(), tap: self.tap.clone() }
    }

    /// The `<interface>` element with another link state, for libvirt's device update.
    pub(super) fn with(&self, state: LinkState) -> String {
        let (begin, end) = self.link.unwrap_or_else(|| {
            let end = self.xml.rfind("</interface").unwrap_or(self.xml.len());
            (end, end)
        });
        let (before, after) =
            (self.xml.get(..begin).unwrap_or_default(), self.xml.get(end..).unwrap_or_default());
        format!("{before}{}{after}", state.element())
    }

    pub(super) fn uncuttable(&self) -> UncutDevice {
        self.failed(
            "the guest drives a virtual function of the host's network card directly, and libvirt cannot set its link; take it down \
             on the host (ip link set CARD vf N state disable) or disable its port at the switch",
        )
    }

    pub(super) fn failed(&self, why: &str) -> UncutDevice {
        let tap = self.tap.as_ref().map_or(String::new(), |tap| format!(" ({tap})"));
        UncutDevice { device: format!("{} interface {}{tap}", self.kind, self.mac), why: why.to_owned() }
    }
}

impl CutInterface {
    pub(super) fn of(interface: &Interface) -> Self {
        Self { alias: interface.alias.clone(), mac: interface.mac.clone(), was: interface.state }
    }

    /// True if it is this interface: two may have one MAC address, and an alias may be used again.
    pub(super) fn is(&self, interface: &Interface) -> bool {
        self.mac == interface.mac && self.alias == interface.alias
    }
}

impl IsolationNote {
    /// The note with further interfaces. Entries that it has stay unchanged: they hold the link state before the first cut.
    pub(super) fn with(
        mut self,
        cut: impl Iterator<Item = CutInterface>,
        at: jiff::Timestamp,
        by: &str,
        reason: &str,
    ) -> Self {
        for cut in cut {
            if !self.cut.iter().any(|there| (&there.mac, &there.alias) == (&cut.mac, &cut.alias)) {
                self.cut.push(cut);
            }
        }
        if self.at.is_empty() {
            (self.at, self.by, self.reason) = (at.to_string(), plain(by), plain(reason));
        }
        self
    }

    /// The XML element for the domain's metadata.
    pub(super) fn to_xml(&self) -> String {
        let attribute = |name: &str, value: &str| format!(" {name}='{}'", escape(value));
        let cut = self.cut.iter().map(|cut| {
            let alias = cut.alias.as_ref().map_or(String::new(), |alias| attribute("alias", alias));
            format!("<interface{}{alias}{}/>", attribute("mac", &cut.mac), attribute("was", cut.was.word()))
        });
        format!(
            "<isolated{}{}{}>{}</isolated>",
            attribute("at", &self.at),
            attribute("by", &self.by),
            attribute("reason", &self.reason),
            cut.collect::<String>()
        )
    }
}

fn note(metadata: Node) -> Option<IsolationNote> {
    let element = metadata.children().find(|node| node.has_tag_name((NOTE_URI, "isolated")))?;
    let attribute = |node: Node, name: &str| node.attribute(name).map(plain);
    let cut =
        element.children().filter(|node| node.tag_name().name() == "interface").map(|node| CutInterface {
            alias: attribute(node, "alias"),
            mac: attribute(node, "mac").unwrap_or_default(),
            was: LinkState::of(node.attribute("was")),
        });
    let said = |name| attribute(element, name).unwrap_or_default();
    Some(IsolationNote { cut: cut.collect(), at: said("at"), by: said("by"), reason: said("reason") })
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = "<domain type='kvm'><metadata>NOTE</metadata><devices>
    <interface type='bridge'>
      <mac address='52:54:00:00:00:01'/><source bridge='br0'/><target dev='vnet1'/><alias name='net0'/>
    </interface>
    <interface type='network'><mac address='52:54:00:00:00:02'/><link state='up'/><alias name='net1'/></interface>
    <interface type='bridge'><mac address='52:54:00:00:00:03'/><link state='down'/><alias name='net2'/></interface>
    <interface type='hostdev'><mac address='52:54:00:00:00:04'/><alias name='hostdev0'/></interface>
    <hostdev mode='subsystem' type='pci'><source><address domain='0x0000' bus='0x3b' slot='0x00' function='0x1'/></source></hostdev>
    <hostdev mode='subsystem' type='usb'><source><vendor id='0x1234'/></source></hostdev>
    </devices></domain>";

    fn seen(note: &str) -> NetworkDevices {
        read(&XML.replace("NOTE", note)).unwrap()
    }

    #[test]
    fn every_interface_is_told_with_its_link() {
        let seen = seen("");
        let states: Vec<_> = seen.interfaces.iter().map(|interface| interface.state).collect();
        assert_eq!(states, [LinkState::Unspecified, LinkState::Up, LinkState::Down, LinkState::Unspecified]);
        let cuttable: Vec<_> = seen.interfaces.iter().map(Interface::has_link).collect();
        assert_eq!(cuttable, [true, true, true, false]);
        assert_eq!(seen.host_devices.len(), 1, "a USB device is no network card");
        assert_eq!(seen.host_devices[0].device, "host device pci 0000:3b:00.1");
        assert_eq!(seen.note, None);
    }

    #[test]
    fn cutting_and_letting_back_gives_the_same_element() {
        for interface in seen("").interfaces {
            let cut = interface.with(LinkState::Down);
            assert_eq!(cut.matches("<link state='down'/>").count(), 1, "{cut}");
            let document = format!("<domain><devices>{cut}</devices></domain>");
            let again = read(&document).unwrap().interfaces.remove(0);
            assert_eq!(again.state, LinkState::Down);
            assert_eq!(again.with(interface.state), interface.xml);
        }
    }

    #[test]
    fn the_note_is_read_back_and_keeps_how_it_was_at_first() {
        let interfaces = seen("").interfaces;
        let at = "2026-11-23T10:00:00Z".parse().unwrap();
        let note = IsolationNote::default().with(
            interfaces[..2].iter().map(CutInterface::of),
            at,
            "o'ps <x>",
            "it \"suffers\" & worse",
        );
        // libvirt writes the element back with a prefix of its own.
        let stored =
            note.to_xml().replacen("<isolated", &format!("<vmgate:isolated xmlns:vmgate='{NOTE_URI}'"), 1);
        let stored =
            stored.replace("</isolated", "</vmgate:isolated").replace("<interface", "<vmgate:interface");
        let read_back = seen(&stored).note.unwrap();
        assert_eq!(read_back, note);
        assert!(read_back.cut[1].is(&interfaces[1]) && !read_back.cut[1].is(&interfaces[2]));
        let down = CutInterface { was: LinkState::Down, ..CutInterface::of(&interfaces[0]) };
        let twice = read_back.clone().with([down].into_iter(), at, "other", "other");
        assert_eq!(twice, read_back, "a second isolation does not take the first one's doing for how it was");
    }
}
