//! Probes: what runs where the facts are, on a hypervisor host or in a guest.

pub mod flows;
