//! Tests of rule packs as a user loads them: the shipped pack, and folders of good and bad files.

mod bad_input;
mod documentation;
mod names;
mod outcomes;
mod parameters;
mod testing;

use std::{fs, path::PathBuf};

use tempfile::TempDir;
use vmgate_documents::{Problem, Problems};
use vmgate_verdict::{Effect, Missing, Outcome, Status};

use super::*;

/// A rule without any problem; tests replace parts of it.
const FITS: &str = r#"schema: vmgate/rule/v1
id: memory-fits
title: The destination has memory for the VM
step: prepare
severity: high
effect: block
assert: destination.memory.available_bytes >= vm.memory_max_bytes + params.spare_bytes
message: the VM needs {vm.memory_max_bytes} and {params.spare_bytes} to spare; there are {destination.memory.available_bytes}
rationale: QEMU on the destination maps the whole memory before the first page arrives, and the host may swap.
remediation: Choose a destination with more memory, or shrink the VM with `virsh setmem VM SIZE --live`.
references: [{title: "virsh(1)", url: "https://libvirt.org/manpages/virsh.html"}]
params:
  spare_bytes: {type: int, min: 0, max: 1099511627776, default: 1048576, help: What must be left over}
tags: [memory]
"#;

/// Tests of [`FITS`] that notice every change of it.
const FITS_TESTS: &str = r#"schema: vmgate/rule-test/v1
rule: memory-fits
cases:
  - name: just enough
    given: small
    expect: pass
  - name: one byte too little
    given: small
    set: {destination.memory.available_bytes: 2097151}
    expect: [{status: fail, message: "/needs 1 MiB and 1 MiB to spare; there are 2 MiB$/"}]
  - name: a smaller VM
    given: small
    set: {destination.memory.available_bytes: 2097151, vm.memory_max_bytes: 1048575}
    expect: pass
    remediates: one byte too little
  - name: nobody asked
    given: small
    set: {destination: !unknown "no answer"}
    expect: unknown
"#;

const SMALL: &str = "schema: vmgate/facts/v1
collected_at: 2026-11-23T01:00:00Z
vm: {memory_max_bytes: 1048576, name: web1}
destination: {memory: {total_bytes: 4194304, available_bytes: 2097152}}
";

/// A folder of files.
fn folder(files: &[(&str, &str)]) -> (TempDir, RuleSource) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let source = RuleSource::Dir(dir.path().to_owned());
    (dir, source)
}

/// Pack of one rule: [`FITS`] with `old` replaced by `new`.
fn pack_of(old: &str, new: &str) -> Result<Pack, Problems> {
    assert!(FITS.contains(old), "{old}");
    let (_dir, source) = folder(&[("memory-fits.yaml", &FITS.replacen(old, new, 1))]);
    Pack::load(&[source])
}

/// Error message of a pack that does not load.
fn refusal(old: &str, new: &str) -> String {
    match pack_of(old, new) {
        Ok(_) => panic!("`{new}` is accepted"),
        Err(errors) => errors.to_string(),
    }
}

fn pack_dir(source: &RuleSource) -> PathBuf {
    match source {
        RuleSource::Dir(dir) => dir.clone(),
        RuleSource::Builtin => PathBuf::new(),
    }
}

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
    let report = test::run(&pack, &Catalogues::shipped().unwrap(), &sources, None);
    assert!(report.passed(), "{}", report.render(false, true));
}

#[test]
fn the_shipped_files_name_schemas_that_exist() {
    let (files, _) = files::collect(&[RuleSource::Builtin], &files::FileRole::ALL);
    for file in files {
        let text = &file.file.text;
        let line = text.lines().next().unwrap_or_default();
        let Some((_, schema)) = line.split_once("$schema=") else { continue };
        let folder =
            std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(&file.file.name);
        assert!(folder.parent().unwrap().join(schema).exists(), "{}: {schema}", file.file.name);
    }
}

#[test]
fn the_shipped_pack_is_good_style() {
    let pack = Pack::load(&[RuleSource::Builtin]).unwrap();
    let found = lint(&pack);
    assert!(found.is_empty(), "{}", found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n"));
}

#[test]
fn every_shipped_rule_can_be_explained() {
    let pack = Pack::load(&[RuleSource::Builtin]).unwrap();
    let reference = rules_reference(&pack);
    for rule in pack.rules() {
        assert!(explain_rule(rule).starts_with(&format!("# {}\n\n**{}.**\n", rule.id, rule.title)));
        assert!(reference.contains(&format!("### {}\n", rule.id)));
    }
}

#[test]
fn a_value_in_a_command_that_vmgate_cannot_quote_is_refused_by_lint() {
    for (remediation, message) in [
        ("Run `virsh edit '{vm.name}'` and restart the guest.", "a value stands between quotes of a command"),
        (
            "Run `ssh host \"virsh edit {vm.name}\"` and restart.",
            "a value stands between quotes of a command",
        ),
        (
            "Edit the VM with virsh edit {vm.name} and restart it.",
            "a value stands in a command of virsh that is not between backticks",
        ),
        (
            "Run: sudo -n systemctl restart {vm.name} on the host.",
            "a value stands in a command of sudo that is not between backticks",
        ),
    ] {
        let text = FITS.replace(
            "remediation: Choose a destination with more memory, or shrink the VM with `virsh setmem VM SIZE --live`.",
            &format!("remediation: {}", serde_json::json!(remediation)),
        );
        let (_dir, source) = folder(&[("1-prepare/memory-fits.yaml", &text)]);
        let found = lint(&Pack::load(&[source]).unwrap());
        let messages: Vec<&str> = found.iter().map(Problem::message).collect();
        assert_eq!(messages, [message], "{remediation}");
        assert!(found[0].position().is_some());
    }
    for fine in [
        "Run `virsh edit {vm.name}` with `cache='none'`; {vm.name} needs it.",
        "It's `virsh setmem {vm.name} {vm.memory_max_bytes} --live`, since virsh's answer on {vm.name} is right.",
    ] {
        let text = FITS.replace(
            "remediation: Choose a destination with more memory, or shrink the VM with `virsh setmem VM SIZE --live`.",
            &format!("remediation: {}", serde_json::json!(fine)),
        );
        let (_dir, source) = folder(&[("1-prepare/memory-fits.yaml", &text)]);
        assert!(lint(&Pack::load(&[source]).unwrap()).is_empty(), "{fine}");
    }
}

#[test]
fn style_is_linted_with_the_place() {
    let text = FITS
        .replace("title: The destination has memory for the VM", "title: Check that memory is not missing.")
        .replace("{vm.memory_max_bytes} and {params.spare_bytes} to spare; there are {destination.memory.available_bytes}", "{vm.name}.")
        .replace("https://", "ftp:")
        .replace("tags: [memory]", "");
    let (_dir, source) = folder(&[("4-switch/other.yaml", &text)]);
    let found = lint(&Pack::load(&[source]).unwrap());
    let messages: Vec<&str> = found.iter().map(Problem::message).collect();
    assert_eq!(
        messages,
        [
            "the file name is `other`, but the rule id is `memory-fits`",
            "the folder 4-switch/ is for rules of another step",
            "the title gives an order",
            "the title describes a failure: `missing`",
            "the title does not have the form of a headline",
            "the message ends with a full stop",
            "the message does not show this side of the comparison",
            "the rule has no tags",
            "`ftp:libvirt.org/manpages/virsh.html` is not a web address",
        ]
    );
    assert_eq!(found[6].position(), Some((7, 9)));
}
