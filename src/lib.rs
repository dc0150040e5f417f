//! vmgate: go or no-go for live migration of KVM/QEMU virtual machines, and a gate that enforces it.
//!
//! The part that people meet: command line, reports, plans for a fleet, audits, the page of a campaign, and settings. It
//! stands on the crates under `crates/`; docs/architecture.md is the map.

#![forbid(unsafe_code)]

pub mod audit;
pub mod cli;
pub mod config;
pub mod fleet;
pub mod report;
#[cfg(feature = "libvirt")]
pub mod serve;
