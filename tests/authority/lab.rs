//! Promises that need real hosts: run by tests/lab/main.rs.
