//! vmgate: go or no-go for live migration of KVM/QEMU virtual machines, and a gate that enforces it.
//!
//! `collect → fact → forecast → rule → verdict → report`, and `verdict → execute`. Everything from facts to
//! verdict is pure: the same facts, rules and time give the same verdict. Only `collect` reads hosts and guests, only
//! `execute` and, on a destination host, `hook` change them.

pub mod audit;
#[cfg(feature = "ledger")]
pub mod campaign;
pub mod change;
pub mod cli;
pub mod collect;
pub mod config;
pub mod document;
mod error;
#[cfg(feature = "libvirt")]
pub mod execute;
pub mod fact;
pub mod fleet;
pub mod forecast;
pub mod hook;
#[cfg(feature = "ledger")]
pub mod ledger;
pub mod place;
pub mod preflight;
pub mod report;
pub mod rule;
#[cfg(feature = "libvirt")]
pub mod serve;
pub mod verdict;
pub mod way_back;
