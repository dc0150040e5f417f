//! Probes: facts collected on the spot, in a guest or on a hypervisor host.
//!
//! One parser serves every access path (guest agent, ssh, a command, this machine): an access path only hands over the
//! kernel's own text. All of it is hostile until parsed: bounded in size, validated before the `procfs` crate sees
//! it, and without control characters afterwards. Questions and answers between vmgate and its on-host program are in
//! [`wire`]. Never judges; knows neither rules nor libvirt nor the command line, so that the program stays small that runs
//! this on hosts. For that program, for `vmgate_collect`, and for `vmgate probe`.
//!
//! Walls, which the compiler keeps:
//!
//! ```compile_fail
//! use vmgate_rules::Pack;
//! ```
//!
//! ```compile_fail
//! use clap::Parser;
//! ```

pub mod flows;
pub mod guest;
pub mod host;
pub mod listen;
mod netlink;
pub mod path;
pub mod qemu;
pub mod trace;
pub mod wire;
