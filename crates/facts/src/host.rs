//! A hypervisor host: versions, CPU, memory, networks, VMs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Bond, BoundPort, Bridge, DisplayPorts, Duplex, Fact, HostFile, HostHook, HostJob, HostManagers,
    HostMemory, HostVm, HugePages, MachineType, MemoryClaims, Names, NumaNode, PassthroughDevice,
    ProgramBuild, QemuUser, StatefulFilter, Tsc, Uuid, Version, VirtualNetwork,
};

/// A hypervisor host, source or destination.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Host {
    /// libvirt URI by which the host was reached, without secrets.
    #[schemars(example = &"qemu+ssh://root@hv1/system")]
    pub uri: Fact<String>,
    /// Host name, as libvirt reports it.
    #[schemars(example = &"hv1.example.org", extend("x-names" = Names::FREE))]
    pub hostname: Fact<String>,
    /// Host UUID in libvirt's capabilities; of a host without libvirt its machine id. libvirt refuses a migration between hosts with the same UUID.
    #[schemars(example = &"6f0d3c4e-1111-4222-8333-123456789abc")]
    pub uuid: Fact<Uuid>,
    /// Version of libvirt's daemon.
    #[schemars(example = &"9.0.0")]
    pub libvirt_version: Fact<Version>,
    /// Version of the installed QEMU.
    #[schemars(example = &"7.2.22")]
    pub qemu_version: Fact<Version>,
    /// Kernel release, as `uname -r` prints it.
    #[schemars(example = &"6.1.0-32-amd64")]
    pub kernel_release: Fact<String>,
    /// CPU model in libvirt's capabilities.
    #[schemars(example = &"Cascadelake-Server")]
    pub cpu_model: Fact<String>,
    /// True if this host's hypervisor can provide the VM's CPU (virConnectCompareHypervisorCPU); collected for the
    /// destination only.
    #[schemars(example = true)]
    pub offers_guest_cpu: Fact<bool>,
    /// CPU features of the VM that this host's hypervisor lacks, where libvirt names them; empty where it lacks none. Only
    /// asked of the destination.
    #[schemars(example = vec!["avx512f"])]
    pub missing_cpu_features: Fact<Vec<String>>,
    /// CPU features that the VM's CPU forbids and this host's CPU has beside its model, for which libvirt refuses the VM; only
    /// asked of the destination.
    #[schemars(example = vec!["x2apic"])]
    pub forbidden_cpu_features: Fact<Vec<String>>,
    /// CPU models that this host's QEMU knows for the VM's machine type; only asked of the destination.
    #[schemars(example = vec!["Cascadelake-Server-v5"])]
    pub cpu_models: Fact<Vec<String>>,
    /// Maximum number of vCPUs of the VM's machine type on this host; collected for the destination only.
    #[schemars(example = 288)]
    pub most_vcpus: Fact<u32>,
    /// Backends of a TPM that this host's libvirt offers; only asked of the destination.
    #[schemars(example = vec!["emulator"])]
    pub tpm_backends: Fact<Vec<String>>,
    /// Models of devices that this host's QEMU offers to the VM, where libvirt lists them; only asked of the destination.
    pub device_models: Fact<Vec<DeviceModels>>,
    /// Models of security labels that this host's libvirt sets, such as dac or apparmor.
    #[schemars(example = vec!["dac", "apparmor"])]
    pub security_models: Fact<Vec<String>>,
    /// Elements, attributes and values in what this host's libvirt tells of the host, its networks and secrets, and of the destination
    /// what it offers to the VM, that vmgate does not know, by document and path.
    #[schemars(example = vec!["capabilities: host/cache/bank/@wavelength"])]
    #[serde(default)]
    pub unread_elements: Fact<Vec<String>>,
    /// Words with which libvirt here refuses the VM's configuration, as a migration sends it; absent if it accepts it. Only asked
    /// of the destination.
    #[schemars(example = &"unsupported configuration: domain configuration does not support video model 'qxl'")]
    #[serde(default)]
    pub configuration_refused: Fact<Option<String>>,
    /// User and group as which this host's libvirt starts QEMU, unless a VM has its own.
    pub qemu_user: Fact<QemuUser>,
    /// Secrets that this host's libvirt holds, by UUID and by usage.
    #[schemars(example = vec!["6a1f3d0e-1111-4222-8333-000000000009"])]
    pub secrets: Fact<Vec<String>>,
    /// Names of libvirt's active storage pools.
    #[schemars(example = vec!["fast"])]
    pub storage_pools: Fact<Vec<String>>,
    /// Time stamp counter (TSC); absent where libvirt could not measure it.
    pub tsc: Fact<Option<Tsc>>,
    /// Logical CPUs online.
    #[schemars(example = 64)]
    pub cpus: Fact<u32>,
    /// Load average over one minute, divided by the number of logical CPUs.
    #[schemars(example = 0.4)]
    pub load_ratio: Fact<f64>,
    /// Memory of the host.
    pub memory: Fact<HostMemory>,
    /// Huge pages, one entry for each page size; empty where the host has none.
    pub huge_pages: Fact<Vec<HugePages>>,
    /// Memory that the VMs of this host, and the VMs on their way to this host, may still claim.
    pub claims: Fact<MemoryClaims>,
    /// NUMA nodes.
    pub numa_nodes: Fact<Vec<NumaNode>>,
    /// Machine types that this host's QEMU offers for the VM's architecture.
    pub machine_types: Fact<Vec<MachineType>>,
    /// Network interfaces.
    pub nics: Fact<Vec<Nic>>,
    /// Routes of the main table, both families.
    pub routes: Fact<Vec<Route>>,
    /// Chains of the packet filter that match or change connection tracking state, where bridged traffic passes them:
    /// of family bridge always, of the other families if bridged traffic is handed to them
    /// (net.bridge.bridge-nf-call-iptables).
    pub bridge_filters: Fact<Vec<StatefulFilter>>,
    /// Names of the active libvirt networks.
    #[schemars(example = vec!["default"])]
    pub networks: Fact<Vec<String>>,
    /// Active libvirt networks, with the bridges that they attach interfaces to.
    pub virtual_networks: Fact<Vec<VirtualNetwork>>,
    /// Names of libvirt's network filters.
    #[schemars(example = vec!["clean-traffic"])]
    pub network_filters: Fact<Vec<String>>,
    /// Bridges, the kernel's and Open vSwitch's.
    pub bridges: Fact<Vec<Bridge>>,
    /// Files and block devices that the VM needs, as found on this host.
    pub files: Fact<Vec<HostFile>>,
    /// Ports that the VM needs and that are bound at this host already; only asked of the destination.
    pub bound_ports: Fact<Vec<BoundPort>>,
    /// Ports from which libvirt chooses for displays.
    pub display_ports: Fact<DisplayPorts>,
    /// Addresses of the vsocks of the VMs that run here.
    #[schemars(example = vec![3])]
    pub vsock_cids: Fact<Vec<u32>>,
    /// Hooks that libvirt runs before it lets a VM in, in their order; empty where there are none.
    pub hooks: Fact<Vec<HostHook>>,
    /// True if this host's libvirt migrates with TLS only, outgoing and incoming (migrate_tls_force in qemu.conf).
    #[schemars(example = false)]
    pub migration_tls_forced: Fact<bool>,
    /// Devices that the VM has from its host, as found on this host.
    pub passthrough_devices: Fact<Vec<PassthroughDevice>>,
    /// Builds of the programs that the VM needs, such as QEMU.
    pub program_builds: Fact<Vec<ProgramBuild>>,
    /// Bits of a physical address of the processor.
    #[schemars(example = 46)]
    pub physical_address_bits: Fact<u32>,
    /// The lock manager that libvirt's QEMU driver uses, lockd or sanlock; absent where it uses none.
    #[schemars(example = &"lockd")]
    pub lock_manager: Fact<Option<String>>,
    /// Managers of VMs that run here, with their settings of migrations.
    pub managers: Fact<HostManagers>,
    /// Reason why this host must not receive VMs now; absent where the host is not in maintenance.
    #[schemars(example = &"kernel update, CHG-2041")]
    pub maintenance: Fact<Option<String>>,
    /// True if unprivileged processes may handle page faults (vm.unprivileged_userfaultfd; post-copy needs
    /// userfaultfd); absent where the kernel has no such setting.
    #[schemars(example = false)]
    pub unprivileged_userfaultfd: Fact<Option<bool>>,
    /// VMs of this host, running or only defined.
    pub vms: Fact<Vec<HostVm>>,
    /// Jobs that run on VMs of this host: migrations, backups, snapshots.
    pub jobs: Fact<Vec<HostJob>>,
    /// UUIDs of the domains that run here now.
    #[schemars(example = vec!["5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11"])]
    pub active_vms: Fact<Vec<Uuid>>,
    /// Difference between the host's clock and the clock of the machine that runs vmgate; positive where the host is
    /// ahead.
    #[schemars(example = 0.02)]
    pub clock_offset_seconds: Fact<f64>,
}

/// Models of one kind of device that a host's QEMU offers, or another list of its libvirt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct DeviceModels {
    /// Element of the domain XML; of what else libvirt lists the path in its domain capabilities, such as features/genid/supported or
    /// memoryBacking/sourceType.
    #[schemars(example = &"video")]
    pub kind: String,
    /// Models, or buses or types for kinds that have these; empty where QEMU has no device of the kind. What is only supported
    /// or not has `yes` here, or nothing.
    #[schemars(example = vec!["vga", "virtio"])]
    pub models: Vec<String>,
}

/// A network interface of a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Nic {
    /// Name of the interface.
    #[schemars(example = &"eth1")]
    pub name: String,
    /// Kind of the interface.
    #[schemars(example = &"physical")]
    pub kind: NicKind,
    /// True if the interface is administratively up and has a carrier.
    #[schemars(example = true)]
    pub up: bool,
    /// Nominal speed of the link; absent where the driver reports none.
    #[schemars(example = 1_250_000_000_u64)]
    pub speed_bytes_per_second: Option<u64>,
    /// MTU of the interface.
    #[schemars(example = 9000)]
    pub mtu_bytes: u32,
    /// Bridge or bond that the interface belongs to; absent where the interface belongs to none.
    #[schemars(example = &"br0")]
    pub master: Option<String>,
    /// The interfaces below it, of a bond, VLAN or bridge; empty where there are none.
    #[schemars(example = vec!["eth2", "eth3"])]
    pub lower: Vec<String>,
    /// Its addresses with prefix length.
    #[schemars(example = vec!["10.77.1.1/24"])]
    pub addresses: Vec<String>,
    /// Packets received or sent in error, or dropped by the device, since the interface came up.
    #[schemars(example = 0)]
    pub errors: u64,
    /// Packets dropped for lack of buffers since the interface came up; on a bridge also packets that no port wanted.
    #[serde(default)]
    #[schemars(example = 0)]
    pub drops: Fact<u64>,
    /// Duplex mode of the link; absent where the driver does not report one.
    #[schemars(example = &"full")]
    pub duplex: Option<Duplex>,
    /// VLAN id, if the interface is a VLAN; else absent.
    #[schemars(example = 110)]
    pub vlan_id: Option<u16>,
    /// Mode and ports, if the interface is a bond; else absent.
    pub bond: Option<Bond>,
}

/// Kinds of network interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NicKind {
    /// Hardware device on a bus.
    Physical,
    /// A software bridge.
    Bridge,
    /// A bond or team.
    Bond,
    /// A VLAN on another interface.
    Vlan,
    /// One end of a virtual Ethernet pair.
    Veth,
    /// A tap device: the host's end of a guest's interface.
    Tap,
    /// The loopback interface.
    Loopback,
    /// Another virtual interface.
    Virtual,
}

/// A route of a host's main table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Route {
    /// Destination with prefix length; `0.0.0.0/0` and `::/0` are the default routes.
    #[schemars(example = &"10.77.1.0/24")]
    pub destination: String,
    /// Outgoing interface.
    #[schemars(example = &"eth1")]
    pub nic: String,
    /// Next hop; absent where the destination is on the link.
    #[schemars(example = &"10.77.1.254")]
    pub gateway: Option<String>,
    /// Metric: of several routes to one destination the kernel takes the lowest.
    #[schemars(example = 100)]
    pub metric: u32,
}
