//! Probes: what is learnt where the facts are, in a guest or on a hypervisor host.
//!
//! One parser serves every way in (guest agent, ssh, a command, this machine): a way in only has to hand over the
//! kernel's own text. All of it is hostile until parsed: bounded in size, validated before the `procfs` crate sees
//! it, and without control characters afterwards.

pub mod flows;
pub mod guest;
pub mod host;
mod netlink;
pub mod path;
pub mod trace;
pub mod wire;
