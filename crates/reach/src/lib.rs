//! Ways to other machines, as bytes: ssh, a login that is kept, a shell, a command of the user's, the guest agent's commands.
//!
//! Knows neither facts' meaning nor rules: callers hand in the bytes of a question and get the bytes of an answer.
//! Nothing ever prompts, every call has a time limit, and nothing stays on the other machine. Also finds, packs and checks
//! the on-host program that is sent. For the crates that collect and execute, for the command line, and for
//! `vmgate_libvirt`, which carries the guest agent's commands.
//!
//! Walls, which the compiler keeps:
//!
//! ```compile_fail
//! use vmgate_probe::guest::look;
//! ```

#![forbid(unsafe_code)]

pub mod agent;
#[cfg(any(test, feature = "sample"))]
pub mod canned;
mod login;
mod on_host;
mod shared_ssh;
mod shell;
mod slots;
mod socket_folder;
mod ssh;

pub use login::{Login, Logins, SharedLogin};
pub use on_host::{Embedded, embed, write_on_host_program};
pub use shared_ssh::SharedSsh;
pub use shell::{HostShell, LastingRun, Program, ShellError};
pub use slots::{Slot, Slots};
pub use ssh::{SshTarget, Subject, of_command, quoted};
