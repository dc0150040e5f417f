//! Cases from the field by their kind, judged by the real program on facts, and the list of what libvirt and QEMU refuse.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::struct_field_names
)]

mod field;
mod refusals;
