//! Components of a VM: devices with their models, image formats and settings, for a catalogue that tells which of them QEMU
//! migrates. An element that no table here names is a component too: it is not known to migrate, and has its path as its kind.

use std::collections::BTreeSet;

use roxmltree::Node;
use vmgate_facts::{Cause, Fact, VmComponent, text::plain};

use super::{
    child, devices,
    elements::{self, QEMU_NAMESPACE},
};

/// Kind of the components that are formats of images.
pub(super) const IMAGE: &str = "image";

/// Formats whose images may lie on another, which QEMU finds in the image's header where libvirt names none.
const LAYERED: [&str; 2] = ["qcow2", "qed"];

/// Attributes that together are the model of a device, by its element. `child/@attribute` is an attribute of a child.
/// Files, addresses and options of back ends are facts of their own; so are host devices, shared folders and shared memory.
const MODELS: &[(&str, &[&str])] = &[
    ("audio", &[]),
    ("channel", &["target/@type"]),
    ("console", &["target/@type"]),
    ("controller", &["@type", "@model"]),
    ("crypto", &["@model"]),
    ("disk", &["target/@bus", "@model"]),
    ("emulator", &[]),
    ("graphics", &["@type"]),
    ("hub", &["@type"]),
    ("input", &["@type", "@bus"]),
    ("interface", &["model/@type"]),
    ("iommu", &["@model"]),
    ("lease", &[]),
    ("memballoon", &["@model"]),
    ("memory", &["@model"]),
    ("nvram", &[]),
    ("panic", &["@model"]),
    ("parallel", &[]),
    ("pstore", &["@backend"]),
    ("redirdev", &["@bus"]),
    ("redirfilter", &[]),
    ("rng", &["@model"]),
    ("serial", &["target/@type"]),
    ("smartcard", &["@mode"]),
    ("sound", &["@model"]),
    ("tpm", &["@model"]),
    ("video", &["model/@type"]),
    ("vsock", &["@model"]),
    ("watchdog", &["@model"]),
];

/// Components of the VM, sorted, each once.
pub(super) fn of(domain: Node) -> Vec<VmComponent> {
    let mut found = BTreeSet::new();
    for device in child(domain, "devices").into_iter().flat_map(|devices| devices.children()) {
        if device.is_element() {
            found.extend(of_device(device));
        }
    }
    found.extend(settings(domain).into_iter().map(|(kind, model)| (kind.to_owned(), model.to_owned())));
    found.extend(other_machine(domain).map(|machine| ("machine".to_owned(), machine)));
    let component = |(kind, model)| VmComponent { kind, model, migrates: Fact::default(), why: None };
    let known = found.into_iter().map(component);
    let unread = elements::unread(domain).into_iter().map(|(kind, reason)| VmComponent {
        migrates: reason.map_or_else(Fact::default, |reason| {
            Fact::unknown(Cause::NotSupported, format!("{kind}: {reason}"))
        }),
        kind,
        model: String::new(),
        why: None,
    });
    known.chain(unread).collect()
}

fn of_device(device: Node) -> Vec<(String, String)> {
    let element = device.tag_name().name();
    // An unread element is found by its path.
    let Some((_, parts)) = MODELS.iter().find(|(name, _)| *name == element) else { return Vec::new() };
    let value = |part: &&&str| match part.split_once("/@") {
        Some((inner, name)) => child(device, inner).and_then(|inner| inner.attribute(name)),
        None => device.attribute(part.trim_start_matches('@')),
    };
    let model: Vec<&str> = parts.iter().filter_map(|part| value(&part)).collect();
    let mut found = vec![(element.to_owned(), plain(&model.join(" ")))];
    if element == "disk" {
        found.extend(image_formats(device).into_iter().map(|format| (IMAGE.to_owned(), format)));
        found.extend(unread_chain(device).map(|below| (IMAGE.to_owned(), below)));
    }
    if element == "video"
        && let Some(acceleration) = child(device, "model").and_then(|model| child(model, "acceleration"))
        && acceleration.attribute("accel3d") == Some("yes")
    {
        found.push(("video".to_owned(), plain(&format!("{} accel3d", model.join(" ")))));
    }
    found
}

/// Formats of a disk's image and of those below it.
fn image_formats(disk: Node) -> Vec<String> {
    let own = child(disk, "driver").and_then(|driver| driver.attribute("type"));
    let folder = (disk.attribute("type") == Some("dir")).then_some("vvfat");
    let formats = disk.descendants().filter(|node| node.has_tag_name("format"));
    own.into_iter()
        .chain(folder)
        .chain(formats.filter_map(|format| format.attribute("type")))
        .map(plain)
        .collect()
}

/// Images that libvirt did not look for, below the last image that it names: it reads no headers over the network, and QEMU does. The
/// configuration of a running VM says `<backingStore/>` where a chain ends; one that is not running has not been looked at.
fn unread_chain(disk: Node) -> Option<String> {
    disk.ancestors().find(|node| node.has_tag_name("domain"))?.attribute("id")?;
    let last = devices::backing_chain(disk).last().unwrap_or(disk);
    if last != disk && last.attribute("type").is_none() {
        return None;
    }
    let format = ["driver", "format"].iter().find_map(|name| child(last, name)?.attribute("type"))?;
    let source = child(last, "source")?;
    let place = source.attribute("protocol").or_else(|| last.attribute("type"))?;
    LAYERED.contains(&format).then(|| plain(&format!("below {format} on {place}")))
}

/// Families of machine types that QEMU keeps alike from version to version; it promises nothing of others.
const VERSIONED_MACHINES: &[&str] =
    &["pc", "q35", "pc-i440fx", "pc-q35", "virt", "pseries", "s390-ccw-virtio", "rhel"];

/// Machine type, if its family is none that QEMU keeps alike.
fn other_machine(domain: Node) -> Option<String> {
    let machine = child(child(domain, "os")?, "type")?.attribute("machine")?;
    let is_of = |family: &&str| {
        machine
            .strip_prefix(*family)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('-') || *family == "rhel")
    };
    (!VERSIONED_MACHINES.iter().any(is_of)).then(|| plain(machine))
}

/// Settings that are no device and that QEMU or libvirt may refuse to migrate.
fn settings(domain: Node) -> Vec<(&'static str, &'static str)> {
    let mut found = Vec::new();
    let cpu = child(domain, "cpu");
    if cpu.and_then(|cpu| cpu.attribute("migratable")) == Some("off") {
        found.push(("cpu", "migratable off"));
    }
    if cpu.and_then(|cpu| child(cpu, "cache")).and_then(|cache| cache.attribute("mode"))
        == Some("passthrough")
    {
        found.push(("cpu", "cache passthrough"));
    }
    if cpu.and_then(|cpu| child(cpu, "maxphysaddr")).and_then(|bits| bits.attribute("mode"))
        == Some("passthrough")
    {
        found.push(("cpu", "maxphysaddr passthrough"));
    }
    let hyperv = child(domain, "features").and_then(|features| child(features, "hyperv"));
    match hyperv.and_then(|hyperv| hyperv.attribute("mode")) {
        Some("passthrough") => found.push(("hyperv", "passthrough")),
        Some("host-model") => found.push(("hyperv", "host-model")),
        _ => {}
    }
    let own = |name: &str| {
        domain.children().any(|node| {
            node.tag_name().namespace() == Some(QEMU_NAMESPACE)
                && node.tag_name().name() == name
                && node.children().any(|inner| inner.is_element())
        })
    };
    for name in ["commandline", "override", "capabilities"] {
        if own(name) {
            found.push(("qemu", name));
        }
    }
    let devices = || child(domain, "devices").into_iter().flat_map(|devices| devices.children());
    // libvirt gives each PCI device of a guest on s390 such an address, and QEMU a device with it.
    if devices().filter_map(|device| child(device, "address")).any(|address| child(address, "zpci").is_some())
    {
        found.push(("zpci", ""));
    }
    let disks = devices().filter(|device| device.has_tag_name("disk"));
    if disks.filter_map(|disk| child(disk, "source")).any(|source| child(source, "reservations").is_some()) {
        found.push(("disk", "persistent reservations"));
    }
    found
}
