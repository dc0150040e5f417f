//! Disks of a VM, its firmware and its block jobs, as QEMU's monitor tells them (query-block).

use serde_json::Value;
use vmgate_facts::{Firmware, VmDisk, text::plain};

use crate::qemu::process::Qemu;

/// Most images of one chain that are followed.
const LONGEST_CHAIN: usize = 200;

/// Disks of a VM, and what of its block devices is no disk.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct BlockDevices {
    pub(crate) disks: Vec<VmDisk>,
    pub(crate) firmware: Option<Firmware>,
}

/// Reads the answers of query-block and of query-block-jobs.
pub(crate) fn of(block: &Value, jobs: &Value, qemu: &Qemu) -> BlockDevices {
    let mut found = BlockDevices::default();
    let mut flash = Vec::new();
    for device in block.as_array().into_iter().flatten() {
        let Some(inserted) = device.get("inserted").filter(|inserted| inserted.is_object()) else { continue };
        if text(device, "qdev").contains("flash") || text(device, "device").starts_with("pflash") {
            flash.push((
                text(device, "qdev") + &text(device, "device"),
                files(inserted).into_iter().next().unwrap_or_default(),
            ));
        } else {
            found.disks.push(disk(device, inserted, jobs, qemu));
        }
    }
    flash.sort();
    let mut files = flash.into_iter().map(|(_, file)| file);
    if let Some(loader) = files.next() {
        let secure = qemu.values("-global").any(|value| value.contains("pflash01") && value.ends_with("=on"));
        found.firmware = Some(Firmware { loader, nvram: files.next(), nvram_template: None, secure });
    }
    found
}

fn disk(device: &Value, inserted: &Value, jobs: &Value, qemu: &Qemu) -> VmDisk {
    let (drive, node) = (text(device, "device"), text(inserted, "node-name"));
    let qdev = text(device, "qdev");
    let front = qdev.strip_prefix("/machine/peripheral/").and_then(|rest| rest.split('/').next());
    let names = [front.unwrap_or(&qdev), drive.trim_start_matches("drive-"), &node];
    let target = names.into_iter().find(|name| !name.is_empty()).unwrap_or_default().to_owned();
    let job = jobs.as_array().into_iter().flatten().find(|job| {
        let of = text(job, "device");
        of == drive || of == node || of == target
    });
    let mut chain = files(inserted).into_iter();
    let source = chain.next().unwrap_or_default();
    let mut formats = images(inserted).map(|image| text(image, "format"));
    let yes = |name: &str| inserted.pointer(&format!("/cache/{name}")).and_then(Value::as_bool) == Some(true);
    let removable = device.get("removable").and_then(Value::as_bool) == Some(true);
    let shared = |front: &crate::qemu::process::Object| {
        [&drive, &node].iter().any(|drive| front.get("drive") == Some(drive))
            && matches!(front.get("share-rw"), Some("on" | "true"))
    };
    VmDisk {
        kind: kind(&source).to_owned(),
        volume: None,
        cache: match (yes("no-flush"), yes("direct"), yes("writeback")) {
            (true, ..) => "unsafe",
            (_, true, true) => "none",
            (_, true, false) => "directsync",
            (_, false, true) => "writeback",
            (_, false, false) => "writethrough",
        }
        .to_owned(),
        read_only: inserted.get("ro").and_then(Value::as_bool) == Some(true),
        shareable: qemu.objects("-device").any(|front| shared(&front)),
        device: if removable { "cdrom" } else { "disk" }.to_owned(),
        transient: qemu.has("-snapshot"),
        optional: false,
        format: formats.next(),
        backing_formats: formats.collect(),
        backing_files: chain.collect(),
        job: job.map(|job| {
            match text(job, "type").as_str() {
                "mirror" => "copy",
                "stream" => "pull",
                "commit" => "commit",
                "backup" => "backup",
                _ => "unknown",
            }
            .to_owned()
        }),
        target,
        source,
    }
}

/// The image and those below it.
fn images(inserted: &Value) -> impl Iterator<Item = &Value> {
    std::iter::successors(inserted.get("image"), |image| image.get("backing-image")).take(LONGEST_CHAIN)
}

/// Files of the image and of those below it.
fn files(inserted: &Value) -> Vec<String> {
    let mut files: Vec<String> = images(inserted).map(|image| file(&text(image, "filename"))).collect();
    if files.is_empty() {
        files.push(file(&text(inserted, "file")));
    }
    files
}

/// The file that a name of QEMU's stands for: a path, or a description in JSON with the file in its midst.
fn file(name: &str) -> String {
    fn within(node: &Value) -> Option<&str> {
        match node {
            Value::Object(fields) => fields
                .get("filename")
                .and_then(Value::as_str)
                .or_else(|| ["file", "raw"].iter().find_map(|name| within(fields.get(*name)?))),
            _ => None,
        }
    }
    let description = name.strip_prefix("json:").and_then(|json| serde_json::from_str::<Value>(json).ok());
    plain(description.as_ref().and_then(within).unwrap_or(name))
}

fn kind(source: &str) -> &'static str {
    let protocol = source.split_once(':').map_or("", |(protocol, _)| protocol);
    match protocol {
        _ if source.starts_with("/dev/") => "block",
        _ if source.starts_with('/') => "file",
        "fat" => "dir",
        "nvme" => "nvme",
        _ => "network",
    }
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).map(plain).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::qemu::disks::*;

    fn image(format: &str, filename: &str) -> Value {
        json!({ "format": format, "filename": filename })
    }

    #[test]
    fn disks_are_read_with_what_is_below_them() {
        let mut top = image("qcow2", "/srv/images/web1.qcow2");
        top["backing-image"] = image("raw", "/srv/images/base.raw");
        let cache = json!({ "writeback": true, "direct": true, "no-flush": false });
        let block = json!([
            { "device": "drive-scsi0", "qdev": "scsi0", "removable": false, "inserted":
                { "node-name": "#block1", "ro": false, "cache": cache, "image": top } },
            { "device": "", "qdev": "/machine/peripheral/ide2", "removable": true },
            { "device": "pflash0", "qdev": "/machine/system.flash0", "inserted":
                { "ro": true, "image": image("raw", "/usr/share/OVMF_CODE.fd") } },
        ]);
        let jobs = json!([{ "device": "drive-scsi0", "type": "mirror" }]);
        let found = of(&block, &jobs, &Qemu::default());
        let [disk] = found.disks.as_slice() else { panic!("{found:?}") };
        assert_eq!(
            (disk.target.as_str(), disk.kind.as_str(), disk.cache.as_str()),
            ("scsi0", "file", "none")
        );
        assert_eq!(disk.backing_files, ["/srv/images/base.raw"]);
        assert_eq!((disk.format.as_deref(), disk.job.as_deref()), (Some("qcow2"), Some("copy")));
        assert_eq!(found.firmware.unwrap().loader, "/usr/share/OVMF_CODE.fd");
    }

    #[test]
    fn a_file_is_found_in_qemus_description_of_it() {
        let throttled = r#"json:{"throttle-group": "t", "driver": "throttle", "file": {"driver": "raw", "file": {"driver": "host_device", "filename": "/dev/pve/vm-100-disk-0"}}}"#;
        assert_eq!(file(throttled), "/dev/pve/vm-100-disk-0");
        assert_eq!(kind("/dev/pve/vm-100-disk-0"), "block");
        assert_eq!(kind("rbd:pool/vm-100-disk-0"), "network");
        assert_eq!(file("json:{"), "json:{");
    }
}
