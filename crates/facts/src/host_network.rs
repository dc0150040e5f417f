//! libvirt networks of a host, to which VMs' interfaces can be attached.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Fact, Names};

/// Active libvirt network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct VirtualNetwork {
    /// Name of the network.
    #[schemars(example = &"default")]
    pub name: String,
    /// Bridge that the network attaches interfaces to; absent where the network has none.
    #[schemars(example = &"virbr0")]
    pub bridge: Option<String>,
    /// Forwarding beyond the network, as libvirt names it: bridge, nat, route, open, private, vepa, passthrough, hostdev;
    /// `isolated` where the network has none.
    #[schemars(example = &"nat")]
    #[serde(default)]
    #[schemars(extend("x-names" = Names::FORWARDS))]
    pub forward: Fact<String>,
    /// MTU that the network sets on interfaces; absent where the network sets none.
    #[schemars(example = 9000)]
    pub mtu_bytes: Option<u32>,
    /// Type of the network's virtual ports, such as openvswitch; absent where the network has none.
    #[schemars(example = &"openvswitch")]
    pub virtual_port: Option<String>,
    /// Names of its port groups.
    #[schemars(example = vec!["vlan42"])]
    pub port_groups: Vec<String>,
}
