//! Twins of VMs with many kinds of devices.

use super::*;

/// A VM with every kind of device that a twin has, has in part, or has not.
const MANY: &str = include_str!("many-devices.xml");

fn identity() -> TwinIdentity {
    TwinIdentity {
        name: "vmgate-twin-x".to_owned(),
        uuid: "5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d99".parse().unwrap(),
        note: vec![("by", "o'hara <ops>".to_owned())],
        stateless_firmware: true,
    }
}

fn twin(xml: &str) -> TwinConfig {
    of(xml, &identity()).unwrap()
}

#[test]
fn a_twin_has_the_devices_and_nothing_that_they_were_connected_to() {
    let twin = twin(MANY);
    for kept in [
        "machine='pc-q35-7.2'",
        "<model fallback='forbid'>Nehalem</model>",
        "<cell id='0' cpus='0-1' memory='32768' unit='KiB'>",
        "<maxMemory slots='16' unit='KiB'>536870912</maxMemory>",
        "<target dev='vda' bus='virtio'/>",
        "queues='4' queue_size='256'",
        "<source dev='/dev/zero'><seclabel model='dac' relabel='no'/></source>",
        "<disk device='cdrom' type='file'>",
        "<interface type='ethernet'><driver name='vhost' queues='2'><host mrg_rxbuf='off'/></driver><link state='down'/>",
        "<target type='virtio' name='org.qemu.guest_agent.0'/>",
        "<size unit='KiB'>16384</size><node>0</node>",
        "<address type='dimm' slot='0'/>",
        "<backend type='emulator' version='2.0'/>",
        "<cid auto='yes'/>",
        "stateless='yes'",
        "<model type='qxl'",
    ] {
        assert!(twin.xml.contains(kept), "{kept}\n{}", twin.xml);
    }
    for gone in [
        "/srv",
        "52:54:00",
        "br0",
        "/var/lib",
        "10.0.0.1",
        "secret",
        "web1",
        "5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11",
        "0000:3b:00.1",
        "vnet3",
        "/boot",
        "/dev/hwrng",
        "cpuset",
        "4194304",
        "alias",
        "passwd",
    ] {
        assert!(!twin.xml.contains(gone), "{gone}\n{}", twin.xml);
    }
    assert_eq!(
        twin.not_rehearsed,
        [
            "UEFI's variables (nvram)",
            "os acpi",
            "disk block sdz",
            "interface hostdev 52:54:00:00:00:03",
            "interface vhostuser virtio 52:54:00:00:00:04",
            "acceleration of video virtio",
            "hostdev pci subsystem",
            "filesystem mount virtiofs share",
            "shmem ivshmem-plain",
            "memory nvdimm",
            "channel qemu-vdagent",
            "newdevice strange",
            "launchSecurity sev",
            "qemu:commandline",
        ]
    );
    let again = vmgate_facts::xml::parse(&twin.xml).unwrap();
    let note = again.descendants().find(|node| node.has_tag_name((TWIN_NAMESPACE, "twin"))).unwrap();
    assert_eq!(note.attribute("by"), Some("o'hara <ops>"));
}

#[test]
fn an_ordinary_vm_is_rehearsed_whole() {
    let xml = "<domain type='kvm'><name>a</name><vcpu>1</vcpu><os><type arch='x86_64' machine='pc'>hvm</type></os>
        <devices><emulator>/usr/bin/qemu</emulator><disk type='file' device='disk'><source file='/srv/a'/>
        <target dev='vda' bus='virtio'/></disk><interface type='network'><source network='n'/><model type='virtio'/></interface>
        <graphics type='vnc' port='-1'><listen type='address' address='10.0.0.1'/></graphics></devices></domain>";
    assert_eq!(twin(xml).not_rehearsed, Vec::<String>::new());
    assert_eq!(of("<domain><os/><vcpu/></domain>", &identity()), Err(NoTwin::Missing("devices")));
    assert!(matches!(of("<domain>", &identity()), Err(NoTwin::Unreadable(_))));
}

#[test]
fn uefi_is_left_out_by_name_where_it_would_leave_a_file_behind() {
    let old = TwinIdentity { stateless_firmware: false, ..identity() };
    let twin = of(MANY, &old).unwrap();
    assert!(!twin.xml.contains("loader") && !twin.xml.contains("nvram"), "{}", twin.xml);
    assert_eq!(twin.not_rehearsed[0], "UEFI (both hosts need libvirt 8.6 for that)");
}

#[test]
fn settings_that_name_a_file_of_the_host_are_not_in_a_twin() {
    // Every path of the original but the emulator's and the firmware's is a path of this VM.
    let twin = twin(MANY);
    let paths = twin
        .xml
        .split(['\'', '<', '>'])
        .filter(|part| part.starts_with('/') && part.matches('/').count() > 1);
    let known =
        ["/usr/bin/qemu-system-x86_64", "/usr/share/OVMF/OVMF_CODE_4M.fd", "/dev/zero", "/dev/urandom"];
    for path in paths {
        assert!(known.contains(&path), "{path}");
    }
}
