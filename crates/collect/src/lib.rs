//! Collection: the one part of vmgate that reads the world.
//!
//! Reads through libvirt, probes on both hosts, and the guest's agent or probe. Whatever cannot be learnt is an unknown
//! fact with its reason. Nothing here can change a VM: this crate has no `unsafe`, and so cannot call what libvirt has for
//! that. Judges nothing, and knows neither the ledger nor the executor. For `vmgate_execute`, which collects again before a
//! move, and for the command line.
//!
//! Walls, which the compiler keeps:
//!
//! ```compile_fail
//! use vmgate_execute::Pass;
//! ```
//!
//! ```compile_fail
//! use vmgate_ledger::Ledger;
//! ```
//!
//! ```compile_fail
//! #![forbid(unsafe_code)]
//! fn end(vm: vmgate_libvirt::raw::sys::virDomainPtr) {
//!     unsafe { vmgate_libvirt::raw::sys::virDomainDestroy(vm) };
//! }
//! ```

#![forbid(unsafe_code)]

pub mod after_migration;
pub mod agent;
mod asker;
mod claims;
mod denied;
mod dirty_measurement;
mod flows;
#[cfg(feature = "fuzzing")]
pub mod fuzz;
mod gather;
mod guest;
pub mod guest_probe;
mod host;
mod host_probes;
pub mod host_versions;
mod hosted_vm;
mod monitored;
mod needed_files;
mod offer;
mod peers;
pub mod port_trial;
mod provenance;
mod shared;
pub mod survey;
pub mod transport;
mod vm;
mod without_move;
mod worker;

pub use claims::PlannedMove;
pub use gather::{CollectError, CollectRequest, collect};
pub use guest_probe::GuestAccess;
pub use host_probes::TryPath;
pub use hosted_vm::{HostedVm, ProcessVm};
pub use shared::{OpenHost, SharedWork, Turns};
pub use transport::{Answer, Transport};
pub use without_move::collect_without_move;
