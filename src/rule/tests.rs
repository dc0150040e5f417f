//! The shipped pack, as a user gets it.

use super::*;

#[test]
fn the_shipped_pack_loads() {
    match Pack::load(&[RuleSource::Builtin]) {
        Ok(pack) => assert!(pack.rules().len() > 30),
        Err(errors) => panic!("{errors}"),
    }
}

#[test]
fn the_shipped_pack_passes_its_tests() {
    let sources = [RuleSource::Builtin];
    let pack = Pack::load(&sources).unwrap();
    let report = test::run(&pack, &sources, None);
    assert!(report.passed(), "{}", report.render(false, true));
}
