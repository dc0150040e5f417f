//! Tests of the test runner: what it accepts, and everything that it must refuse.

use super::*;

/// Runs the tests of [`FITS`] with changes; the report as text.
fn run(rule: &str, tests: &str, filter: Option<&str>) -> (bool, String) {
    let (_dir, source) = folder(&[
        ("memory-fits.yaml", rule),
        ("memory-fits.test.yaml", tests),
        ("fixtures/small.yaml", SMALL),
    ]);
    let sources = [source];
    let pack = match Pack::load(&sources) {
        Ok(pack) => pack,
        Err(errors) => panic!("{errors}"),
    };
    let report = test::run(&pack, &Catalogues::default(), &sources, filter);
    (report.passed(), report.render(false, true))
}

fn refused(old: &str, new: &str) -> String {
    assert!(FITS_TESTS.contains(old), "{old}");
    let (passed, text) = run(FITS, &FITS_TESTS.replacen(old, new, 1), None);
    assert!(!passed, "`{new}` is accepted:\n{text}");
    text
}

#[test]
fn a_tested_rule_passes_and_the_report_counts() {
    let (passed, text) = run(FITS, FITS_TESTS, None);
    assert!(passed, "{text}");
    assert!(
        text.starts_with("running 4 cases of 1 rules\nrule memory-fits (4 cases, 3 mutants) ... ok\n"),
        "{text}"
    );
    assert!(
        text.contains("test result: ok. 4 cases passed; 0 failed; 0 other findings; 3 mutants; "),
        "{text}"
    );
}

#[test]
fn cases_are_selected_by_a_part_of_their_name() {
    let (passed, text) = run(FITS, FITS_TESTS, Some("memory-fits: nobody"));
    assert!(passed && text.starts_with("running 1 cases of 1 rules\n"), "{text}");
    let (passed, text) = run(FITS, FITS_TESTS, Some("no such thing"));
    assert!(!passed && text.contains("no rule was tested: nothing matches"), "{text}");
}

#[test]
fn what_is_not_as_expected_fails_with_both_sides() {
    let text = refused("expect: pass", "expect: fail");
    assert!(
        text.contains("memory-fits: case `just enough`: the outcomes are not the expected ones"),
        "{text}"
    );
    assert!(
        text.contains("  - expected: fail\n  + found:    pass The destination has memory for the VM\n"),
        "{text}"
    );
    let text = refused("to spare; there are 2 MiB$/", "to share$/");
    assert!(
        text.contains("+ found:    fail the VM needs 1 MiB and 1 MiB to spare; there are 2 MiB"),
        "{text}"
    );
}

#[test]
fn cases_that_every_rule_needs_are_demanded() {
    assert!(
        refused("    expect: unknown", "    expect: unknown\n    remediates: nothing")
            .contains("there is no case `nothing`")
    );
    assert!(
        refused("    remediates: one byte too little\n", "")
            .contains("has no case that shows the remediation")
    );
    assert!(
        refused("remediates: one byte too little", "remediates: just enough")
            .contains("`just enough` does not fail, so there is nothing to remedy")
    );
    let text = refused(
        "set: {destination.memory.available_bytes: 2097151, vm.memory_max_bytes: 1048575}\n    expect: pass",
        "set: {destination.memory.available_bytes: 1}\n    expect: fail",
    );
    assert!(text.contains("does not pass, so the remediation does not help"), "{text}");
    assert!(
        refused("set: {destination: !unknown \"no answer\"}\n    expect: unknown", "expect: pass")
            .contains("memory-fits has no case that is unknown")
    );
    let (_, text) = run(&format!("{FITS}when: vm.name != \"x\"\n"), FITS_TESTS, None);
    assert!(text.contains("memory-fits has no case that does not apply"), "{text}");
}

#[test]
fn a_change_that_no_case_notices_is_a_finding_with_its_place() {
    let far = FITS_TESTS
        .replacen(
            "    given: small\n",
            "    given: small\n    set: {destination.memory.available_bytes: 4000000}\n",
            1,
        )
        .replace("vm.memory_max_bytes: 1048575", "vm.memory_max_bytes: 5");
    let (passed, text) = run(FITS, &far, None);
    assert!(
        !passed && text.contains("memory-fits: no case has another result if `>=` is changed to `>`"),
        "{text}"
    );
    assert!(text.contains("memory-fits.yaml:7:9") && text.contains("1 other findings; 3 mutants"), "{text}");
}

#[test]
fn typing_errors_in_tests_are_errors_with_a_place() {
    for (old, new, expected) in [
        ("given: small", "given: smal", "did you mean `small`?"),
        (
            "destination.memory.available_bytes: 2097151}",
            "destination.memory.avail_bytes: 2097151}",
            "there is no fact `avail_bytes`",
        ),
        (
            "destination.memory.available_bytes: 2097151}",
            "destination.memory.available_bytes: much}",
            "expected a whole number, found the text `much`",
        ),
        (
            "destination.memory.available_bytes: 2097151}",
            "destination.memory.available_bytes: !unknown x}",
            "this field cannot be unknown by itself",
        ),
        ("destination: !unknown \"no answer\"", "destination: !absent ", "null is not allowed here"),
        (
            "destination: !unknown \"no answer\"",
            "vm.nics.tap: vnet0",
            "the item of the list is missing before `tap`",
        ),
        ("destination: !unknown \"no answer\"", "vm.nics.3.tap: vnet0", "write `[+]` to add one"),
        (
            "destination: !unknown \"no answer\"",
            "\"vm.nics[+].tap\": vnet0",
            "the facts of this case are not valid: vm.nics[0]: `mac` is missing",
        ),
        ("destination: !unknown \"no answer\"", "now: 2026-11-23T01:00:00Z", "write `now:` beside `set:`"),
        ("expect: unknown", "expect: unknwon", "did you mean `unknown`?"),
        ("expect: unknown", "expekt: unknown", "did you mean `expect`?"),
        ("expect: unknown", "expect: unknown\n    params: {spare: 1}", "did you mean `spare_bytes`?"),
        (
            "expect: unknown",
            "expect: unknown\n    forecast: {total_second: 1}",
            "did you mean `total_seconds`?",
        ),
        ("name: nobody asked", "name: just enough", "two cases have the name `just enough`"),
        ("rule: memory-fits", "rule: memory-fit", "there is no rule `memory-fit`"),
        ("/needs 1 MiB", "/needs (", "is not a regular expression"),
    ] {
        let text = refused(old, new);
        assert!(text.contains(expected), "{new}:\n{text}");
        assert!(text.contains("memory-fits.test.yaml:"), "{new}:\n{text}");
    }
}

#[test]
fn a_rule_without_tests_and_tests_without_a_rule_are_findings() {
    let (_dir, source) = folder(&[
        ("memory-fits.yaml", FITS),
        ("other.test.yaml", FITS_TESTS.replace("rule: memory-fits", "rule: gone").as_str()),
    ]);
    let sources = [source];
    let report = test::run(&Pack::load(&sources).unwrap(), &Catalogues::default(), &sources, None);
    let text = report.render(false, true);
    assert!(!report.passed());
    assert!(
        text.contains("`memory-fits` has no tests") && text.contains("there is no rule `gone`"),
        "{text}"
    );
}

#[test]
fn a_fixture_that_does_not_parse_is_a_finding() {
    let (_dir, source) = folder(&[
        ("memory-fits.yaml", FITS),
        ("memory-fits.test.yaml", FITS_TESTS),
        ("fixtures/small.yaml", &SMALL.replace("name: web1", "nam: web1")),
        ("fixtures/torn.yaml", "vm: {name: [web1"),
    ]);
    let sources = [source];
    let text = test::run(&Pack::load(&sources).unwrap(), &Catalogues::default(), &sources, None)
        .render(false, false);
    assert!(text.contains("`vm.nam`: there is no such field") && text.contains("this is not YAML"), "{text}");
}

#[test]
fn lists_and_forecasts_can_be_set_in_part() {
    let rule = FITS.replace(
        "tags: [memory]",
        "when: vm.nics.exists(n, n.mac == \"b\") && forecast.dirty_to_bandwidth_ratio < 1.0",
    );
    let nics = "vm.nics: [{mac: a, kind: user, source: !absent , tap: !absent , model: !absent , link_up: true}], vm.nics.0.mac: b, forecast.dirty_to_bandwidth_ratio: 0.5";
    let tests = FITS_TESTS.replacen(
        "    given: small\n    expect: pass",
        &format!("    given: small\n    set: {{{nics}}}\n    expect: pass"),
        1,
    );
    let (_, text) = run(&rule, &tests, Some("just enough"));
    assert!(text.starts_with("running 1 cases of 1 rules\n") && text.contains("1 cases passed"), "{text}");
}

#[test]
fn a_folder_of_rules_may_lie_anywhere() {
    let (_dir, source) = folder(&[
        ("deep/er/memory-fits.yaml", FITS),
        ("deep/er/memory-fits.test.yaml", FITS_TESTS),
        ("fixtures/small.yaml", SMALL),
    ]);
    assert!(pack_dir(&source).is_absolute());
    let sources = [source];
    let report = test::run(&Pack::load(&sources).unwrap(), &Catalogues::default(), &sources, None);
    assert!(report.passed(), "{}", report.render(false, true));
}

const SOFTWARE: &str = "schema: vmgate/catalogue/memory-sync/v1
entries:
  - {id: ours, title: Ours, names: [oursd], commands: ['ours --cluster'], detector: peer timeout, stop: systemctl stop ours,
     command_line: [{key: --timeout, pattern: '--timeout (\\d+)', seconds_each: 0.001}],
     start: systemctl start ours, references: [{title: Ours, url: 'https://example.org/'}]}
";

const SOFTWARE_TESTS: &str = "schema: vmgate/catalogue-test/v1
cases:
  - {process: oursd, command: oursd --timeout 2500, finds: [ours], seconds: 2.5}
  - {process: python3, command: /opt/ours --cluster, finds: [ours]}
  - {process: python3, command: /opt/ours, finds: []}
";

/// Runs the tests of the catalogue [`SOFTWARE`].
fn run_catalogue(tests: Option<&str>) -> (bool, String) {
    let mut files = vec![("catalogues/mine.yaml", SOFTWARE)];
    files.extend(tests.map(|tests| ("catalogues/mine.test.yaml", tests)));
    let (_dir, source) = folder(&files);
    let sources = [source];
    let catalogues = Catalogues::load(&sources).unwrap_or_else(|errors| panic!("{errors}"));
    let report = test::run(&Pack::load(&sources).unwrap(), &catalogues, &sources, None);
    (report.passed(), report.render(false, true))
}

#[test]
fn a_tested_catalogue_passes() {
    let (passed, text) = run_catalogue(Some(SOFTWARE_TESTS));
    assert!(passed, "{text}");
    assert!(
        text.contains(
            "running 3 cases of 0 rules and 1 catalogues\ncatalogue mine (3 cases, 2 mutants) ... ok"
        ),
        "{text}"
    );
}

#[test]
fn a_catalogue_is_held_to_its_tests() {
    for (old, new, expected) in [
        ("finds: []", "finds: [ours]", "process /opt/ours: other entries match than expected"),
        ("finds: []", "finds: [ours]", "  - expected: ours\n  + found:    no entry\n"),
        ("seconds: 2.5", "seconds: 2.0", "  - expected: ours, 2 s\n  + found:    ours, 2.5 s\n"),
        (", seconds: 2.5", "", "ours: no case needs this part"),
        (
            "command: /opt/ours --cluster, finds: [ours]",
            "finds: []",
            "every case passes without this pattern",
        ),
        ("finds: [ours]", "finds: [hours]", "did you mean `ours`?"),
        (
            "{process: oursd,",
            "{process: oursd, udp: 3,",
            "a case must have exactly one of process, listener, udp, component",
        ),
        ("finds: []", "find: []", "did you mean `finds`?"),
        ("catalogue-test/v1", "catalogue-test/v2", "did you mean `vmgate/catalogue-test/v1`?"),
    ] {
        assert!(SOFTWARE_TESTS.contains(old), "{old}");
        let (passed, text) = run_catalogue(Some(&SOFTWARE_TESTS.replacen(old, new, 1)));
        assert!(!passed && text.contains(expected), "{new}:\n{text}");
    }
    let nothing = "schema: vmgate/catalogue-test/v1\ncases: [{process: init, finds: []}]\n";
    assert!(run_catalogue(Some(nothing)).1.contains("no case finds `ours`"));
    assert!(run_catalogue(None).1.contains("the catalogue `mine` has no tests"));
}

#[test]
fn tests_of_a_catalogue_that_is_not_there_are_a_finding() {
    let (_dir, source) = folder(&[("catalogues/gone.test.yaml", SOFTWARE_TESTS)]);
    let sources = [source];
    let report = test::run(&Pack::load(&sources).unwrap(), &Catalogues::default(), &sources, None);
    assert!(
        report.render(false, false).contains("there is no catalogue `gone` in the folder of these tests")
    );
}
