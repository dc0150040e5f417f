//! What libvirt on a host can plug a VM's interfaces into, beside bridges.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An active network of libvirt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
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
    #[schemars(example = vec!["vlan42"])]
    pub port_groups: Vec<String>,
}
