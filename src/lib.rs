//! vmgate: go or no-go for live migration of KVM/QEMU virtual machines, and a gate that obeys it.
//!
//! `collect → fact → forecast → rule → verdict → report`, and `verdict → execute`. Everything from facts to
//! verdict is pure: the same facts, rules and time give the same verdict. Only `collect` reads the world, only
//! `execute` changes it.

pub mod cli;
pub mod collect;
pub mod config;
mod error;
#[cfg(feature = "libvirt")]
pub mod execute;
pub mod fact;
pub mod fleet;
pub mod forecast;
pub mod preflight;
pub mod report;
pub mod rule;
pub mod verdict;
