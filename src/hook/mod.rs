//! Enforcement on the destination: libvirt's hook lets an incoming migration in only with a signed GO, whatever tool
//! started it.
//!
//! [`run()`] is what libvirt's hook script calls. It never calls libvirt, which waits for it, and it ends in time.
//! [`host`] is what the other commands of `vmgate hook` do on that host. All of it builds without libvirt, since the
//! program on the host is the static one. docs/hook.md tells what it protects against and what it does not.

pub mod config;
mod daemon;
mod decide;
pub mod requests;
mod install;
mod journal;
mod keyring;
mod layout;
mod emergency_override;
mod remove;
mod run;
mod script;
mod status;
mod store;
mod trust;

pub use config::{HookConfig, EnforcementMode, OnError};
pub use daemon::HookActivation;
pub use install::{InstallRequest, InstallReport, SignerKey};
pub use journal::{DecisionReason, JournalEntry, JournalEvent};
pub use layout::{Layout, PROGRAM};
pub use emergency_override::Override;
pub use remove::RemovalReport;
pub use run::{HookAnswer, run};
pub use script::HookPlacement;
pub use status::{KeyFileStatus, HookStatus};
pub use store::ReceivedVerdict;

/// The version of vmgate that is built here.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
