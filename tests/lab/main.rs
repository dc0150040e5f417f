//! vmgate on two real hypervisor hosts: `make lab-test` brings them up and runs these.

#![cfg(feature = "libvirt")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // in helpers of tests too
#![allow(
    clippy::indexing_slicing,
    clippy::unused_self,
    clippy::redundant_closure_for_method_calls,
    clippy::too_many_lines
)] // tables of faults and places

mod acceptance;
mod access;
#[path = "../authority/lab.rs"]
mod authority;
mod campaign;
mod check;
mod collect;
mod dark;
mod dark_campaign;
mod dirtying;
mod faults;
mod fleet;
mod harness;
mod hook;
mod hostile;
mod isolate;
mod managers;
mod migrate;
mod obstacles;
mod path;
mod pinger;
mod qmp;
mod qmp_door;
mod queues;
mod refusals;
mod rehearse;
mod rehearse_secure;
mod silence;
mod software;
mod trial;
mod wire;
