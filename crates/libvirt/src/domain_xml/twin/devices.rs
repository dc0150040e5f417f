//! Devices of an empty twin: the same models, settings and addresses, connected to nothing.

use roxmltree::Node;

use super::{
    super::{bytes, child, children},
    element::{Element, is_libvirts},
    label,
};

/// Device of the host that a twin's disks are: it has no length, reads as zeroes and takes every write. It exists on every
/// host, so nothing is written there.
const EMPTY_DISK: &str = "/dev/zero";

/// Memory of a memory device of a twin: as little as QEMU takes.
const DIMM_KIB: u64 = 16 << 10;
/// The same where QEMU takes it in larger steps than on x86.
const LARGE_DIMM_KIB: u64 = 256 << 10;

/// Devices that are copied as they are, without those of their parts.
const COPIED: &[(&str, &[&str])] = &[
    ("emulator", &[]),
    ("controller", &[]),
    ("hub", &[]),
    ("iommu", &[]),
    ("memballoon", &["stats"]),
    ("nvram", &[]),
    ("panic", &[]),
    ("sound", &["audio"]),
    // Its action too: libvirt hides from older hosts a watchdog that is as it added it itself.
    ("watchdog", &[]),
];

/// Devices that are no device: the host's end of sound, and rules for what is plugged in.
const LEFT_OUT: &[&str] = &["audio", "lease", "redirfilter"];

/// Settings of virtio devices that the guest sees, or that shape their queues.
const VIRTIO: &[&str] = &["iommu", "ats", "packed", "page_per_vq", "event_idx", "ioeventfd"];
const DISK_DRIVER: &[&str] = &["queues", "queue_size", "iothread"];
const NIC_DRIVER: &[&str] =
    &["name", "txmode", "queues", "rx_queue_size", "tx_queue_size", "rss", "rss_hash_report"];

/// Parts of a disk that the guest sees.
const DISK_PARTS: &[&str] =
    &["serial", "wwn", "vendor", "product", "geometry", "blockio", "address", "boot", "readonly", "acpi"];
/// Parts of an interface that the guest sees.
const NIC_PARTS: &[&str] = &["model", "mtu", "rom", "boot", "address", "acpi"];

/// Kinds of attachment to which an interface's device does not depend on more than a tap.
const ATTACHMENTS: &[&str] = &[
    "bridge", "network", "direct", "ethernet", "user", "null", "internal", "udp", "mcast", "server", "client",
];

/// Devices of the twin.
pub(super) fn of(domain: Node, devices: Node, not_rehearsed: &mut Vec<String>) -> Element {
    let models: Vec<&str> =
        children(domain, "seclabel").filter_map(|label| label.attribute("model")).collect();
    let arch = child(domain, "os").and_then(|os| child(os, "type")).and_then(|os| os.attribute("arch"));
    let is_x86 = arch.is_none_or(|arch| matches!(arch, "x86_64" | "i686"));
    let mut twin = Element::new("devices");
    for device in devices.children().filter(|device| is_libvirts(*device)) {
        match device_of(device, &models, is_x86) {
            Twinned::As(copy) => twin = twin.holding([copy]),
            Twinned::Without => {}
            Twinned::Partly(copy, lacks) => {
                twin = twin.holding([copy]);
                not_rehearsed.push(lacks);
            }
            Twinned::Not => not_rehearsed.push(label(device)),
        }
    }
    twin.holding([Element::new("audio").with("id", "1").with("type", "none")])
}

/// Device of a VM in its twin.
enum Twinned {
    /// The same device, connected to nothing.
    As(Element),
    /// The same device, but for what is named.
    Partly(Element, String),
    /// No device, and none is needed.
    Without,
    /// No device, because it is one with its host.
    Not,
}

fn device_of(device: Node, security_models: &[&str], is_x86: bool) -> Twinned {
    let kind = device.attribute("type");
    let name = device.tag_name().name();
    match name {
        "disk" => disk(device, security_models),
        "interface" => interface(device),
        "serial" | "parallel" | "channel" | "redirdev" => character_device(device),
        "console" => {
            let target = child(device, "target").and_then(|target| target.attribute("type"));
            // The console that libvirt shows beside the first serial port is the same device.
            if target == Some("serial") { Twinned::Without } else { character_device(device) }
        }
        "smartcard" if device.attribute("mode") == Some("passthrough") => character_device(device),
        // Without SPICE a VM can have no QXL device.
        "graphics" if kind == Some("spice") => {
            let nowhere = Element::new("listen").with("type", "none");
            Twinned::As(Element::new("graphics").with("type", "spice").holding([nowhere]))
        }
        "graphics" => Twinned::Without,
        "video" => video(device),
        "input" => match kind {
            Some("passthrough") => Twinned::Not,
            Some("evdev") => Twinned::Without,
            _ => Twinned::As(Element::copy(device)),
        },
        "rng" => rng(device),
        "crypto" if backend_attribute(device, "model") == Some("builtin") => {
            Twinned::As(Element::copy(device))
        }
        "tpm" if backend_attribute(device, "type") == Some("emulator") => {
            let backend =
                child(device, "backend").map(|backend| Element::only(backend, &["type", "version"]));
            Twinned::As(
                Element::only(device, &["model"]).holding(backend).holding(parts(device, &["address"])),
            )
        }
        "vsock" => {
            let cid = Element::new("cid").with("auto", "yes");
            let parts = parts(device, &["driver", "address", "acpi"]);
            Twinned::As(Element::only(device, &["model"]).holding([cid]).holding(parts))
        }
        "memory" => memory(device, is_x86),
        _ if LEFT_OUT.contains(&name) => Twinned::Without,
        _ => match COPIED.iter().find(|(copied, _)| *copied == name) {
            Some((_, without)) => Twinned::As(Element::copy(device).without(without)),
            None => Twinned::Not,
        },
    }
}

/// Copies of these parts of a device.
fn parts(device: Node, names: &[&str]) -> Vec<Element> {
    let is_named = |part: &Node| is_libvirts(*part) && names.contains(&part.tag_name().name());
    device.children().filter(is_named).map(Element::copy).collect()
}

fn backend_attribute<'a>(device: Node<'a, '_>, name: &str) -> Option<&'a str> {
    child(device, "backend")?.attribute(name)
}

/// A drive without a medium, or a disk without content. Its image is shared, so that the twin's disks may all have the same
/// one, and no security driver changes whom it belongs to.
fn disk(disk: Node, security_models: &[&str]) -> Twinned {
    let device = disk.attribute("device").unwrap_or("disk");
    if matches!(disk.attribute("type"), Some("vhostuser" | "vhostvdpa")) || device == "lun" {
        return Twinned::Not;
    }
    let driver = child(disk, "driver");
    let own = driver.map_or_else(
        || Element::new("driver"),
        |driver| {
            let own = Element::only(driver, &[VIRTIO, DISK_DRIVER].concat());
            own.holding(parts(driver, &["iothreads"]))
        },
    );
    let target = child(disk, "target")
        .map(|target| Element::only(target, &["dev", "bus", "removable", "rotation_rate"]));
    let twin = Element::only(disk, &["device", "model"]).holding(target).holding(parts(disk, DISK_PARTS));
    if matches!(device, "cdrom" | "floppy") {
        return Twinned::As(
            twin.with("type", "file").holding([own.with("name", "qemu").with("type", "raw")]),
        );
    }
    let cache = match driver.and_then(|driver| driver.attribute("cache")) {
        Some("writethrough" | "directsync") => "writethrough",
        _ => "writeback",
    };
    let keep = security_models
        .iter()
        .filter(|model| **model != "none")
        .map(|model| Element::new("seclabel").with("model", *model).with("relabel", "no"));
    let source = Element::new("source").with("dev", EMPTY_DISK).holding(keep);
    let driver = own.with("name", "qemu").with("type", "raw").with("cache", cache);
    Twinned::As(twin.with("type", "block").holding([driver, source, Element::new("shareable")]))
}

/// An interface on a tap that is connected to nothing, with a MAC address of its own.
fn interface(interface: Node) -> Twinned {
    if !interface.attribute("type").is_some_and(|kind| ATTACHMENTS.contains(&kind)) {
        return Twinned::Not;
    }
    let driver = child(interface, "driver").map(|driver| {
        Element::only(driver, &[VIRTIO, NIC_DRIVER].concat()).holding(parts(driver, &["host", "guest"]))
    });
    let down = Element::new("link").with("state", "down");
    let twin = Element::new("interface").with("type", "ethernet").holding(driver).holding([down]);
    let twin = twin.holding(parts(interface, NIC_PARTS));
    match child(interface, "teaming") {
        None => Twinned::As(twin),
        Some(_) => Twinned::Partly(twin, format!("teaming of {}", label(interface))),
    }
}

/// A port whose other end is nowhere.
fn character_device(device: Node) -> Twinned {
    if matches!(device.attribute("type"), Some("qemu-vdagent" | "dbus")) {
        return Twinned::Not;
    }
    let target = child(device, "target").map(|target| {
        let names = ["type", "port", "name"];
        Element::only(target, &names).holding(parts(target, &["model"]))
    });
    if child(device, "target").and_then(|target| target.attribute("type")) == Some("guestfwd") {
        return Twinned::Not;
    }
    let twin = Element::only(device, &["bus", "mode"]).with("type", "null");
    Twinned::As(twin.holding(target).holding(parts(device, &["address", "boot"])))
}

fn video(video: Node) -> Twinned {
    let acceleration = |model: Node| child(model, "acceleration")?.attribute("accel3d").map(str::to_owned);
    let model = child(video, "model");
    if child(video, "driver").and_then(|driver| driver.attribute("name")) == Some("vhostuser") {
        return Twinned::Not;
    }
    if model.and_then(acceleration).as_deref() != Some("yes") {
        return Twinned::As(Element::copy(video));
    }
    let model = model.map(|model| Element::copy(model).without(&["acceleration"]));
    let twin = Element::copy(video).without(&["model"]).holding(model);
    Twinned::Partly(twin, format!("acceleration of {}", label(video)))
}

/// A random number generator, which asks the host's kernel.
fn rng(rng: Node) -> Twinned {
    let backend = Element::new("backend");
    let backend = match backend_attribute(rng, "model") {
        Some("builtin") => backend.with("model", "builtin"),
        _ => backend.with("model", "random").saying("/dev/urandom"),
    };
    Twinned::As(
        Element::only(rng, &["model"]).holding([backend]).holding(parts(rng, &["driver", "address", "acpi"])),
    )
}

/// A memory device, with as little memory as it may have.
fn memory(device: Node, is_x86: bool) -> Twinned {
    let size = |node: Node, name: &str| child(node, name).and_then(bytes).map(|bytes| bytes >> 10);
    let kib = |name: &str, kib: u64| Element::new(name).with("unit", "KiB").saying(kib.to_string());
    let Some(target) = child(device, "target") else { return Twinned::Not };
    let least = if is_x86 { DIMM_KIB } else { LARGE_DIMM_KIB };
    let own = size(target, "size").unwrap_or(least);
    let sizes = match device.attribute("model") {
        Some("dimm") => vec![kib("size", own.min(least))],
        Some("virtio-mem") => {
            let block = size(target, "block").unwrap_or(least);
            vec![kib("size", own.min(least.max(block))), kib("requested", 0), kib("block", block)]
        }
        _ => return Twinned::Not,
    };
    let target = Element::new("target").holding(sizes).holding(parts(target, &["node"]));
    let address = child(device, "address").map(|address| match address.attribute("type") {
        // Its place in the guest's memory follows from the sizes.
        Some("dimm") => Element::only(address, &["type", "slot"]),
        _ => Element::copy(address),
    });
    Twinned::As(Element::only(device, &["model"]).holding([target]).holding(address))
}
