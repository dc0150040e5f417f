//! The parser that the variable PARSER names, see src/lib.rs. `make fuzz` runs all of them.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static PARSER: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("PARSER").unwrap_or_default();
    let found = vmgate_fuzz::PARSERS.iter().find(|(other, _)| *other == name);
    found.unwrap_or_else(|| panic!("PARSER={name}: no such parser, see fuzz/src/lib.rs")).1
});

fuzz_target!(|data: &[u8]| PARSER(data));
