//! A whole configuration, and an empty one.

use super::*;

const XML: &str = r"<domain type='qemu' id='1'>
  <name>web1</name>
  <uuid>5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11</uuid>
  <maxMemory slots='4' unit='KiB'>1048576</maxMemory>
  <memory unit='KiB'>524288</memory>
  <currentMemory unit='KiB'>262144</currentMemory>
  <memoryBacking><hugepages><page size='2' unit='MiB'/></hugepages></memoryBacking>
  <vcpu placement='static' current='2'>4</vcpu>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
  <cpu mode='custom' match='exact' check='full'>
    <model fallback='forbid'>qemu64</model>
    <feature policy='require' name='x2apic'/>
  </cpu>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='none'/>
      <source file='/srv/web1.qcow2' index='1'/><target dev='vda' bus='virtio'/><shareable/>
    </disk>
    <disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>
    <disk type='network' device='disk'><source protocol='rbd' name='pool/img'><host name='ceph1'/></source>
      <target dev='vdb'/></disk>
    <disk type='volume' device='disk'><source pool='fast' volume='v1'/><target dev='vdc'/></disk>
    <interface type='bridge'>
      <mac address='52:54:00:12:34:56'/><source bridge='br0'/><target dev='vnet3'/><model type='virtio'/>
    </interface>
    <interface type='network'>
      <mac address='52:54:00:12:34:57'/><source network='default' bridge='virbr0'/><link state='down'/>
    </interface>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='connected'/></channel>
    <hostdev mode='subsystem' type='pci' managed='yes'><source>
      <address domain='0x0000' bus='0x3b' slot='0x00' function='0x1'/></source></hostdev>
    <hostdev mode='subsystem' type='mdev'><source><address uuid='c2177883-f1bb-47f0-914d-32a22e3a8804'/></source></hostdev>
    <hostdev mode='subsystem' type='usb'><source><vendor id='0x1234'/><product id='0xbeef'/></source></hostdev>
    <filesystem type='mount'><driver type='virtiofs'/><source dir='/s'/><target dir='share'/></filesystem>
    <shmem name='my_shmem0'/>
  </devices>
</domain>";

#[test]
fn a_live_configuration_is_read_whole() {
    let config = parse(XML).unwrap();
    assert_eq!(config.accelerator, Some(Accelerator::Tcg));
    assert_eq!(config.memory_bytes, Some(256 << 20));
    assert_eq!(config.memory_max_bytes, Some(512 << 20), "address space for hotplug is no memory");
    assert_eq!(config.most_vcpus, Some(4));
    assert_eq!(config.backing, Backing::Huge(2 << 20));
    assert_eq!(config.vcpus, Some(2));
    assert_eq!(config.machine_type.as_deref(), Some("pc-q35-7.2"));
    assert_eq!((config.cpu_mode, config.cpu_model.as_deref()), (CpuMode::Custom, Some("qemu64")));
    assert!(config.cpu_xml.unwrap().starts_with("<cpu mode='custom'"));
    assert!(config.has_agent_channel);
    let sources: Vec<_> = config.disks.iter().map(|disk| disk.source.as_str()).collect();
    assert_eq!(sources, ["/srv/web1.qcow2", "pool/img", "fast/v1"], "an empty drive is not a disk");
    assert_eq!((config.disks[0].cache.as_str(), config.disks[1].cache.as_str()), ("none", "default"));
    assert!(config.disks[0].shareable);
    assert_eq!(config.nics[0].tap.as_deref(), Some("vnet3"));
    assert_eq!(config.nics[1].source.as_deref(), Some("default"));
    assert!(config.nics[0].link_up && !config.nics[1].link_up);
    let ties: Vec<_> = config.host_devices.iter().map(|d| format!("{} {}", d.kind, d.address)).collect();
    assert_eq!(
        ties,
        [
            "pci 0000:3b:00.1",
            "mdev c2177883-f1bb-47f0-914d-32a22e3a8804",
            "usb 0x1234:0xbeef",
            "virtiofs share",
            "shmem my_shmem0"
        ]
    );
}

#[test]
fn an_empty_domain_is_mostly_unknown_and_no_crash() {
    let config = parse("<domain/>").unwrap();
    assert_eq!(config, DomainConfig { threads_per_socket: 1, ..DomainConfig::default() });
    assert!(parse("").is_err());
    assert!(parse("<domain><memory unit='EiB'>99999999999999999999</memory></domain>").is_ok());
}

const HARDWARE: &str = r"<domain type='kvm'>
  <name>db1</name>
  <uuid>5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11</uuid>
  <memtune><hard_limit unit='KiB'>9437184</hard_limit></memtune>
  <vcpu cpuset='0-3,^1'>2</vcpu>
  <cputune><vcpupin vcpu='0' cpuset='8'/><emulatorpin cpuset='9-10'/><iothreadpin iothread='1' cpuset='8'/></cputune>
  <numatune><memory mode='preferred' nodeset='1'/><memnode cellid='0' mode='strict' nodeset='0-1'/></numatune>
  <os>
    <type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
    <loader readonly='yes' secure='yes' type='pflash'>/usr/share/OVMF/CODE.fd</loader>
    <nvram template='/usr/share/OVMF/VARS.fd' type='file'><source file='/var/lib/nvram/db1.fd'/></nvram>
    <kernel>/boot/vmlinuz</kernel><initrd>/boot/initrd</initrd>
    <acpi><table type='slic'>/etc/slic</table></acpi>
  </os>
  <cpu mode='host-passthrough'>
    <topology sockets='1' dies='1' cores='2' threads='2'/>
    <feature policy='require' name='invtsc'/><feature policy='disable' name='hle'/><feature policy='optional' name='x'/>
  </cpu>
  <clock offset='utc'><timer name='rtc'/><timer name='tsc' frequency='2400000000'/></clock>
  <launchSecurity type='sev'/>
  <devices>
    <emulator>/usr/libexec/qemu-kvm</emulator>
    <disk type='file' device='cdrom'><source file='/iso/a.iso' startupPolicy='optional'/><target dev='sda'/><readonly/></disk>
    <disk type='file' device='disk'>
      <source file='/srv/top.qcow2'/><target dev='vda'/><transient/>
      <backingStore type='file'><source file='/srv/mid.qcow2'/>
        <backingStore type='network'><source protocol='nbd' name='n'/>
          <backingStore type='block'><source dev='/dev/base'/><backingStore/></backingStore></backingStore></backingStore>
      <mirror type='file' job='active-commit'><source file='/srv/mid.qcow2'/></mirror>
    </disk>
    <disk type='vhostuser' device='disk'><source type='unix' path='/run/vhost.sock'/><target dev='vdb'/></disk>
    <interface type='network'>
      <source network='ovs' portgroup='vlan42' bridge='br-int'/><mtu size='9000'/><filterref filter='clean-traffic'/>
      <vlan><tag id='42'/><tag id='43'/></vlan><virtualport type='openvswitch'/>
      <rom bar='on' file='/usr/share/rom.bin'/>
    </interface>
    <interface type='hostdev'><mac address='52:54:00:00:00:01'/><source>
      <address type='pci' domain='0x0000' bus='0x3b' slot='0x10' function='0x2'/></source>
      <teaming type='transient' persistent='ua-net0'/></interface>
    <filesystem type='mount'><source dir='/s'/><target dir='plan9'/></filesystem>
    <channel type='qemu-vdagent'><target type='virtio' name='com.redhat.spice.0'/></channel>
    <tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>
  </devices>
</domain>";

#[test]
fn placement_firmware_and_ties_to_the_host_are_read() {
    let config = parse(HARDWARE).unwrap();
    assert_eq!(config.memory_hard_limit_bytes, Some(9 << 30));
    assert_eq!(config.placement.pinned_cpus, [0, 2, 3, 8, 9, 10]);
    assert_eq!((config.placement.numa_nodes.as_slice(), config.placement.strict), (&[0, 1][..], true));
    let firmware = config.firmware.unwrap();
    assert_eq!(firmware.loader, "/usr/share/OVMF/CODE.fd");
    assert_eq!(firmware.nvram.as_deref(), Some("/var/lib/nvram/db1.fd"));
    assert_eq!(
        (firmware.nvram_template.as_deref(), firmware.secure),
        (Some("/usr/share/OVMF/VARS.fd"), true)
    );
    assert_eq!((config.cpu_features.as_slice(), config.threads_per_socket), (&["invtsc".to_owned()][..], 4));
    assert_eq!(config.tsc_frequency_hertz, Some(2_400_000_000));
    assert_eq!(config.launch_security.as_deref(), Some("sev"));
    let files: Vec<_> = config.boot_files.iter().map(|f| format!("{} {}", f.purpose, f.path)).collect();
    assert_eq!(
        files,
        [
            "emulator /usr/libexec/qemu-kvm",
            "rom /usr/share/rom.bin",
            "kernel /boot/vmlinuz",
            "initrd /boot/initrd",
            "acpi /etc/slic",
            "disk /run/vhost.sock",
            "filesystem /s",
            "KVM /dev/kvm",
            "tap /dev/net/tun"
        ]
    );
    let tpm = config.tpm.unwrap();
    assert_eq!(tpm.backend, "emulator");
    assert!(tpm.state_folder.unwrap().ends_with("swtpm/5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11"));
}

#[test]
fn disks_interfaces_and_other_devices_are_read_with_what_a_destination_must_have() {
    let config = parse(HARDWARE).unwrap();
    assert_eq!((config.disks[0].device.as_str(), config.disks[0].optional), ("cdrom", true));
    let disk = &config.disks[1];
    assert!(disk.transient && !config.disks[0].transient);
    assert_eq!(disk.backing_files, ["/srv/mid.qcow2", "/dev/base"]);
    assert_eq!(disk.job.as_deref(), Some("active-commit"));
    let nic = &config.nics[0];
    assert_eq!((nic.source.as_deref(), nic.port_group.as_deref()), (Some("ovs"), Some("vlan42")));
    assert_eq!((nic.mtu_bytes, nic.vlan_tags.as_slice()), (Some(9000), &[42, 43][..]));
    assert_eq!(
        (nic.virtual_port.as_deref(), nic.filter.as_deref()),
        (Some("openvswitch"), Some("clean-traffic"))
    );
    let ties: Vec<_> = config
        .host_devices
        .iter()
        .map(|d| format!("{} {}{}", d.kind, d.address, if d.teamed { " teamed" } else { "" }))
        .collect();
    assert_eq!(ties, ["vhost-user /run/vhost.sock", "pci 0000:3b:10.2 teamed", "9p plan9", "qemu-vdagent "]);
}

#[test]
fn lists_of_numbers_are_read_as_libvirt_writes_them() {
    assert_eq!(hardware::numbers("0-3,^2,8"), [0, 1, 3, 8]);
    assert!(hardware::numbers("x,3-,-").is_empty());
    assert!(hardware::numbers("0-4294967295").len() < 20_000, "a huge list is cut");
}

/// Domain with these devices.
fn with_devices(devices: &str) -> DomainConfig {
    parse(&format!("<domain><devices>{devices}</devices></domain>")).unwrap()
}

#[test]
fn an_interface_of_a_network_is_known_by_the_networks_name() {
    // Live XML of a network in forward mode bridge, and of a pool of macvtap devices.
    let config = with_devices(
        "<interface type='bridge'><source network='lan-red' portgroup='red' bridge='br-red'/></interface>
        <interface type='direct'><source network='pool' dev='eth2' mode='bridge'/></interface>
        <interface type='bridge'><source bridge='br0'/></interface>",
    );
    let read: Vec<_> = config
        .nics
        .iter()
        .map(|nic| (nic.kind.as_str(), nic.source.as_deref().unwrap(), nic.port_group.as_deref()))
        .collect();
    assert_eq!(
        read,
        [("network", "lan-red", Some("red")), ("network", "pool", None), ("bridge", "br0", None)]
    );
}

#[test]
fn disks_without_a_file_name_are_disks() {
    let config = with_devices(
        "<disk type='network'><source protocol='nbd'><host name='n1' port='10809'/></source><target dev='vda'/></disk>
        <disk type='nvme'><source type='pci' namespace='1'><address domain='0x0000' bus='0x01' slot='0x00' function='0x0'/></source><target dev='vdb'/></disk>
        <disk type='network'><source protocol='nbd'><host transport='unix' socket='/run/nbd'/></source><target dev='vdc'/></disk>",
    );
    let sources: Vec<&str> = config.disks.iter().map(|disk| disk.source.as_str()).collect();
    assert_eq!(sources, ["nbd:n1", "0000:01:00.0", "nbd:/run/nbd"]);
}

#[test]
fn only_media_of_drives_are_left_out_by_a_migration() {
    let disk = |device: &str, policy: &str| {
        format!(
            "<disk type='file' device='{device}'><source file='/a' startupPolicy='{policy}'/><target dev='a'/></disk>"
        )
    };
    let all = [
        ("cdrom", "requisite", true),
        ("floppy", "optional", true),
        ("cdrom", "mandatory", false),
        ("disk", "optional", false),
    ];
    for (device, policy, optional) in all {
        assert_eq!(with_devices(&disk(device, policy)).disks[0].optional, optional, "{device} {policy}");
    }
}

#[test]
fn every_file_that_is_opened_at_the_start_is_read() {
    let config = parse(
        "<domain><sysinfo type='fwcfg'><entry name='opt/x' file='/fw'/></sysinfo>
        <os><loader>/code</loader><nvram type='block'><source dev='/dev/vars'/></nvram><shim>/shim</shim>
        <acpi><table type='slic'>/t1</table><table type='msdm'>/t2</table></acpi></os><devices>
        <disk type='file'><source file='/a'><dataStore type='file'><format type='raw'/><source file='/data'/></dataStore></source><target dev='vda'/></disk>
        <memory model='nvdimm'><source><path>/dev/pmem0</path><nodemask>1-2</nodemask></source></memory>
        <tpm model='spapr-tpm-proxy'><backend type='passthrough'><device path='/dev/tpmrm0'/></backend></tpm>
        <tpm model='tpm-spapr'><backend type='emulator'/></tpm>
        <hostdev mode='subsystem' type='scsi'><source><adapter name='scsi_host3'/><address bus='0' target='1' unit='2'/></source></hostdev>
        </devices></domain>",
    )
    .unwrap();
    let paths: Vec<&str> = config.boot_files.iter().map(|file| file.path.as_str()).collect();
    for path in ["/fw", "/shim", "/t1", "/t2", "/dev/pmem0"] {
        assert!(paths.contains(&path), "{path} is not in {paths:?}");
    }
    assert_eq!(config.disks[0].backing_files, ["/data"]);
    assert_eq!(config.firmware.unwrap().nvram.as_deref(), Some("/dev/vars"));
    assert_eq!(config.placement.numa_nodes, [1, 2]);
    assert_eq!(config.tpm.unwrap().backend, "passthrough", "the one that binds the VM to its host");
    assert_eq!(config.host_devices[0].address, "scsi_host3 0:1:2");
}

#[test]
fn a_name_that_the_configuration_fixes_is_told_from_libvirts_own() {
    let xml = "<domain type='kvm'><devices>
        <interface type='bridge'><source bridge='br0'/><target dev='web1'/></interface>
        <interface type='direct'><source dev='eth0' mode='bridge'/><target dev='macvtap0'/></interface>
        <interface type='direct'><source dev='eth0' mode='bridge'/><target dev='mv-web1'/></interface>
        <interface type='ethernet'><target dev='tap9' managed='no'/></interface>
        <interface type='vhostuser'><source type='unix' path='/run/a' mode='client'/><target dev='vhu1'/></interface>
        <interface type='network'><source network='lan'/><target dev='vnet7'/></interface>
        <interface type='network'><source network='lan'/></interface></devices></domain>";
    let named: Vec<bool> = parse(xml).unwrap().nics.iter().map(|nic| nic.tap_named).collect();
    assert_eq!(named, [true, false, true, false, false, false, false]);
}

#[test]
fn the_cpu_that_the_guest_really_got_is_that_of_the_live_configuration() {
    let with = |check: &str, feature: &str| {
        format!("<domain><cpu mode='custom' check='{check}'><model>Nehalem</model>{feature}</cpu></domain>")
    };
    let asked = parse(&with("none", "<feature policy='optional' name='sha-ni'/>")).unwrap();
    let got = parse(&with("full", "<feature policy='require' name='sha-ni'/>")).unwrap();
    let compared = asked.with_live(&got).cpu_xml.unwrap();
    assert!(compared.contains("policy='require' name='sha-ni'"), "{compared}");
}

/// Formats of images of a running VM whose disk is this, as both of its configurations tell them.
fn images(disk: &str) -> Vec<String> {
    let xml = |id: &str, disk: &str| format!("<domain type='kvm'{id}><devices>{disk}</devices></domain>");
    let sent = disk.split_once("<backingStore").map_or(disk.to_owned(), |(top, _)| format!("{top}</disk>"));
    let sent = parse(&xml("", &sent)).unwrap();
    let config = sent.with_live(&parse(&xml(" id='1'", disk)).unwrap());
    config.components.into_iter().filter(|part| part.kind == "image").map(|part| part.model).collect()
}

#[test]
fn images_that_only_the_live_configuration_names_count() {
    let disk = "<disk type='file'><driver type='qcow2'/><source file='/top'/><target dev='vda'/><readonly/>
        <backingStore type='file'><format type='qcow2'/><source file='/mid'/>
        <backingStore type='file'><format type='vmdk'/><source file='/base'/><backingStore/></backingStore></backingStore></disk>";
    assert_eq!(images(disk), ["qcow2", "vmdk"]);
}

#[test]
fn a_chain_of_which_libvirt_has_not_read_the_end_is_a_component_without_a_known_format() {
    let disk = |below: &str| {
        format!(
            "<disk type='network'><driver type='qcow2'/><source protocol='nbd' name='x'/><target dev='vda'/>{below}</disk>"
        )
    };
    assert_eq!(images(&disk("")), ["qcow2", "below qcow2 on nbd"]);
    assert_eq!(images(&disk("<backingStore/>")), ["qcow2"]);
    let raw =
        "<backingStore type='network'><format type='raw'/><source protocol='nbd' name='y'/></backingStore>";
    assert_eq!(images(&disk(raw)), ["qcow2", "raw"]);
    assert_eq!(images(&disk(&raw.replace("raw", "qed"))), ["qcow2", "below qed on nbd", "qed"]);
    let file = "<disk type='file'><driver type='qcow2'/><source file='/a'/><target dev='vda'/></disk>";
    assert_eq!(parse(&format!("<domain><devices>{file}</devices></domain>")).unwrap().components.len(), 2);
}
