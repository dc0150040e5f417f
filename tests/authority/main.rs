//! Promises of the gate: one test for each way in which one was broken in a trial.
//!
//! The documentation of a test begins with `Promise N:` and says what the test tries. docs/promises.md is generated from it
//! (`make generate`). Tests that need the lab's hosts are in lab.rs, which tests/lab/main.rs runs.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // in helpers of tests too

mod clock;
mod copied;
mod data;
mod destination;
mod evidence;
mod fail_closed;
mod hook;
mod keys;
mod ledger;
#[cfg(feature = "libvirt")]
mod listeners;
mod output;
mod ownership;
#[cfg(feature = "libvirt")]
mod parsers;
mod permits;
mod promises;
#[path = "../said/mod.rs"]
mod said;
mod versions;
