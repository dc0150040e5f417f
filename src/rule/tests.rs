//! The shipped pack, as a user gets it.

use super::*;

#[test]
fn the_shipped_pack_loads() {
    match Pack::load(&[RuleSource::Builtin]) {
        Ok(pack) => assert!(pack.rules().len() > 30),
        Err(errors) => panic!("{errors}"),
    }
}
