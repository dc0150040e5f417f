//! A hypervisor host: versions, resources, networks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Bond, Bridge, Claims, Duplex, Fact, HostFile, HostJob, HostMemory, HostVm, HugePages, MachineType,
    NumaNode, StatefulFilter, Tsc, Version, VirtualNetwork,
};

/// A hypervisor host, source or destination.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Host {
    /// The URI that it was reached by, without secrets.
    #[schemars(example = &"qemu+ssh://root@hv1/system")]
    pub uri: Fact<String>,
    /// Its host name, as libvirt reports it.
    #[schemars(example = &"hv1.example.org")]
    pub hostname: Fact<String>,
    /// The host UUID in libvirt's capabilities; a migration needs two different ones.
    #[schemars(example = &"6f0d3c4e-1111-4222-8333-123456789abc")]
    pub uuid: Fact<String>,
    /// Version of libvirt's daemon.
    #[schemars(example = &"9.0.0")]
    pub libvirt_version: Fact<Version>,
    /// Version of the QEMU installed now.
    #[schemars(example = &"7.2.22")]
    pub qemu_version: Fact<Version>,
    /// Kernel release, as `uname -r` prints it.
    #[schemars(example = &"6.1.0-32-amd64")]
    pub kernel_release: Fact<String>,
    /// CPU model in libvirt's capabilities.
    #[schemars(example = &"Cascadelake-Server")]
    pub cpu_model: Fact<String>,
    /// Whether this host's hypervisor can give the VM's CPU (virConnectCompareHypervisorCPU); only asked of the destination.
    #[schemars(example = true)]
    pub offers_guest_cpu: Fact<bool>,
    /// CPU features of the VM that this host's hypervisor lacks, where libvirt names them; empty where it lacks none. Only
    /// asked of the destination.
    #[schemars(example = vec!["avx512f"])]
    pub missing_cpu_features: Fact<Vec<String>>,
    /// CPU models that this host's QEMU knows for the VM's machine type; only asked of the destination.
    #[schemars(example = vec!["Cascadelake-Server-v5"])]
    pub cpu_models: Fact<Vec<String>>,
    /// Most vCPUs that the VM's machine type may have here; only asked of the destination.
    #[schemars(example = 288)]
    pub most_vcpus: Fact<u32>,
    /// Backends of a TPM that this host's libvirt offers; only asked of the destination.
    #[schemars(example = vec!["emulator"])]
    pub tpm_backends: Fact<Vec<String>>,
    /// The time stamp counter; absent where libvirt could not measure it.
    pub tsc: Fact<Option<Tsc>>,
    /// Logical CPUs online.
    #[schemars(example = 64)]
    pub cpus: Fact<u32>,
    /// Runnable tasks over one minute, by the number of logical CPUs.
    #[schemars(example = 0.4)]
    pub load_ratio: Fact<f64>,
    /// Memory.
    pub memory: Fact<HostMemory>,
    /// Huge pages, one entry a size; empty where the host has none.
    pub huge_pages: Fact<Vec<HugePages>>,
    /// What the VMs of this host, and those on their way to it, may still take.
    pub claims: Fact<Claims>,
    /// NUMA nodes.
    pub numa_nodes: Fact<Vec<NumaNode>>,
    /// Machine types that this host's QEMU offers for the VM's architecture.
    pub machine_types: Fact<Vec<MachineType>>,
    /// Network interfaces.
    pub nics: Fact<Vec<Nic>>,
    /// Routes of the main table, both families.
    pub routes: Fact<Vec<Route>>,
    /// Chains of the packet filter that heed or change the state of connections, where bridged traffic passes them: of
    /// family bridge always, of the others where bridged traffic is handed to them (net.bridge.bridge-nf-call-iptables).
    pub bridge_filters: Fact<Vec<StatefulFilter>>,
    /// Names of the active libvirt networks.
    #[schemars(example = vec!["default"])]
    pub networks: Fact<Vec<String>>,
    /// Active networks of libvirt, with what they plug interfaces into.
    pub virtual_networks: Fact<Vec<VirtualNetwork>>,
    /// Names of libvirt's network filters.
    #[schemars(example = vec!["clean-traffic"])]
    pub network_filters: Fact<Vec<String>>,
    /// Bridges, the kernel's and Open vSwitch's.
    pub bridges: Fact<Vec<Bridge>>,
    /// Paths that the VM needs, as they are here.
    pub files: Fact<Vec<HostFile>>,
    /// The lock manager that libvirt's QEMU driver uses, lockd or sanlock; absent where it uses none.
    #[schemars(example = &"lockd")]
    pub lock_manager: Fact<Option<String>>,
    /// Why this host is not to be given VMs now; absent where nothing says so.
    #[schemars(example = &"kernel update, CHG-2041")]
    pub maintenance: Fact<Option<String>>,
    /// Whether a process without privileges may handle page faults (vm.unprivileged_userfaultfd); absent where the kernel has no such setting.
    #[schemars(example = false)]
    pub unprivileged_userfaultfd: Fact<Option<bool>>,
    /// VMs that this host knows, running or only defined.
    pub vms: Fact<Vec<HostVm>>,
    /// Jobs that run on VMs here: migrations, backups, snapshots.
    pub jobs: Fact<Vec<HostJob>>,
    /// UUIDs of the domains that run here now.
    #[schemars(example = vec!["5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11"])]
    pub active_vms: Fact<Vec<String>>,
    /// The host's clock less the operator's.
    #[schemars(example = 0.02)]
    pub clock_offset_seconds: Fact<f64>,
}

/// A network interface of a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Nic {
    /// Its name.
    #[schemars(example = &"eth1")]
    pub name: String,
    /// What it is.
    #[schemars(example = &"physical")]
    pub kind: NicKind,
    /// Whether it is administratively up and has a carrier.
    #[schemars(example = true)]
    pub up: bool,
    /// Nominal speed of the link; absent where the driver has none.
    #[schemars(example = 1_250_000_000_u64)]
    pub speed_bytes_per_second: Option<u64>,
    /// Largest packet it sends.
    #[schemars(example = 9000)]
    pub mtu_bytes: u32,
    /// The bridge or bond it belongs to; absent where it stands alone.
    #[schemars(example = &"br0")]
    pub master: Option<String>,
    /// The interfaces below it, of a bond, VLAN or bridge; empty where there are none.
    #[schemars(example = vec!["eth2", "eth3"])]
    pub lower: Vec<String>,
    /// Its addresses with prefix length.
    #[schemars(example = vec!["10.77.1.1/24"])]
    pub addresses: Vec<String>,
    /// Packets received or sent in error, or dropped by the device, since it came up.
    #[schemars(example = 0)]
    pub errors: u64,
    /// Packets dropped for want of room since it came up; a bridge also counts what it had no use for.
    #[serde(default)]
    #[schemars(example = 0)]
    pub drops: Fact<u64>,
    /// Whether it sends and receives at once; absent where the driver does not say.
    #[schemars(example = &"full")]
    pub duplex: Option<Duplex>,
    /// The VLAN that it carries; absent where it is none.
    #[schemars(example = 110)]
    pub vlan_id: Option<u16>,
    /// The bond that it is; absent where it is none.
    pub bond: Option<Bond>,
}

/// Kinds of network interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NicKind {
    /// A device on a bus.
    Physical,
    /// A software bridge.
    Bridge,
    /// A bond or team.
    Bond,
    /// A VLAN on another interface.
    Vlan,
    /// One end of a virtual cable.
    Veth,
    /// A tap, the host's end of a guest's interface.
    Tap,
    /// The loopback interface.
    Loopback,
    /// Something else that is not a device.
    Virtual,
}

/// A route of a host's main table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Route {
    /// Destination with prefix length; `0.0.0.0/0` and `::/0` are the default routes.
    #[schemars(example = &"10.77.1.0/24")]
    pub destination: String,
    /// Interface it leaves by.
    #[schemars(example = &"eth1")]
    pub nic: String,
    /// Next hop; absent where the destination is on the link.
    #[schemars(example = &"10.77.1.254")]
    pub gateway: Option<String>,
    /// Of several routes to one destination the lowest is taken.
    #[schemars(example = 100)]
    pub metric: u32,
}
