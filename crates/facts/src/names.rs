//! Names in facts: texts of libvirt, the kernel or vmgate that stand for kinds of things. A name that nobody has listed is no
//! kind that a rule could have thought of, so it is unknown by its name, in every rule that reads it.

use super::{Cause, Unknown};

/// Lists of names, which fields of the fact types give in their schema under [`Names::KEYWORD`]. A text without the keyword is
/// a name that may be any: rules must not take one that they do not name for "does not apply".
pub struct Names;

impl Names {
    /// Keyword that holds the names, or [`Names::OWN`], in the JSON Schema of a field.
    pub const KEYWORD: &'static str = "x-names";
    /// Says that the words are vmgate's own: another cannot occur.
    pub const OWN: &'static str = "own";
    /// Says that the text names no kind: an address, a path, or a name that people gave to one thing.
    pub const FREE: &'static str = "free";
    /// Says that a catalogue lists the names, and that another is unknown in the rule that asks the catalogue.
    pub const CATALOGUE: &'static str = "catalogue";
    /// Kinds of devices that tie a VM to its host, as vmgate calls them, and the types of libvirt's hostdev element
    /// (virDomainHostdevSubsysType and virDomainHostdevCapsType in libvirt 12.0).
    pub const HOST_DEVICES: [&'static str; 15] = [
        "9p",
        "mdev",
        "misc",
        "net",
        "nvme",
        "pci",
        "qemu-vdagent",
        "scsi",
        "scsi_host",
        "shmem",
        "storage",
        "usb",
        "vdpa",
        "vhost-user",
        "virtiofs",
    ];
    /// Forwarding of networks (virNetworkForwardType in libvirt 12.0), and `isolated` for none.
    pub const FORWARDS: [&'static str; 9] =
        ["bridge", "hostdev", "isolated", "nat", "open", "passthrough", "private", "route", "vepa"];
    /// Types of interfaces (virDomainNetType in libvirt 12.0).
    pub const INTERFACES: [&'static str; 15] = [
        "bridge",
        "client",
        "direct",
        "ethernet",
        "hostdev",
        "internal",
        "mcast",
        "network",
        "null",
        "server",
        "udp",
        "user",
        "vdpa",
        "vds",
        "vhostuser",
    ];
    /// Types of the sources of disks (virStorageType in libvirt 12.0).
    pub const DISKS: [&'static str; 8] =
        ["block", "dir", "file", "network", "nvme", "vhostuser", "vhostvdpa", "volume"];
    /// Cache modes of disks (virDomainDiskCache in libvirt 12.0).
    pub const CACHES: [&'static str; 6] =
        ["default", "directsync", "none", "unsafe", "writeback", "writethrough"];
    /// Types of virtual ports (virNetDevVPortProfile in libvirt 12.0).
    pub const VIRTUAL_PORTS: [&'static str; 4] = ["802.1Qbg", "802.1Qbh", "midonet", "openvswitch"];
    /// Back ends of a TPM (virDomainTPMBackendType in libvirt 12.0).
    pub const TPM_BACKENDS: [&'static str; 3] = ["emulator", "external", "passthrough"];
    /// State letters of processes (proc_pid_stat(5), those of old kernels included).
    pub const PROCESS_STATES: [&'static str; 12] =
        ["R", "S", "D", "Z", "T", "t", "X", "x", "I", "K", "P", "W"];
}

/// Meaning of a value that is absent, which fields of the fact types give in their schema under [`Absence::KEYWORD`]. By
/// default an absent value says that there is no such thing.
pub struct Absence;

impl Absence {
    /// Keyword that holds an [`Unknown`] in the JSON Schema of a field: an absent value is one that nobody asked for, and
    /// rules have it as unknown.
    pub const KEYWORD: &'static str = "x-absent";

    /// QEMU's monitor was not asked.
    pub fn monitor_not_asked() -> Unknown {
        Unknown::new(Cause::NotAllowed, "QEMU's monitor was not asked: --allow-monitor lets vmgate ask it")
    }
}
