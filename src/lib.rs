//! vmgate: go or no-go for live migration of KVM/QEMU virtual machines, and a gate that obeys it.
//!
//! `collect → fact → forecast → rule → verdict → report`, and `verdict → execute`. Everything from facts to
//! verdict is pure: the same facts, rules and time give the same verdict. Only `collect` reads the world, only
//! `execute` and, on a destination host, `hook` change it.

pub mod audit;
#[cfg(feature = "ledger")]
pub mod campaign;
pub mod cli;
pub mod collect;
pub mod config;
#[cfg(feature = "libvirt")]
pub mod execute;
pub mod fleet;
pub mod hook;
#[cfg(feature = "ledger")]
pub mod ledger;
pub mod place;
pub mod report;
#[cfg(feature = "libvirt")]
pub mod serve;
