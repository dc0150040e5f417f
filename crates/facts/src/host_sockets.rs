//! Ports that QEMU binds for a VM, and what is bound at a host already.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Fact;

/// Protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PortProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Port of the host that QEMU binds for the VM and that libvirt does not choose anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct VmPort {
    /// Device that is reached there: vnc, vnc websocket, spice, spice tls, serial …
    #[schemars(example = &"vnc")]
    pub device: String,
    /// Protocol of the port.
    #[schemars(example = &"tcp")]
    pub protocol: PortProtocol,
    /// Address, as configured; 127.0.0.1 for a display without one.
    #[schemars(example = &"0.0.0.0")]
    pub address: String,
    /// Number of the port.
    #[schemars(example = 5905)]
    pub port: u16,
}

/// Server on the network that QEMU connects to for a character device when it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct VmServer {
    /// Device that is connected: serial, channel, rng …
    #[schemars(example = &"serial")]
    pub device: String,
    /// Address or name, as configured.
    #[schemars(example = &"127.0.0.1")]
    pub address: String,
    /// Number of the port.
    #[schemars(example = 4555)]
    pub port: u16,
    /// True if something listens there, seen from the destination; known only for an address of the destination itself:
    /// another server is not disturbed to find out.
    #[serde(default)]
    #[schemars(example = true)]
    pub answers: Fact<bool>,
}

/// Port that a socket of the host is bound to: a listening one for TCP, any for UDP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct BoundPort {
    /// Protocol of the port.
    #[schemars(example = &"tcp")]
    pub protocol: PortProtocol,
    /// Address that the socket is bound to.
    #[schemars(example = &"127.0.0.1")]
    pub address: String,
    /// Number of the port.
    #[schemars(example = 5905)]
    pub port: u16,
}

/// Ports from which libvirt chooses for displays (remote_display_port_min and remote_display_port_max of qemu.conf).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct DisplayPorts {
    /// First port.
    #[schemars(example = 5900)]
    pub first: u16,
    /// Last port.
    #[schemars(example = 65_535)]
    pub last: u16,
    /// Number of ports that nothing listens on.
    #[schemars(example = 59_600)]
    pub free: u32,
}
