//! vmgate on two real hypervisor hosts: `make lab-test` brings them up and runs these.

#![cfg(feature = "libvirt")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // in helpers of tests too

mod check;
mod collect;
mod dirtying;
mod faults;
mod harness;
mod hook;
mod hostile;
mod isolate;
mod migrate;
mod obstacles;
mod path;
mod refusals;
mod silence;
mod software;
