//! Files that the destination's QEMU opens as its own user, and those of them that libvirt gives to that user before.
//!
//! Only what QEMU opens by its path: libvirt itself opens logs, sockets that it binds, taps and vhost devices, as root.
//! The files that libvirt gives away are those of virSecurityDACSetAllLabel (libvirt 11.3).

use std::collections::BTreeSet;

use roxmltree::Node;
use vmgate_facts::{BootFile, Fact, OpenedFile, QemuUser, VmDisk, text::plain};

use super::{DomainConfig, child, children, sockets::connects_again};
use crate::capabilities::ownership;

/// Label of the domain for libvirt's DAC driver, which decides under which user QEMU runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserLabel {
    /// User of the domain itself; none for the user of the host.
    pub user: Option<Fact<QemuUser>>,
    /// True if libvirt gives the domain's files to that user.
    pub gives_files: bool,
    /// Files that are exempt from that.
    pub exempt: BTreeSet<String>,
}

impl Default for UserLabel {
    fn default() -> Self {
        Self { user: None, gives_files: true, exempt: BTreeSet::new() }
    }
}

/// Reads the domain's own label, and those of its disks' sources.
pub(super) fn user_label(domain: Node) -> UserLabel {
    let is_dac = |label: &Node| label.attribute("model") == Some("dac");
    let exempt = child(domain, "devices").into_iter().flat_map(|devices| devices.descendants());
    let exempt = exempt.filter(|node| node.has_tag_name("seclabel")).filter(is_dac);
    let exempt = exempt.filter_map(|label| label.parent());
    let paths = exempt.filter_map(|of| ["file", "dev", "path"].iter().find_map(|name| of.attribute(*name)));
    let exempt = paths.map(plain).collect();
    let Some(own) = children(domain, "seclabel").find(is_dac) else {
        return UserLabel { exempt, ..UserLabel::default() };
    };
    // A dynamic label is that of the host on which the domain runs now: the next host makes another.
    let fixed = own.attribute("type") == Some("static");
    let label = child(own, "label").and_then(|label| label.text()).filter(|_| fixed);
    let user = label.map(|label| {
        ownership(label).map_or_else(
            || {
                let why = format!(
                    "the VM's own label names its user by name ({}); vmgate reads numbers only, such as +64055:+64055",
                    plain(label)
                );
                Fact::unknown(vmgate_facts::Cause::NotSupported, why)
            },
            Fact::Known,
        )
    });
    let gives = match own.attribute("type") {
        Some("static") => own.attribute("relabel") == Some("yes"),
        Some("none") => false,
        _ => true,
    };
    UserLabel { user, gives_files: gives, exempt }
}

/// Devices' own files: character devices and sockets, input devices, memory, a display's render node.
pub(super) fn device_files(devices: Node) -> Vec<OpenedFile> {
    let mut found = Vec::new();
    for device in devices.children().filter(Node::is_element) {
        let purpose = device.tag_name().name();
        let source = || child(device, "source");
        let backend = child(device, "backend");
        let file = |path: &str, writes, given| OpenedFile {
            purpose: purpose.to_owned(),
            path: plain(path.trim()),
            writes,
            given,
        };
        match purpose {
            "serial" | "console" | "parallel" | "channel" | "redirdev" | "smartcard" => {
                let path = source().and_then(|source| source.attribute("path"));
                let connects =
                    source().is_some_and(|of| of.attribute("mode") == Some("connect") && !connects_again(of));
                match device.attribute("type") {
                    Some("dev") => found.extend(path.map(|path| file(path, true, true))),
                    Some("unix") if connects => found.extend(path.map(|path| file(path, true, true))),
                    _ => {}
                }
            }
            "rng" if backend.and_then(|end| end.attribute("model")) == Some("random") => {
                found.extend(backend.and_then(|end| end.text()).map(|path| file(path, false, false)));
            }
            "input" => {
                let path = source().and_then(|of| of.attribute("dev").or_else(|| of.attribute("evdev")));
                found.extend(path.map(|path| file(path, true, true)));
            }
            "graphics" => {
                let node = child(device, "gl").and_then(|gl| gl.attribute("rendernode"));
                found.extend(node.map(|path| file(path, true, true)));
            }
            "memory" => {
                let path = source().and_then(|source| child(source, "path")).and_then(|path| path.text());
                let read_only = child(device, "target").is_some_and(|end| child(end, "readonly").is_some());
                found.extend(path.map(|path| file(path, !read_only, true)));
            }
            "tpm" if backend.and_then(|end| end.attribute("type")) == Some("passthrough") => {
                let of = backend.and_then(|end| child(end, "device"));
                found.extend(of.and_then(|of| of.attribute("path")).map(|path| file(path, true, true)));
            }
            _ => {}
        }
    }
    found
}

impl DomainConfig {
    /// All files that QEMU opens as its own user, each once.
    pub fn opened_files(&self) -> Vec<OpenedFile> {
        let mut found: Vec<OpenedFile> = Vec::new();
        let disks = self.disks.iter().filter(|disk| !disk.optional).flat_map(of_disk);
        let boot = self.boot_files.iter().filter_map(of_boot);
        let firmware = self.firmware.iter().flat_map(|firmware| {
            let loader = ("loader", Some(&firmware.loader), false, false);
            let nvram = ("nvram", firmware.nvram.as_ref(), true, true);
            [loader, nvram].into_iter().filter_map(|(purpose, path, writes, given)| {
                Some(OpenedFile { purpose: purpose.to_owned(), path: path?.clone(), writes, given })
            })
        });
        for file in disks.chain(boot).chain(firmware).chain(self.device_files.iter().cloned()) {
            if !file.path.starts_with('/') {
                continue;
            }
            let given =
                file.given && self.user_label.gives_files && !self.user_label.exempt.contains(&file.path);
            match found.iter_mut().find(|other| other.path == file.path) {
                Some(other) => {
                    other.writes |= file.writes;
                    other.given |= given;
                }
                None => found.push(OpenedFile { given, ..file }),
            }
        }
        found
    }
}

/// A disk's own file or device, and those below it, which are only read.
fn of_disk(disk: &VmDisk) -> Vec<OpenedFile> {
    if !matches!(disk.kind.as_str(), "file" | "block" | "dir") {
        return Vec::new();
    }
    let own = OpenedFile {
        purpose: disk.target.clone(),
        path: disk.source.clone(),
        writes: !disk.read_only,
        given: disk.kind != "dir",
    };
    let below = disk.backing_files.iter().map(|path| OpenedFile {
        purpose: format!("{} below", disk.target),
        path: path.clone(),
        writes: false,
        given: true,
    });
    std::iter::once(own).chain(below).collect()
}

fn of_boot(file: &BootFile) -> Option<OpenedFile> {
    let given = match file.purpose.as_str() {
        "kernel" | "initrd" | "dtb" | "shim" | "acpi" | "fwcfg" => true,
        "rom" => false,
        // The emulator is run and not opened; back ends of devices are listed by themselves.
        _ => return None,
    };
    Some(OpenedFile { purpose: file.purpose.clone(), path: file.path.clone(), writes: false, given })
}

#[cfg(test)]
mod tests {
    use crate::domain_xml::parse;

    fn opened(label: &str) -> Vec<String> {
        let xml = format!(
            "<domain type='kvm'><os><type>hvm</type><kernel>/boot/vmlinuz</kernel>
             <loader type='pflash'>/usr/share/OVMF/CODE.fd</loader><nvram>/var/lib/nvram/a.fd</nvram></os>
             {label}<devices><emulator>/usr/bin/qemu</emulator>
             <disk type='file' device='disk'><source file='/srv/a.qcow2'/><backingStore type='file'>
               <source file='/srv/base.qcow2'/><backingStore/></backingStore><target dev='vda'/></disk>
             <disk type='block' device='disk'><source dev='/dev/vg/x'><seclabel model='dac' relabel='no'/></source>
               <target dev='vdb'/></disk>
             <disk type='file' device='cdrom'><source file='/srv/a.iso'/><target dev='sda'/><readonly/></disk>
             <disk type='file' device='cdrom'><source file='/srv/b.iso' startupPolicy='optional'/><target dev='sdb'/>
               <readonly/></disk>
             <disk type='network' device='disk'><source protocol='rbd' name='p/i'/><target dev='vdc'/></disk>
             <serial type='file'><source path='/var/log/c.log'/></serial>
             <serial type='dev'><source path='/dev/ttyS0'/></serial>
             <channel type='unix'><source mode='bind' path='/run/x'/></channel>
             <channel type='unix'><source mode='connect' path='/run/app.sock'/></channel>
             <rng model='virtio'><backend model='random'>/dev/hwrng</backend></rng>
             <memory model='nvdimm'><source><path>/srv/pmem</path></source></memory></devices></domain>"
        );
        let files = parse(&xml).unwrap().opened_files();
        let shown = |file: &vmgate_facts::OpenedFile| {
            let way = if file.writes { "rw" } else { "r" };
            format!("{} {way}{}", file.path, if file.given { " given" } else { "" })
        };
        files.iter().map(shown).collect()
    }

    #[test]
    fn what_libvirt_opens_by_itself_is_left_out() {
        let files = opened("");
        assert_eq!(
            files,
            [
                "/srv/a.qcow2 rw given",
                "/srv/base.qcow2 r given",
                "/dev/vg/x rw",
                "/srv/a.iso r given",
                "/boot/vmlinuz r given",
                "/usr/share/OVMF/CODE.fd r",
                "/var/lib/nvram/a.fd rw given",
                "/dev/ttyS0 rw given",
                "/run/app.sock rw given",
                "/dev/hwrng r",
                "/srv/pmem rw given",
            ]
        );
    }

    #[test]
    fn a_domain_with_a_label_of_its_own_may_keep_its_files_as_they_are() {
        let none_given = |label: &str| opened(label).iter().all(|file| !file.ends_with("given"));
        assert!(none_given("<seclabel type='static' model='dac'><label>+0:+0</label></seclabel>"));
        assert!(none_given("<seclabel type='none' model='dac'/>"));
        assert!(!none_given("<seclabel type='dynamic' model='dac' relabel='yes'/>"));
        assert!(!none_given(
            "<seclabel type='static' model='dac' relabel='yes'><label>0:0</label></seclabel>"
        ));
        let user = |label: &str| {
            let xml = format!("<domain><seclabel type='{label}'><label>+107:+36</label></seclabel></domain>");
            parse(&xml).unwrap().user_label.user.map(|user| user.known().map(|user| (user.uid, user.gid)))
        };
        assert_eq!(user("static' model='dac"), Some(Some((107, 36))));
        assert_eq!(user("dynamic' model='dac"), None, "that user is the source's");
        assert_eq!(user("static' model='selinux"), None);
    }
}
