//! Enforcement on the destination: libvirt's hook lets an incoming migration in only with a signed GO, whatever tool
//! started it.
//!
//! [`run()`] is what libvirt's hook script calls. It never calls libvirt, which waits for it, and it ends in time.
//! [`host`] is what the other commands of `vmgate hook` do on that host. All of it builds without libvirt, since the
//! program on the host is the static one. docs/hook.md tells what it protects against and what it does not.

pub mod config;
mod daemon;
mod decide;
pub mod host;
mod install;
mod journal;
mod keyring;
mod layout;
mod overriding;
mod remove;
mod run;
mod script;
mod status;
mod store;
mod trust;

pub use config::{HookConfig, Mode, OnError};
pub use daemon::Known;
pub use host::serve;
pub use install::{Install, Installed, SignerKey};
pub use journal::{Because, Entry, Event};
pub use layout::{Layout, PROGRAM};
pub use overriding::Override;
pub use remove::Removed;
pub use run::{Answer, run};
pub use script::Place;
pub use status::{KeySeen, Status};
pub use store::Received;

/// The version of vmgate that is built here.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
