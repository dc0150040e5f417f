//! What a host can plug a VM's interfaces into: bridges, libvirt's networks, filters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A bridge of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostBridge {
    /// Its name.
    #[schemars(example = &"br0")]
    pub name: String,
    /// Whose bridge it is.
    #[schemars(example = &"linux")]
    pub kind: BridgeKind,
    /// Whether it keeps VLANs apart (vlan_filtering of a Linux bridge; Open vSwitch always does).
    #[schemars(example = false)]
    pub vlan_aware: bool,
}

/// Kinds of bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BridgeKind {
    /// The kernel's own.
    Linux,
    /// A bridge of Open vSwitch.
    OpenVswitch,
}

/// An active network of libvirt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VirtualNetwork {
    /// Its name.
    #[schemars(example = &"default")]
    pub name: String,
    /// The bridge that it plugs interfaces into; absent where it has none.
    #[schemars(example = &"virbr0")]
    pub bridge: Option<String>,
    /// Largest packet that it sets on its interfaces; absent where it sets none.
    #[schemars(example = 9000)]
    pub mtu_bytes: Option<u32>,
    /// Kind of its virtual ports, such as openvswitch; absent where it has none.
    #[schemars(example = &"openvswitch")]
    pub virtual_port: Option<String>,
    /// Names of its port groups.
    #[schemars(example = ["vlan42"])]
    pub port_groups: Vec<String>,
}
