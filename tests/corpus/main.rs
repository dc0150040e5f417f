//! libvirt's own material as the judge of the reading: its schemas, and every domain of its tests for QEMU.
//!
//! Nothing of it is part of this repository: `tests/corpus/fetch` has apt fetch it, once. `make corpus` runs these tests.
#![cfg(feature = "libvirt")]
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod documents;
mod ideal;
mod newer;
mod reading;
mod refusals;
mod rng;
mod source;
mod verdicts;
