//! Rules, catalogues, waivers and settings with mistakes of their authors: every mistake is reported with
//! its line, and nothing that was not evaluated is GO.

#![allow(clippy::unwrap_used)] // in helpers of tests too

use std::{fs, path::Path, process::Command};

use tempfile::TempDir;

const HEALTHY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/fixtures/idle-vm.yaml");
const NOW: &str = "2026-11-23T01:05:00Z";

const RULE: &str = "schema: vmgate/rule/v1
id: vm-has-a-name
title: The VM is called as it should be
step: policy
severity: low
effect: block
assert: vm.name == params.name
message: \"the VM is called {vm.name}, and not {params.name}\"
rationale: Whoever is woken at night must find the VM by the name that its inventory has.
remediation: Rename it with `virsh domrename {vm.name} NAME` while it is off.
references: [{title: virsh(1), url: 'https://libvirt.org/manpages/virsh.html'}]
params: {name: {type: string, default: another, help: What the VM must be called}}
tags: [inventory]
";

const CATALOGUE: &str = "schema: vmgate/catalogue/udp-services/v1
entries: [{id: ours, title: Ours, ports: ['9999'], loss: repeats, why: a client asks again}]
";

/// A new folder, so that no other vmgate.yaml is read.
struct Site(TempDir);

impl Site {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let site = Self(tempfile::tempdir().unwrap());
        for (name, bytes) in files {
            site.write(name, bytes);
        }
        site
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Exit code, and both streams one after the other.
    #[track_caller]
    fn vmgate(&self, arguments: &[&str], code: i32) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_vmgate"))
            .args(arguments)
            .current_dir(self.0.path())
            .env_remove("VMGATE_CONFIG")
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{said}");
        said
    }

    /// `vmgate rules …` with the rules of `site/` alone.
    #[track_caller]
    fn rules(&self, arguments: &[&str], code: i32) -> String {
        let mut all = vec!["--rules", "site", "--no-builtin-rules", "rules"];
        all.extend(arguments);
        self.vmgate(&all, code)
    }

    #[track_caller]
    fn check(&self, more: &[&str], code: i32) -> String {
        let mut all = vec!["check", "--facts", HEALTHY, "--at", NOW];
        all.extend(more);
        self.vmgate(&all, code)
    }
}

#[track_caller]
fn says(said: &str, words: &str) {
    assert!(said.contains(words), "`{words}` is not in\n{said}");
}

#[test]
fn every_bad_file_is_a_clear_error_wherever_it_lies() {
    let bomb: String = (1..10).fold("a0: &a0 [x, x, x]\n".to_owned(), |text, at| {
        let before = at - 1;
        text + &format!("a{at}: &a{at} [*a{before}, *a{before}, *a{before}]\n")
    });
    let deep = "[".repeat(100_000);
    let nested = "a: {".repeat(100_000);
    let large = vec![b'#'; (1 << 20) + 1];
    let bad: [(&[u8], &str); 12] = [
        (bomb.as_bytes(), "anchors and aliases are not supported"),
        (deep.as_bytes(), "nested too deeply"),
        (nested.as_bytes(), "nested too deeply"),
        (b"schema: x\nschema: y\n", "the key `schema` is given twice"),
        (b"schema:\n\tx: y\n", "tabs"),
        ("\u{feff}schema: x\n".as_bytes(), "begins with a byte order mark"),
        (b"schema: caf\xe9\n", "is not UTF-8: byte 11 is wrong"),
        (b"", "is empty"),
        (&large, "is too large"),
        (b"- a\n- b\n", ""),
        (b"schema: [\n", "this is not YAML"),
        (b"schema: vmgate/rule/v1\0\n", "is not text: byte 22 is zero"),
    ];
    // All of them at once, wherever rules are looked for: every one is named.
    for (folder, ending, command) in [
        ("site", "yaml", "list"),
        ("site/profiles", "yaml", "list"),
        ("site/catalogues", "yaml", "lint"),
        ("site", "test.yaml", "test"),
        ("site/catalogues", "test.yaml", "test"),
        ("site/fixtures", "yaml", "test"),
    ] {
        let site = Site::new(&[("site/vm-has-a-name.yaml", RULE.as_bytes())]);
        for (at, (bytes, _)) in bad.iter().enumerate() {
            site.write(&format!("{folder}/bad{at}.{ending}"), bytes);
        }
        let said = site.rules(&[command], 2);
        for (at, (_, words)) in bad.iter().enumerate() {
            says(&said, &format!("{folder}/bad{at}.{ending}"));
            says(&said, words);
        }
        assert!(!said.contains('\0'));
    }
    // Of these there is one at a time.
    for (bytes, words) in bad {
        let site = Site::new(&[("one.yaml", bytes)]);
        for option in ["--waivers", "--config"] {
            // Settings may be left empty.
            let empty = option == "--config" && bytes.is_empty();
            let said = site.check(&[option, "one.yaml"], if empty { 0 } else { 2 });
            if !empty {
                says(&said, words);
                says(&said, "one.yaml");
            }
        }
    }
}

#[test]
fn a_folder_where_a_file_should_be_is_said() {
    let site = Site::new(&[("site/folder.yaml/inside", b"")]);
    says(&site.rules(&["list"], 2), "site/folder.yaml: is a directory, not a file");
    says(&site.check(&["--waivers", "site"], 2), "site: is a directory, not a file");
    says(&site.check(&["--rules", "nowhere"], 2), "nowhere: does not exist");
    says(&site.vmgate(&["check", "--facts", "site"], 2), "site: is a directory, not a file");
}

#[test]
fn all_problems_of_all_files_come_in_one_run() {
    let first = RULE.replace("vm.name ==", "vm.nam ==").replace("severity: low", "severity: lo");
    let second = RULE.replace("vm.name ==", "vm.vcpus ==").replace("tags:", "tag:");
    let waivers = "schema: vmgate/waivers/v1\nwaivers: [{rule: a}]\n";
    let site = Site::new(&[
        ("site/a.yaml", first.as_bytes()),
        ("site/b.yaml", second.as_bytes()),
        ("site/c.yaml", b""),
        ("w.yaml", waivers.as_bytes()),
    ]);
    let said = site.rules(&["list"], 2);
    for words in [
        "site/a.yaml:5:11",
        "`lo` is not an allowed value",
        "site/a.yaml:7:12",
        "did you mean `name`?",
        "site/b.yaml:7:9",
        "a whole number cannot be compared with a text",
        "site/b.yaml:13:1",
        "did you mean `tags`?",
        "site/c.yaml: is empty",
        "^^^",
        "5 problems",
    ] {
        says(&said, words);
    }
    let said = site.check(&["--waivers", "w.yaml"], 2);
    for field in ["match", "owner", "reason", "ticket", "created", "expires"] {
        says(&said, &format!("`waivers[0]`: `{field}` is missing"));
    }
    says(&said, "w.yaml:2:11");
    says(&said, "6 problems");
}

#[test]
fn one_id_is_one_rule_and_a_shipped_one_is_not_replaced_in_silence() {
    let site = Site::new(&[("site/a.yaml", RULE.as_bytes()), ("site/b.yaml", RULE.as_bytes())]);
    says(
        &site.rules(&["list"], 2),
        "two rules have the id `vm-has-a-name`: this one and the one in site/a.yaml",
    );
    let mine = RULE.replace("id: vm-has-a-name", "id: vm-is-running");
    let site = Site::new(&[("site/vm-is-running.yaml", mine.as_bytes())]);
    let said = site.vmgate(&["--rules", "site", "rules", "list"], 2);
    says(&said, "the id `vm-is-running` belongs to a shipped rule, in rules/2-precopy/vm-is-running.yaml");
    says(&said, "add `replaces: vm-is-running`");
    site.write("site/vm-is-running.yaml", format!("{mine}replaces: vm-is-running\n").as_bytes());
    let said = site.vmgate(&["--rules", "site", "rules", "show", "vm-is-running"], 0);
    says(&said, "The VM is called as it should be");
    says(&said, "replaces the shipped rule");
}

#[test]
fn tests_without_their_rule_and_broken_fixtures_fail() {
    let test = "schema: vmgate/rule-test/v1\nrule: vm-has-a-nam\ncases: []\n";
    let site = Site::new(&[
        ("site/vm-has-a-name.yaml", RULE.as_bytes()),
        ("site/vm-has-a-nam.test.yaml", test.as_bytes()),
        ("site/fixtures/torn.yaml", b"vm: {name: [web1"),
    ]);
    let said = site.rules(&["test"], 2);
    says(&said, "there is no rule `vm-has-a-nam`");
    says(&said, "did you mean `vm-has-a-name`?");
    says(&said, "`vm-has-a-name` has no tests");
    says(&said, "site/fixtures/torn.yaml:1:");
}

#[test]
fn a_failing_case_is_shown_with_both_sides_on_demand() {
    let test = "schema: vmgate/rule-test/v1
rule: vm-has-a-name
cases:
  - {name: as wanted, given: one, params: {name: web1}, expect: fail}
  - {name: another, given: one, expect: fail}
";
    let fixture = "schema: vmgate/facts/v1\ncollected_at: 2026-11-23T01:00:00Z\nvm: {name: web1}\n";
    let site = Site::new(&[
        ("site/vm-has-a-name.yaml", RULE.as_bytes()),
        ("site/vm-has-a-name.test.yaml", test.as_bytes()),
        ("site/fixtures/one.yaml", fixture.as_bytes()),
    ]);
    let said = site.rules(&["test"], 2);
    says(&said, "vm-has-a-name: case `as wanted`: the outcomes are not the expected ones");
    says(&said, "vm-has-a-name has no case that is unknown");
    says(&said, "vm-has-a-name has no case that shows the remediation");
    let said = site.rules(&["test", "--run", "vm-has-a-name: as", "--diff"], 2);
    says(&said, "running 1 cases of 1 rules");
    says(&said, "  - expected: fail\n  + found:    pass The VM is called as it should be\n");
    says(&site.rules(&["test", "--run", "no-such"], 3), "no rule was tested: nothing matches");
}

#[test]
fn nothing_evaluated_is_3_and_never_go() {
    let site = Site::new(&[("site/notes.txt", b"")]);
    says(&site.check(&["--rules", "site", "--no-builtin-rules"], 3), "no rules were loaded");
    for command in ["list", "lint", "test", "reference"] {
        site.rules(&[command], 3);
    }
    let elsewhere = RULE.replace("tags:", "when: vm.state == \"paused\"\ntags:");
    site.write("site/vm-has-a-name.yaml", elsewhere.as_bytes());
    let said = site.check(&["--rules", "site", "--no-builtin-rules"], 3);
    says(&said, "NO-GO");
    says(&said, "none of 1 rule applies");
}

#[test]
fn a_parameter_says_who_set_it() {
    let profile =
        "schema: vmgate/profile/v1\ntitle: For tests\nparams: {vm-has-a-name: {name: by-profile}}\n";
    let site = Site::new(&[
        ("site/vm-has-a-name.yaml", RULE.as_bytes()),
        ("site/profiles/night.yaml", profile.as_bytes()),
    ]);
    let show = ["show", "vm-has-a-name"];
    says(
        &site.rules(&show, 0),
        "- `name` = \"another\": What the VM must be called. From the rule's default;",
    );
    let night = ["show", "vm-has-a-name", "--profile", "night"];
    says(&site.rules(&night, 0), "From profile night; default \"another\";");
    site.write("vmgate.yaml", b"profile: night\nparameters: {vm-has-a-name: {name: by-site}}\n");
    says(&site.rules(&show, 0), "From vmgate.yaml; default \"another\";");
    says(&site.check(&["--rules", "site", "--no-builtin-rules"], 20), "and not by-site");
    site.write("vmgate.yaml", b"parameters: {vm-has-a-name: {nam: x}, vm-has-a-nam: {}}\n");
    let said = site.rules(&show, 2);
    says(
        &said,
        "vmgate.yaml sets `nam` of vm-has-a-name, but this rule has no such parameter; did you mean `name`?",
    );
    says(
        &said,
        "vmgate.yaml sets parameters of the rule `vm-has-a-nam`, but there is no such rule; did you mean `vm-has-a-name`?",
    );
}

#[test]
fn style_is_a_finding() {
    let rule = RULE.replace("title: The VM is called", "title: Check that the VM is called");
    let site = Site::new(&[
        ("site/vm-has-a-name.yaml", rule.as_bytes()),
        ("site/catalogues/mine.yaml", CATALOGUE.replace("a client asks again", "it repeats").as_bytes()),
    ]);
    let said = site.rules(&["lint"], 2);
    says(&said, "warning: the title gives an order");
    says(&said, "warning: `why` of ours has fewer than 12 characters");
    says(&said, "site/catalogues/mine.yaml:2:");
    says(&said, "2 findings of style");
}

#[test]
fn catalogues_are_tested_like_rules() {
    let site = Site::new(&[("site/catalogues/mine.yaml", CATALOGUE.as_bytes())]);
    says(&site.rules(&["test"], 2), "the catalogue `mine` has no tests");
    let tests = "schema: vmgate/catalogue-test/v1\ncases: [{udp: 9999, finds: [ours]}]\n";
    site.write("site/catalogues/mine.test.yaml", tests.as_bytes());
    says(&site.rules(&["test"], 0), "catalogue mine (1 cases, 0 mutants) ... ok");
    site.write("site/catalogues/mine.test.yaml", tests.replace("9999", "9998").as_bytes());
    let said = site.rules(&["test", "--diff"], 2);
    says(&said, "  - expected: ours\n  + found:    no entry\n");
}

#[test]
fn a_copy_of_the_shipped_rules_takes_their_place_with_its_catalogues() {
    let copy = concat!(env!("CARGO_MANIFEST_DIR"), "/rules");
    let site = Site::new(&[]);
    site.vmgate(&["--rules", copy, "--no-builtin-rules", "rules", "lint"], 0);
    let catalogues = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/catalogues");
    site.vmgate(&["--rules", catalogues, "rules", "lint"], 2);
}

#[test]
fn a_waiver_is_laid_over_and_shown_or_reported() {
    let waiver = "schema: vmgate/waivers/v1
waivers:
  - {rule: vm-has-a-name, match: {vm: web*}, owner: ops@example.org, reason: renamed next week, ticket: OPS-7,
     created: 2026-11-01, expires: 2026-11-30}
";
    let site = Site::new(&[("site/vm-has-a-name.yaml", RULE.as_bytes()), ("w.yaml", waiver.as_bytes())]);
    let with = ["--rules", "site", "--no-builtin-rules", "--waivers", "w.yaml"];
    let said = site.check(&with, 0);
    for words in ["GO", "ops@example.org", "2026-11-30", "OPS-7"] {
        says(&said, words);
    }
    let day = |at| ["check", "--facts", HEALTHY, "--at", at].iter().chain(&with).copied().collect::<Vec<_>>();
    site.vmgate(&day("2026-11-30T23:59:59Z"), 0);
    says(&site.vmgate(&day("2026-12-01T00:00:00Z"), 20), "expired: the last valid day was 2026-11-30");
    site.write("site/vm-has-a-name.yaml", format!("{RULE}waivable: false\n").as_bytes());
    says(&site.check(&with, 20), "cannot be waived");
    site.write("site/vm-has-a-name.yaml", RULE.as_bytes());
    site.write("w.yaml", waiver.replace("rule: vm-has-a-name", "rule: vm-has-name").as_bytes());
    says(&site.check(&with, 20), "did you mean vm-has-a-name?");
}

#[test]
fn what_was_mistyped_on_the_command_line_is_named() {
    let site = Site::new(&[]);
    for (arguments, words) in [
        (["show", "vm-is-runing"], "did you mean `vm-is-running`?"),
        (["facts", "vm.memory"], "did you mean `vm.memory_bytes`?"),
        (["schema", "rules.v1"], "there are facts.v1"),
    ] {
        says(&site.vmgate(&[&["rules"], &arguments[..]].concat(), 2), words);
    }
    says(
        &site.vmgate(&["rules", "facts", "guest.processes.name"], 0),
        "guest agent with guest-exec, ssh, exec",
    );
}

#[test]
fn every_schema_that_is_checked_in_is_the_one_that_is_printed() {
    let site = Site::new(&[]);
    let names = site.vmgate(&["rules", "schema"], 0);
    assert!(names.lines().count() >= 10, "{names}");
    for name in names.lines() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("schema/{name}.json"));
        let printed = site.vmgate(&["rules", "schema", name], 0);
        assert!(fs::read_to_string(&file).unwrap() == printed, "{name} has drifted: make generate");
    }
}
