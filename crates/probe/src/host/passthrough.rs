//! Devices of a host that VMs have or would have: presence, driver and what the driver tells about migration.
//!
//! Reads /sys and debugfs only. The VFIO group of a device, which could be asked directly, belongs to the VM's QEMU.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use vmgate_facts::{Cause, Fact, PassthroughDevice, text::plain};

/// Most devices of a bus that are looked through.
const MOST_DEVICES: usize = 4096;

/// Device that the probe is asked about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeviceAddress {
    /// Kind as in the VM's facts: pci, mdev, usb, scsi.
    pub kind: String,
    /// Address as the VM's configuration writes it.
    pub address: String,
}

/// Looks for each device. One of a kind that has no place in /sys is left out.
pub(super) fn look(devices: &[DeviceAddress]) -> Vec<PassthroughDevice> {
    look_in(Path::new("/sys"), devices)
}

fn look_in(sys: &Path, devices: &[DeviceAddress]) -> Vec<PassthroughDevice> {
    devices.iter().filter_map(|device| one(sys, device)).collect()
}

fn one(sys: &Path, device: &DeviceAddress) -> Option<PassthroughDevice> {
    let address = device.address.as_str();
    let on_bus =
        |bus: &str, name: &str| Some(sys.join("bus").join(bus).join("devices").join(file_name(name)?));
    let folder = match device.kind.as_str() {
        "pci" => on_bus("pci", address),
        "mdev" => on_bus("mdev", address),
        "usb" => usb(sys, address),
        "scsi" => on_bus("scsi", &scsi(address)?),
        _ => return None,
    };
    let folder = folder.filter(|folder| folder.exists());
    let driver = folder.as_deref().and_then(|folder| name_of_link(&folder.join("driver")));
    let saves_state = match device.kind.as_str() {
        "pci" | "mdev" => saves_state(sys, address),
        _ => Fact::unknown(Cause::NotSupported, "the kernel tells nothing of the state of such a device"),
    };
    Some(PassthroughDevice {
        address: address.to_owned(),
        present: folder.is_some(),
        driver,
        model: folder.as_deref().and_then(model),
        saves_state,
    })
}

/// The word of the kernel's VFIO driver about migration: its folder in debugfs has one for migration if the device has it, and
/// lists its features (Documentation/ABI/testing/debugfs-vfio).
fn saves_state(sys: &Path, address: &str) -> Fact<bool> {
    let vfio = sys.join("kernel/debug/vfio");
    let untold = |why: String| Fact::unknown(Cause::NotSupported, why);
    let Some(folder) = file_name(address).map(|name| vfio.join(name)).filter(|folder| folder.is_dir()) else {
        return untold(format!(
            "the kernel shows no VFIO device {address} in {} (CONFIG_VFIO_DEBUGFS)",
            vfio.display()
        ));
    };
    if !folder.join("migration").is_dir() {
        return Fact::Known(false);
    }
    match fs::read_to_string(folder.join("migration/features")) {
        Ok(features) => {
            let has = |feature: &str| features.split_whitespace().any(|word| word == feature);
            Fact::Known(has("stop-copy") && has("dirty-tracking"))
        }
        Err(_) => untold(format!(
            "the driver of {address} saves its state, but this kernel does not tell if it tracks which memory the device writes"
        )),
    }
}

/// Vendor and device of a PCI or USB device, type of a mediated device.
fn model(folder: &Path) -> Option<String> {
    let id = |name: &str| {
        let text = fs::read_to_string(folder.join(name)).ok()?;
        Some(plain(text.trim().trim_start_matches("0x")))
    };
    let pair = |vendor, device| Some(format!("{}:{}", id(vendor)?, id(device)?));
    pair("vendor", "device")
        .or_else(|| pair("idVendor", "idProduct"))
        .or_else(|| name_of_link(&folder.join("mdev_type")))
}

/// Folder of a USB device, by `vendor:product` in hexadecimal or `bus:device` in decimal.
fn usb(sys: &Path, address: &str) -> Option<PathBuf> {
    let (first, second) = address.split_once(':')?;
    let (names, radix) =
        if first.starts_with("0x") { (["idVendor", "idProduct"], 16) } else { (["busnum", "devnum"], 10) };
    let number = |text: &str| u32::from_str_radix(text.trim().trim_start_matches("0x"), radix).ok();
    let wanted = (number(first)?, number(second)?);
    let devices = fs::read_dir(sys.join("bus/usb/devices")).ok()?;
    devices.flatten().take(MOST_DEVICES).map(|entry| entry.path()).find(|folder| {
        let read = |name: &str| number(&fs::read_to_string(folder.join(name)).ok()?);
        let [one, other] = names;
        read(one).zip(read(other)) == Some(wanted)
    })
}

/// Name in /sys of the SCSI device `scsi_host0 0:1:2`.
fn scsi(address: &str) -> Option<String> {
    let (host, rest) = address.strip_prefix("scsi_host")?.split_once(' ')?;
    Some(format!("{host}:{rest}"))
}

/// The text as the name of one file; none for a text that leads elsewhere.
fn file_name(text: &str) -> Option<&str> {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'.' | b'-');
    (!text.is_empty() && !text.starts_with('.') && text.bytes().all(safe)).then_some(text)
}

fn name_of_link(link: &Path) -> Option<String> {
    let target = fs::read_link(link).ok()?;
    Some(plain(&target.file_name()?.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A /sys with a virtual function, a mediated device, a USB key and a SCSI disk.
    fn sys() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let pci = "bus/pci/devices/0000:3b:00.1";
        write(&format!("{pci}/vendor"), "0x15b3\n");
        write(&format!("{pci}/device"), "0x101e\n");
        symlink("../../../drivers/mlx5_vfio_pci", root.path().join(pci).join("driver")).unwrap();
        write("kernel/debug/vfio/0000:3b:00.1/migration/features", "stop-copy\np2p\ndirty-tracking\n");
        write("bus/pci/devices/0000:3b:00.2/vendor", "0x15b3\n");
        write("kernel/debug/vfio/0000:3b:00.2/x", "");
        write("kernel/debug/vfio/0000:3b:00.3/migration/state", "RUNNING\n");
        write("bus/mdev/devices/u-1/x", "");
        symlink("../types/nvidia-222", root.path().join("bus/mdev/devices/u-1/mdev_type")).unwrap();
        for (name, text) in [("idVendor", "1050"), ("idProduct", "0407"), ("busnum", "1"), ("devnum", "12")] {
            write(&format!("bus/usb/devices/1-2/{name}"), text);
        }
        write("bus/scsi/devices/0:0:1:2/x", "");
        root
    }

    fn ask(kind: &str, address: &str) -> Option<PassthroughDevice> {
        let root = sys();
        let device = DeviceAddress { kind: kind.to_owned(), address: address.to_owned() };
        look_in(root.path(), &[device]).pop()
    }

    #[test]
    fn a_virtual_function_has_its_driver_its_model_and_the_kernels_word() {
        let vf = ask("pci", "0000:3b:00.1").unwrap();
        assert_eq!((vf.present, vf.driver.as_deref()), (true, Some("mlx5_vfio_pci")));
        assert_eq!((vf.model.as_deref(), vf.saves_state), (Some("15b3:101e"), Fact::Known(true)));
        assert_eq!(ask("pci", "0000:3b:00.2").unwrap().saves_state, Fact::Known(false));
        let old = ask("pci", "0000:3b:00.3").unwrap();
        assert!(
            !old.present && old.saves_state.known().is_none(),
            "no list of features: the kernel is older"
        );
        assert!(ask("pci", "0000:3b:00.4").unwrap().saves_state.known().is_none());
    }

    #[test]
    fn other_devices_are_found_by_the_address_in_the_configuration() {
        assert_eq!(ask("mdev", "u-1").unwrap().model.as_deref(), Some("nvidia-222"));
        assert_eq!(ask("usb", "0x1050:0x0407").unwrap().model.as_deref(), Some("1050:0407"));
        assert!(ask("usb", "1:12").unwrap().present && !ask("usb", "1:13").unwrap().present);
        assert!(ask("scsi", "scsi_host0 0:1:2").unwrap().present);
        assert_eq!(ask("scsi", "iscsi"), None);
        assert_eq!(ask("virtiofs", "a"), None);
    }

    #[test]
    fn an_address_does_not_lead_out_of_its_folder() {
        for address in ["../../../kernel", ".", "..", "a/b", ""] {
            assert!(!ask("pci", address).unwrap().present, "{address}");
        }
    }
}
