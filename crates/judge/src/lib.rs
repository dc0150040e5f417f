//! The pure way from facts to a verdict: a policy (rules, parameters, catalogues, waivers) judges the facts of one move.
//!
//! Also the change documents that name moves, and the rules that hold on the way back. The same facts, policy and time
//! give the same verdict, byte for byte. No clock, no network and no process: only the files that people write are read
//! here. Knows no host, no hypervisor and no ledger. For the crates that collect, record and execute what a change asks
//! for, and for the command line.
//!
//! Walls, which the compiler keeps:
//!
//! ```compile_fail
//! use vmgate_reach::SshTarget;
//! ```
//!
//! ```compile_fail
//! use vmgate_libvirt::Hypervisor;
//! ```
//!
//! ```compile_fail
//! use vmgate_ledger::Ledger;
//! ```

#![forbid(unsafe_code)]

pub mod change;
mod evidence;
mod policy;
mod signed_pack;
pub mod way_back;

pub use evidence::{EvidenceError, EvidenceOrigin, read_facts, sign_facts};
pub use policy::{InvalidPolicy, Policy, VerdictRequest};
pub use signed_pack::{SIGNATURE_FILE, sign_rules};
