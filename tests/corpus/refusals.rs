//! The oracle: configurations that libvirt 11.3 or QEMU 10.0 refuses to migrate whatever the destination is, by their sources, and
//! apart from vmgate's rules.

use roxmltree::Node;

/// Reason for which a domain never migrates.
pub(crate) struct Refusal {
    /// The reason, as the source has it.
    pub(crate) name: &'static str,
    /// Function or file of libvirt or QEMU that refuses.
    pub(crate) source: &'static str,
    /// True for a domain that has it.
    applies: fn(&Domain) -> bool,
}

struct Domain<'a, 'input>(Node<'a, 'input>);

impl<'a, 'input> Domain<'a, 'input> {
    /// Elements by path below the domain.
    fn all(&self, path: &str) -> Vec<Node<'a, 'input>> {
        path.split('/').fold(vec![self.0], |nodes, name| {
            nodes.iter().flat_map(roxmltree::Node::children).filter(|node| node.has_tag_name(name)).collect()
        })
    }

    /// True if an element at the path has this value in an attribute.
    fn has(&self, path: &str, attribute: &str, values: &[&str]) -> bool {
        self.all(path)
            .iter()
            .any(|node| node.attribute(attribute).is_some_and(|value| values.contains(&value)))
    }
}

/// Names of what refuses the domain.
pub(crate) fn of(domain: Node) -> Vec<&'static Refusal> {
    let domain = Domain(domain);
    ALL.iter().filter(|refusal| (refusal.applies)(&domain)).collect()
}

/// Images that a disk of the guest has open, its backing chain included, by libvirt's names of formats.
fn has_image(domain: &Domain, formats: &[&str]) -> bool {
    let listed = |node: Node| node.attribute("type").is_some_and(|format| formats.contains(&format));
    domain.all("devices/disk").iter().any(|disk| {
        let own = disk.children().find(|node| node.has_tag_name("driver")).is_some_and(listed);
        let has_medium = disk.children().any(|node| node.has_tag_name("source"));
        // A format of the drive counts only with a medium in it.
        (own && has_medium) || disk.descendants().any(|node| node.has_tag_name("format") && listed(node))
    })
}

pub(crate) const ALL: &[Refusal] = &[
    Refusal {
        name: "transient disk",
        source: "qemuMigrationSrcIsAllowed",
        applies: |domain| !domain.all("devices/disk/transient").is_empty(),
    },
    Refusal {
        name: "shared memory without role master",
        source: "qemuMigrationSrcIsAllowed",
        applies: |domain| {
            domain.all("devices/shmem").iter().any(|shmem| shmem.attribute("role") != Some("master"))
        },
    },
    Refusal {
        name: "invariant TSC without a frequency",
        source: "qemuMigrationSrcIsAllowed",
        applies: |domain| {
            let demanded = domain.all("cpu/feature").iter().any(|feature| {
                feature.attribute("name") == Some("invtsc")
                    && matches!(feature.attribute("policy"), None | Some("require" | "force"))
            });
            let fixed = domain.all("clock/timer").iter().any(|timer| {
                timer.attribute("name") == Some("tsc") && timer.attribute("frequency").is_some()
            });
            demanded && !fixed
        },
    },
    Refusal {
        name: "block job that copies",
        source: "qemuDomainHasBlockjob",
        applies: |domain| !domain.all("devices/disk/mirror").is_empty(),
    },
    Refusal {
        name: "disk on a local NVMe controller",
        source: "qemuMigrationSrcIsSafe",
        applies: |domain| {
            domain.all("devices/disk").iter().any(|disk| {
                disk.attribute("type") == Some("nvme")
                    && !disk.children().any(|node| node.has_tag_name("readonly"))
            })
        },
    },
    Refusal {
        name: "files handed over by descriptor",
        source: "qemuDomainPrepareStorageSourceFDs",
        applies: |domain| {
            domain.0.descendants().any(|node| node.has_tag_name("source") && node.has_attribute("fdgroup"))
        },
    },
    Refusal {
        name: "virtio crypto",
        source: "hw/virtio/virtio-crypto.c: unmigratable",
        applies: |domain| domain.has("devices/crypto", "model", &["virtio"]),
    },
    Refusal {
        name: "virtio or USB sound",
        source: "hw/audio/virtio-snd.c, hw/usb/dev-audio.c: unmigratable",
        applies: |domain| domain.has("devices/sound", "model", &["virtio", "usb"]),
    },
    Refusal {
        name: "input device of the host",
        source: "hw/input/virtio-input-host.c: unmigratable",
        applies: |domain| domain.has("devices/input", "type", &["passthrough"]),
    },
    Refusal {
        name: "USB network card",
        source: "hw/usb/dev-network.c: unmigratable",
        applies: |domain| domain.has("devices/interface/model", "type", &["usb-net"]),
    },
    Refusal {
        name: "USB serial port",
        source: "hw/usb/dev-serial.c: unmigratable",
        applies: |domain| domain.has("devices/serial/target", "type", &["usb-serial"]),
    },
    Refusal {
        name: "AMD IOMMU",
        source: "hw/i386/amd_iommu.c: unmigratable",
        applies: |domain| domain.has("devices/iommu", "model", &["amd"]),
    },
    Refusal {
        name: "emulated NVMe controller",
        source: "hw/nvme/ctrl.c: unmigratable",
        applies: |domain| {
            domain.has("devices/controller", "type", &["nvme"])
                || domain.has("devices/disk/target", "bus", &["nvme"])
        },
    },
    Refusal {
        name: "channel subsystem or crypto adapter of the host",
        source: "hw/vfio/ccw.c, hw/vfio/ap.c: unmigratable",
        applies: |domain| domain.has("devices/hostdev", "model", &["vfio-ccw", "vfio-ap"]),
    },
    Refusal {
        name: "PCI device of a guest on s390",
        source: "hw/s390x/s390-pci-bus.c: zpci is unmigratable",
        applies: |domain| {
            domain.0.descendants().any(|node| {
                node.has_tag_name("address") && node.children().any(|inner| inner.has_tag_name("zpci"))
            })
        },
    },
    Refusal {
        name: "vhost-scsi adapter",
        source: "hw/scsi/vhost-scsi.c: migration blocker",
        applies: |domain| domain.has("devices/hostdev", "type", &["scsi_host"]),
    },
    Refusal {
        name: "virtio GPU with 3D",
        source: "hw/display/virtio-gpu-base.c: migration blocker",
        applies: |domain| {
            domain.all("devices/video/model").iter().any(|model| {
                model.attribute("type") == Some("virtio")
                    && model.children().any(|node| {
                        node.has_tag_name("acceleration") && node.attribute("accel3d") == Some("yes")
                    })
            })
        },
    },
    Refusal {
        name: "image that QEMU caches",
        source: "block/{qcow,vdi,vmdk,vpc,vhdx,parallels}.c: migration blocker",
        applies: |domain| has_image(domain, &["qcow", "vdi", "vmdk", "vpc", "vhd", "ploop"]),
    },
    Refusal {
        name: "CPU with features that do not migrate",
        source: "target/i386/kvm/kvm.c: invtsc blocker, on any host with an invariant TSC",
        applies: |domain| domain.has("cpu", "migratable", &["off"]),
    },
    Refusal {
        name: "Hyper-V passthrough",
        source: "target/i386/kvm/kvm.c: hv-passthrough blocker",
        applies: |domain| domain.has("features/hyperv", "mode", &["passthrough"]),
    },
    Refusal {
        name: "encrypted memory",
        source: "target/i386/sev.c, hw/s390x/s390-virtio-ccw.c: migration blocker",
        applies: |domain| domain.has("launchSecurity", "type", &["sev", "sev-snp", "s390-pv", "tdx"]),
    },
    Refusal {
        name: "clipboard of QEMU itself, before QEMU 10.1",
        source: "ui/vdagent.c: migration blocker",
        applies: |domain| domain.has("devices/channel", "type", &["qemu-vdagent"]),
    },
    Refusal {
        name: "CPU that QEMU cannot migrate",
        source: "target/sh4/cpu.c, target/xtensa/cpu.c: unmigratable",
        applies: |domain| domain.has("os/type", "arch", &["sh4", "sh4eb", "xtensa", "xtensaeb"]),
    },
];
