//! Enforcement on the destination: libvirt's hook lets an incoming migration in only with a signed GO, whatever tool
//! started it.
//!
//! libvirt's hook script calls [`run()`], which never calls libvirt (libvirt waits for it) and keeps a time limit.
//! [`requests`] are the other commands of `vmgate hook` on that host. Of a verdict only the few fields of
//! [`vmgate_attest::Permit`] are read, so that a hook obeys verdicts of newer versions; it knows no rule. All of this builds
//! without libvirt, since the program on the host is the static one. For that program, and for the command line that
//! installs it. docs/hook.md says what the hook protects against and what not.
//!
//! Walls, which the compiler keeps:
//!
//! ```compile_fail
//! use vmgate_verdict::Verdict;
//! ```
//!
//! ```compile_fail
//! use vmgate_rules::Pack;
//! ```

#![forbid(unsafe_code)]

mod claim;
pub mod config;
mod daemon;
mod decide;
mod decision;
pub mod demand;
mod emergency_override;
mod incoming;
mod install;
mod journal;
pub mod key_rule;
mod keyring;
mod layout;
pub mod policy;
mod remove;
pub mod requests;
mod run;
mod script;
mod status;
mod store;
mod tidy;

use vmgate_trust as trust;

#[cfg(feature = "fuzzing")]
pub mod fuzz;

pub use config::{EnforcementMode, HookConfig, OnError};
pub use daemon::HookActivation;
pub use emergency_override::Override;
pub use install::{InstallReport, InstallRequest, SignerKey};
pub use journal::{DecisionReason, JournalEntry, JournalEvent};
pub use layout::{Layout, PROGRAM};
pub use remove::RemovalReport;
pub use requests::serve;
pub use run::{HookAnswer, run};
pub use script::HookPlacement;
pub use status::{HookStatus, KeyFileStatus, WaitingVerdict};
pub use store::ReceivedVerdict;

/// Version of this build of vmgate.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
