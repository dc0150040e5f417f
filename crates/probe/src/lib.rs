//! Probes: facts collected on the spot, in a guest or on a hypervisor host.
//!
//! One parser serves every access path (guest agent, ssh, a command, this machine): an access path only hands over the
//! kernel's own text. All of it is hostile until parsed: bounded in size, validated before the `procfs` crate sees
//! it, and without control characters afterwards.

pub mod flows;
pub mod guest;
pub mod host;
mod netlink;
pub mod path;
pub mod trace;
pub mod wire;
