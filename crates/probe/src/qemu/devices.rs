//! Devices that QEMU was given, as the catalogue of components names them: kind and model as in libvirt's domain XML.

use serde_json::{Value, json};
use vmgate_facts::{Fact, HostDevice, VmComponent, text::plain};

use crate::qemu::monitor::{Monitor, MonitorError};

/// Folders of QEMU's object tree that hold what a user gave the machine, when it started or later.
const FOLDERS: [&str; 2] = ["/machine/peripheral", "/machine/peripheral-anon"];

/// Ends of a virtio device's name that say how it is attached.
const TRANSPORTS: [&str; 5] = ["-pci-non-transitional", "-pci-transitional", "-pci", "-ccw", "-device"];

/// Drivers with their kind and model in the catalogue.
const COMPONENTS: &[(&str, &str, &str)] = &[
    ("virtio-blk", "disk", "virtio"),
    ("scsi-hd", "disk", "scsi"),
    ("scsi-cd", "disk", "scsi"),
    ("ide-hd", "disk", "ide"),
    ("ide-cd", "disk", "ide"),
    ("floppy", "disk", "fdc"),
    ("usb-storage", "disk", "usb usb-storage"),
    ("nvme", "controller", "nvme"),
    ("nvme-ns", "disk", "nvme"),
    ("virtio-scsi", "controller", "scsi virtio-scsi"),
    ("virtio-serial", "controller", "virtio-serial virtio"),
    ("lsi", "controller", "scsi lsilogic"),
    ("lsi53c895a", "controller", "scsi lsilogic"),
    ("megasas", "controller", "scsi lsisas1078"),
    ("mptsas1068", "controller", "scsi lsisas1068"),
    ("pvscsi", "controller", "scsi vmpvscsi"),
    ("am53c974", "controller", "scsi am53c974"),
    ("ahci", "controller", "sata"),
    ("ich9-ahci", "controller", "sata"),
    ("piix3-ide", "controller", "ide"),
    ("pci-bridge", "controller", "pci pci-bridge"),
    ("i82801b11-bridge", "controller", "pci dmi-to-pci-bridge"),
    ("pcie-pci-bridge", "controller", "pci pcie-to-pci-bridge"),
    ("pcie-root-port", "controller", "pci pcie-root-port"),
    ("ioh3420", "controller", "pci pcie-root-port"),
    ("piix3-usb-uhci", "controller", "usb piix3-uhci"),
    ("piix4-usb-uhci", "controller", "usb piix4-uhci"),
    ("usb-ehci", "controller", "usb ehci"),
    ("ich9-usb-ehci1", "controller", "usb ich9-ehci1"),
    ("ich9-usb-uhci1", "controller", "usb ich9-uhci1"),
    ("ich9-usb-uhci2", "controller", "usb ich9-uhci2"),
    ("ich9-usb-uhci3", "controller", "usb ich9-uhci3"),
    ("nec-usb-xhci", "controller", "usb nec-xhci"),
    ("qemu-xhci", "controller", "usb qemu-xhci"),
    ("virtio-net", "interface", "virtio"),
    ("e1000", "interface", "e1000"),
    ("e1000e", "interface", "e1000e"),
    ("igb", "interface", "igb"),
    ("rtl8139", "interface", "rtl8139"),
    ("pcnet", "interface", "pcnet"),
    ("ne2k_pci", "interface", "ne2k_pci"),
    ("vmxnet3", "interface", "vmxnet3"),
    ("i82551", "interface", "i82551"),
    ("i82557b", "interface", "i82557b"),
    ("i82559er", "interface", "i82559er"),
    ("usb-net", "interface", "usb-net"),
    ("VGA", "video", "vga"),
    ("cirrus-vga", "video", "cirrus"),
    ("qxl", "video", "qxl"),
    ("qxl-vga", "video", "qxl"),
    ("virtio-vga", "video", "virtio"),
    ("virtio-gpu", "video", "virtio"),
    ("virtio-vga-gl", "video", "virtio accel3d"),
    ("virtio-gpu-gl", "video", "virtio accel3d"),
    ("bochs-display", "video", "bochs"),
    ("vmware-svga", "video", "vmvga"),
    ("ich9-intel-hda", "sound", "ich9"),
    ("intel-hda", "sound", "ich6"),
    ("hda-duplex", "sound", "ich6"),
    ("hda-micro", "sound", "ich6"),
    ("AC97", "sound", "ac97"),
    ("isa-serial", "serial", "isa-serial"),
    ("pci-serial", "serial", "pci-serial"),
    ("usb-serial", "serial", "usb-serial"),
    ("virtserialport", "channel", "virtio"),
    ("virtconsole", "console", "virtio"),
    ("usb-tablet", "input", "tablet usb"),
    ("usb-mouse", "input", "mouse usb"),
    ("usb-kbd", "input", "keyboard usb"),
    ("virtio-tablet", "input", "tablet virtio"),
    ("virtio-mouse", "input", "mouse virtio"),
    ("virtio-keyboard", "input", "keyboard virtio"),
    ("virtio-input-host", "input", "passthrough virtio"),
    ("virtio-balloon", "memballoon", "virtio"),
    ("virtio-rng", "rng", "virtio"),
    ("pc-dimm", "memory", "dimm"),
    ("nvdimm", "memory", "nvdimm"),
    ("virtio-mem", "memory", "virtio-mem"),
    ("virtio-pmem", "memory", "virtio-pmem"),
    ("i6300esb", "watchdog", "i6300esb"),
    ("ib700", "watchdog", "ib700"),
    ("pvpanic", "panic", "isa"),
    ("pvpanic-pci", "panic", "pvpanic"),
    ("vhost-vsock", "vsock", "virtio"),
    ("intel-iommu", "iommu", "intel"),
    ("amd-iommu", "iommu", "amd"),
    ("virtio-iommu", "iommu", "virtio"),
    ("virtio-crypto", "crypto", "virtio"),
    ("usb-hub", "hub", "usb"),
    ("usb-redir", "redirdev", "usb"),
    ("tpm-tis", "tpm", "tpm-tis"),
    ("tpm-crb", "tpm", "tpm-crb"),
    ("vmgenid", "genid", ""),
];

/// Drivers of devices that belong to the host: kind, model where the driver decides it, and the property with the address.
const OF_THE_HOST: &[(&str, &str, Option<&str>, &str)] = &[
    ("vfio-pci", "pci", None, "host"),
    ("usb-host", "usb", Some(""), "hostdevice"),
    ("virtio-9p", "9p", Some(""), "mount_tag"),
    ("vhost-user-fs", "virtiofs", Some("external"), "tag"),
    ("ivshmem-plain", "shmem", Some("peer"), "id"),
    ("ivshmem-doorbell", "shmem", Some("peer"), "id"),
    ("vhost-user-blk", "vhost-user", Some("disk"), "chardev"),
    ("vhost-user-gpu", "vhost-user", Some("video"), "chardev"),
    ("vhost-user-vga", "vhost-user", Some("video"), "chardev"),
    ("vhost-scsi", "scsi_host", Some(""), "wwpn"),
    ("scsi-block", "scsi", Some(""), "drive"),
    ("scsi-generic", "scsi", Some(""), "drive"),
];

/// Device that a user gave the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    /// Path in QEMU's object tree.
    path: String,
    /// Driver, without the way in which a virtio device is attached.
    pub(crate) driver: String,
}

impl Device {
    fn of(folder: &str, entry: &Value) -> Option<Self> {
        let driver = entry.get("type")?.as_str()?.strip_prefix("child<")?.strip_suffix('>')?;
        let bare = TRANSPORTS.iter().find_map(|end| driver.strip_suffix(end));
        let bare = bare.filter(|bare| bare.starts_with("virtio-") || bare.starts_with("vhost-"));
        let path = format!("{folder}/{}", entry.get("name")?.as_str()?);
        Some(Self { path, driver: bare.unwrap_or(driver).to_owned() })
    }

    /// A property; empty where the device has none of that name.
    pub(crate) fn property(&self, monitor: &mut Monitor, name: &str) -> Value {
        let arguments = json!({ "path": self.path, "property": name });
        monitor.ask_with("qom-get", &arguments).unwrap_or(Value::Null)
    }

    /// A property that is a text.
    pub(crate) fn text(&self, monitor: &mut Monitor, name: &str) -> Option<String> {
        self.property(monitor, name).as_str().filter(|text| !text.is_empty()).map(plain)
    }

    /// Kind and model in the catalogue; a driver that no table names stands for itself.
    pub(crate) fn component(&self) -> (&str, &str) {
        COMPONENTS
            .iter()
            .find(|(driver, ..)| *driver == self.driver)
            .map_or(("device", &self.driver), |(_, kind, model)| (*kind, *model))
    }

    fn is_of_the_host(&self) -> bool {
        OF_THE_HOST.iter().any(|(driver, ..)| *driver == self.driver)
    }
}

/// All devices that a user gave the machine.
pub(crate) fn list(monitor: &mut Monitor) -> Result<Vec<Device>, MonitorError> {
    let mut found = Vec::new();
    for folder in FOLDERS {
        let entries = monitor.ask_with("qom-list", &json!({ "path": folder }))?;
        found.extend(entries.as_array().into_iter().flatten().filter_map(|entry| Device::of(folder, entry)));
    }
    // vCPUs that were plugged in are counted elsewhere.
    found.retain(|device| !device.driver.ends_with("-cpu"));
    Ok(found)
}

/// Components, sorted, each once. `others` are those that are no devices.
pub(crate) fn components(
    devices: &[Device],
    others: impl IntoIterator<Item = (String, String)>,
) -> Vec<VmComponent> {
    let named = devices.iter().filter(|device| !device.is_of_the_host()).map(|device| {
        let (kind, model) = device.component();
        (kind.to_owned(), model.to_owned())
    });
    let mut all: Vec<_> = named.chain(others).collect();
    all.sort();
    all.dedup();
    all.into_iter()
        .map(|(kind, model)| VmComponent { kind, model, migrates: Fact::default(), why: None })
        .collect()
}

/// Devices that tie the VM to its host.
pub(crate) fn of_the_host(devices: &[Device], monitor: &mut Monitor) -> Vec<HostDevice> {
    let mut found = Vec::new();
    for device in devices {
        let Some((_, kind, model, address)) =
            OF_THE_HOST.iter().find(|(driver, ..)| *driver == device.driver)
        else {
            continue;
        };
        let id = || plain(device.path.rsplit('/').next().unwrap_or_default());
        found.push(HostDevice {
            kind: (*kind).to_owned(),
            address: device.text(monitor, address).unwrap_or_else(id),
            model: model.map_or_else(Fact::default, |model| Fact::Known(model.to_owned())),
            ..HostDevice::default()
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use crate::qemu::devices::*;

    fn device(kind: &str) -> Device {
        let entry = json!({ "name": "net0", "type": format!("child<{kind}>") });
        Device::of("/machine/peripheral", &entry).unwrap()
    }

    #[test]
    fn a_driver_is_named_as_the_catalogue_names_it() {
        for (driver, component) in [
            ("virtio-net-pci", ("interface", "virtio")),
            ("virtio-blk-pci-non-transitional", ("disk", "virtio")),
            ("virtio-balloon", ("memballoon", "virtio")),
            ("VGA", ("video", "vga")),
            ("pvpanic-pci", ("panic", "pvpanic")),
            ("brand-new-device", ("device", "brand-new-device")),
        ] {
            assert_eq!(device(driver).component(), component, "{driver}");
        }
        assert!(Device::of("/machine/peripheral", &json!({ "name": "type", "type": "string" })).is_none());
    }

    #[test]
    fn devices_of_the_host_are_no_components() {
        let all = [device("vfio-pci"), device("virtio-net-pci"), device("virtio-net-pci")];
        let named = components(&all, [("image".to_owned(), "qcow2".to_owned())]);
        let named: Vec<_> = named.iter().map(|one| (one.kind.as_str(), one.model.as_str())).collect();
        assert_eq!(named, [("image", "qcow2"), ("interface", "virtio")]);
    }
}
