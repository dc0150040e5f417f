//! vmgate on two real hypervisor hosts: `make lab-test` brings them up and runs these.

mod check;
mod harness;
mod migrate;
mod obstacles;
mod software;
