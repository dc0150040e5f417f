//! The `vmgate` command.

fn main() {}
