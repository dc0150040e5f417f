//! Commands that need no hypervisor, through the real binary: output on stdout and stderr, and exit codes.

#![allow(clippy::unwrap_used)] // in helpers of tests too

mod cluster;
mod said;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use jiff::SignedDuration;
use said::{Said, vmgate_in};
use serde_json::Value;
use tempfile::TempDir;

const HEALTHY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/fixtures/idle-vm.yaml");
const NOW: &str = "2026-11-23T01:05:00Z";

impl Said {
    #[track_caller]
    fn complains(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "`{text}` is not on stderr:\n{}", self.stderr);
        self
    }

    #[track_caller]
    fn reports(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "`{text}` is not on stdout:\n{}", self.stdout);
        self
    }
}

/// Runs vmgate in an empty folder, so that no other vmgate.yaml is read.
fn vmgate(arguments: &[&str]) -> Said {
    vmgate_in(tempfile::tempdir().unwrap().path(), arguments)
}

fn check(facts: &str, more: &[&str]) -> Said {
    let mut arguments = vec!["check", "--facts", facts, "--at", NOW];
    arguments.extend(more);
    vmgate(&arguments)
}

/// The healthy facts with one place in the text changed.
fn changed(folder: &TempDir, from: &str, to: &str) -> String {
    let text = fs::read_to_string(HEALTHY).unwrap();
    assert!(text.contains(from), "the fixture has no `{from}`");
    write(folder, "facts.yaml", &text.replacen(from, to, 1))
}

fn write(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_vm_without_a_destination_is_judged_where_it_runs_and_is_no_go() {
    let said = vmgate(&["check", "test", "--from", "test:///default"]).exits(21);
    said.reports("-> (none named)").reports("no destination was named");
    vmgate(&["check", "test", "--from", "test:///default", "--rehearse"])
        .exits(2)
        .complains("need one destination");
    vmgate(&["migrate", "test", "--from", "test:///default"]).exits(2).complains("--to");
    vmgate(&["check", "qmp:/run/x.qmp"]).exits(2).complains("give --from HOST");
    let rehearsal = ["rehearse", "qmp:/run/x.qmp", "--from", "ssh://root@a", "--to", "ssh://root@b"];
    vmgate(&rehearsal).exits(2).complains("libvirt does not have qmp:/run/x.qmp");
}

#[test]
fn healthy_facts_are_go() {
    check(HEALTHY, &[]).exits(0).reports("GO");
}

#[test]
fn the_same_facts_rules_and_time_give_the_same_report() {
    let once = check(HEALTHY, &["--output", "json"]).exits(0).stdout;
    assert_eq!(once, check(HEALTHY, &["--output", "json"]).exits(0).stdout);
}

#[test]
fn a_violation_is_20_and_missing_evidence_is_21() {
    let folder = tempfile::tempdir().unwrap();
    let paused = changed(&folder, "state: running", "state: paused");
    check(&paused, &[]).exits(20).reports("NO-GO").reports("vm-is-running").reports("paused");
    let blind = changed(&folder, "state: running", "state: {unknown: nobody looked}");
    check(&blind, &[]).exits(21).reports("NO-GO").reports("nobody looked");
}

#[test]
fn a_fact_that_is_left_out_is_missing_evidence_never_a_pass() {
    let folder = tempfile::tempdir().unwrap();
    let bare = write(&folder, "bare.yaml", "{schema: vmgate/facts/v1, collected_at: 2026-11-23T00:00:00Z}\n");
    check(&bare, &[]).exits(21);
}

#[test]
fn every_format_has_the_same_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let paused = changed(&folder, "state: running", "state: paused");
    for format in ["table", "json", "yaml", "markdown"] {
        let said = check(&paused, &["--output", format]).exits(20);
        assert!(said.stdout.contains("vm-is-running"), "{format}:\n{}", said.stdout);
    }
}

/// Text of a guest that would clear the screen, set its title, reverse the direction of writing, hide behind invisible
/// characters, and be a script, a link, a table, a formula or a workflow command.
const HOSTILE: &str = "\"\\e[2J\\e]0;owned\\a\\u202ecod.exe\\u2066\\u200b\\r\\n::error::x<script>alert(1)</script>[x](javascript:y)|`|=1+1 ${{secrets.x}}\"";

#[test]
fn hostile_text_is_harmless_in_every_format_and_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(HEALTHY).unwrap();
    let text = [
        "name: web1\n",
        "hostname: web1\n",
        "name: sshd, command",
        "remote: \"10.0.0.9:41822\"",
        "state: S, resident_bytes: 8388608",
    ]
    .iter()
    .zip(["name: H\n", "hostname: H\n", "name: H, command", "remote: H", "state: D, resident_bytes: 8388608"])
    .fold(text, |text, (from, to)| {
        assert!(text.contains(from), "the fixture has no `{from}`");
        text.replacen(from, &to.replace('H', HOSTILE), 1)
    });
    let text = text.replacen("budget_seconds: 462.4", "budget_seconds: 0.1", 1);
    let text = text.replacen("hostname: hv1.example.org", &format!("hostname: {HOSTILE}"), 1);
    let facts = write(&folder, "hostile.yaml", &text);
    let formats =
        ["table", "json", "yaml", "markdown", "html", "junit", "sarif", "github", "csv", "prometheus"];
    for format in formats {
        let said = check(&facts, &["-vv", "--color", "never", "--output", format]).exits(20);
        assert!(said.stdout.contains("tcp-retransmission-budget"), "{format}: it is about the hostile peer");
        let obeyed = |c: char| {
            c.is_control() && c != '\n'
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200b}'..='\u{200f}')
        };
        // RFC 4180 ends the lines of CSV with CRLF.
        let stdout = if format == "csv" { said.stdout.replace("\r\n", "\n") } else { said.stdout.clone() };
        for (stream, text) in [("stdout", &stdout), ("stderr", &said.stderr)] {
            // Rules' texts and layout have no tabs; JUnit and HTML may.
            // A record of CSV ends with both (RFC 4180).
            let text = if format == "csv" { text.replace("\r\n", "\n") } else { text.clone() };
            let found = text.chars().find(|c| obeyed(*c) && *c != '\t');
            assert_eq!(found, None, "{format}, {stream}:\n{text}");
            assert!(!text.lines().any(|line| line.starts_with("::error::x")), "{format}, {stream}:\n{text}");
        }
        if matches!(format, "html" | "markdown" | "junit") {
            assert!(!said.stdout.contains("<script>alert(1)"), "{format}:\n{}", said.stdout);
        }
        if format == "markdown" {
            assert!(!said.stdout.contains("[x](javascript:y)"), "{}", said.stdout);
        }
    }
}

#[test]
fn several_reports_are_written_in_one_run() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("verdict.json");
    let target = format!("json={}", file.display());
    check(HEALTHY, &["--output", "table", "--output", &target]).exits(0).reports("GO");
    let verdict: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(verdict["schema"], "vmgate/verdict/v1");
}

#[test]
fn an_output_that_cannot_be_written_fails_and_keeps_the_old_one() {
    check(HEALTHY, &["--output", "json=/nonexistent/out.json"]).exits(1).complains("/nonexistent/out.json");
    let folder = tempfile::tempdir().unwrap();
    let target = format!("json={}", folder.path().display());
    check(HEALTHY, &["--output", &target]).exits(1).complains("folder");
    let old = write(&folder, "old.json", "kept");
    check("/nonexistent/facts.yaml", &["--output", &format!("json={old}")]).exits(2);
    assert_eq!(fs::read_to_string(&old).unwrap(), "kept");
}

#[test]
fn what_was_mistyped_is_named() {
    vmgate(&[]).exits(2).complains("Usage");
    vmgate(&["chekc"]).exits(2).complains("check");
    vmgate(&["check"]).exits(2).complains("--facts");
    check(HEALTHY, &["--output", "jsno"]).exits(2).complains("json");
    check(HEALTHY, &["--at", "yesterday"]).exits(2).complains("--at");
    check(HEALTHY, &["--timeout", "0"]).exits(2).complains("--timeout");
    check(HEALTHY, &["--profile", "stirct"]).exits(2).complains("strict");
    check(HEALTHY, &["--longest-blackout", "-1"]).exits(2);
}

#[test]
fn facts_that_cannot_be_used_are_refused_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read_to_string(HEALTHY).unwrap();
    let cut =
        whole.split_at(whole.find("destination:").unwrap() + 20).0.to_owned() + "\n  nics: [{name: \"mi";
    check(&write(&folder, "cut.yaml", &cut), &[]).exits(2).complains("cut.yaml");
    check(&write(&folder, "empty.yaml", ""), &[]).exits(2).complains("empty");
    let typo = whole.replacen("machine_type:", "machin_type:", 1);
    check(&write(&folder, "typo.yaml", &typo), &[]).exits(2).complains("machin_type");
    let foreign = whole.replacen("vmgate/facts/v1", "vmgate/facts/v9", 1);
    check(&write(&folder, "foreign.yaml", &foreign), &[]).exits(2).complains("vmgate/facts/v");
    check(folder.path().to_str().unwrap(), &[]).exits(2);
    check("/nonexistent/facts.yaml", &[]).exits(2).complains("/nonexistent/facts.yaml");
}

#[test]
fn an_invalid_rule_is_refused_with_line_and_caret() {
    let folder = tempfile::tempdir().unwrap();
    let rule = "schema: vmgate/rule/v1
id: my-rule
title: The VM has a name
step: policy
severity: low
effect: warn
rationale: names are good
assert: vm.nmae != ''
message: it has none
remediation: name it
";
    write(&folder, "site/my-rule.yaml", rule);
    let said = vmgate_in(folder.path(), &["check", "--facts", HEALTHY, "--rules", "site"]).exits(2);
    assert!(said.stderr.contains("my-rule.yaml:8"), "{}", said.stderr);
    assert!(said.stderr.contains('^') && said.stderr.contains("name"), "{}", said.stderr);
}

#[test]
fn no_rules_at_all_is_3_never_go() {
    check(HEALTHY, &["--no-builtin-rules"]).exits(3);
}

#[test]
fn warnings_are_10_under_strict_only() {
    let folder = tempfile::tempdir().unwrap();
    let rule = "schema: vmgate/rule/v1
id: always-warns
title: The VM has another name
step: policy
severity: low
effect: warn
rationale: for the test
assert: vm.name == 'another'
message: \"it is called {vm.name}\"
remediation: rename it
";
    write(&folder, "site/always-warns.yaml", rule);
    let strict = ["check", "--facts", HEALTHY, "--rules", "site", "--no-builtin-rules", "--strict"];
    vmgate_in(folder.path(), &strict).exits(10);
    vmgate_in(folder.path(), &strict[..strict.len() - 1]).exits(0).reports("always-warns");
}

#[test]
fn the_configuration_of_the_folder_is_read_and_its_mistakes_are_said() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "vmgate.yaml", "profil: strict\n");
    vmgate_in(folder.path(), &["check", "--facts", HEALTHY])
        .exits(2)
        .complains("vmgate.yaml")
        .complains("profil");
    write(&folder, "vmgate.yaml", "parameters: {no-such-rule: {margin: 3}}\n");
    vmgate_in(folder.path(), &["check", "--facts", HEALTHY]).exits(2).complains("no-such-rule");
}

#[test]
#[cfg(feature = "libvirt")]
fn a_way_into_the_guest_that_leads_nowhere_is_a_mistake() {
    let folder = TempDir::new().unwrap();
    let ask = |way: &str| {
        vmgate_in(
            folder.path(),
            &[
                "collect",
                "web1",
                "--from",
                "test:///default",
                "--to",
                "qemu+ssh://hv2/system",
                "--guest",
                way,
            ],
        )
    };
    for (way, words) in [
        ("exec", "no guests.web1.exec"),
        ("ssh", "no guests.web1.ssh"),
        ("ssh://root@web1/etc", "is not USER@HOST"),
        ("telepathy", "give agent, wire, none, exec, ssh"),
    ] {
        let said = ask(way);
        assert!(said.code == 2 && said.stderr.contains(words), "{way}: {} {}", said.code, said.stderr);
    }
    write(&folder, "vmgate.yaml", "guests: {web1: {shh: root@web1}}");
    assert!(ask("agent").stderr.contains("shh"));
}

#[test]
fn the_rule_pack_passes_its_own_tests() {
    vmgate(&["rules", "test"]).exits(0);
    vmgate(&["rules", "lint"]).exits(0);
    vmgate(&["rules", "list"]).exits(0).reports("destination-memory-fits");
    vmgate(&["rules", "show", "destination-memory-fits"]).exits(0).reports("free memory");
    vmgate(&["rules", "show", "destination-memory-fit"]).exits(2).complains("destination-memory-fits");
}

#[test]
fn probes_print_json_of_what_they_see_here() {
    let host: Value = serde_json::from_str(&vmgate(&["probe", "host"]).exits(0).stdout).unwrap();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(host.to_string().contains(kernel.trim()), "{host:#}");
    let guest: Value = serde_json::from_str(&vmgate(&["probe", "guest"]).exits(0).stdout).unwrap();
    assert!(guest.to_string().contains(kernel.trim()), "{guest:#}");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let script = format!("'{}' rules list | true; exit ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_vmgate"));
    let status = Command::new("bash").args(["-c", &script]).current_dir(Path::new("/")).status().unwrap();
    assert_eq!(status.code(), Some(0));
}

/// A verdict on the healthy facts, or on facts that are changed, saved as JSON.
fn saved(folder: &TempDir, name: &str, facts: &str) -> String {
    let file = folder.path().join(name).to_str().unwrap().to_owned();
    check(facts, &["--output", &format!("json={file}")]);
    file
}

#[test]
fn diff_tells_what_is_new_and_what_is_fixed_and_blames_only_what_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let good = saved(&folder, "good.json", HEALTHY);
    let facts = changed(&folder, "memory_max_bytes: 4294967296", "memory_max_bytes: 4294967296000");
    let bad = saved(&folder, "bad.json", &facts);
    vmgate(&["diff", &good, &bad]).exits(20).reports("NO-GO, was GO").reports("destination-memory-fits");
    vmgate(&["diff", &bad, &good]).exits(0).reports("GO, was NO-GO").reports("fixed");
    vmgate(&["diff", &bad, &bad]).exits(0).reports("0 new, 0 changed, 0 fixed");
    let said = vmgate(&["diff", &good, &bad, "--json"]).exits(20);
    let document: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(document["schema"], "vmgate/diff/v1");
    assert_eq!(document["moves"][0]["since"]["new"][0]["rule"], "destination-memory-fits");
}

#[test]
fn every_format_tells_what_became_of_the_findings_of_a_baseline() {
    let folder = tempfile::tempdir().unwrap();
    let good = saved(&folder, "good.json", HEALTHY);
    let facts = changed(&folder, "memory_max_bytes: 4294967296", "memory_max_bytes: 4294967296000");
    for (format, part) in [
        ("table", "since 2026-11-23 01:05:00Z (GO): "),
        ("json", "\"since\""),
        ("yaml", "since:"),
        ("markdown", "Since 2026-11-23 01:05:00Z (GO): "),
        ("junit", "name=\"since\""),
        ("github", "; since 2026-11-23 01:05:00Z (GO): "),
        ("csv", ",new,"),
        ("prometheus", "trend=\"new\"} 2"),
        ("sarif", "\"baselineState\": \"new\""),
        ("html", "since 2026-11-23 01:05:00Z (GO): "),
    ] {
        check(&facts, &["-o", format, "--baseline", &good]).exits(20).reports(part);
    }
}

#[test]
fn explain_walks_from_the_verdict_to_where_a_fact_came_from() {
    let folder = tempfile::tempdir().unwrap();
    let facts = changed(&folder, "memory_max_bytes: 4294967296", "memory_max_bytes: 4294967296000");
    let verdict = saved(&folder, "verdict.json", &facts);
    for source in [["--verdict", &verdict], ["--facts", &facts]] {
        let mut arguments = vec!["explain", "destination-memory-fits", "--at", NOW];
        arguments.extend(source);
        vmgate(&arguments)
            .exits(0)
            .reports("NO-GO")
            .reports("assert ")
            .reports("from ")
            .reports("What to do");
    }
    vmgate(&["explain", "destination-memory-fit", "--verdict", &verdict])
        .exits(2)
        .complains("did you mean `destination-memory-fits`?");
    vmgate(&["explain", "destination-memory-fits", "nothing", "--verdict", &verdict])
        .exits(2)
        .complains("the move as a whole");
    vmgate(&["explain", "vm-is-running", "--verdict", &verdict, "--vm", "other"])
        .exits(2)
        .complains("no verdict is for a VM `other`");
}

#[test]
fn man_pages_and_completions_know_every_command() {
    let folder = tempfile::tempdir().unwrap();
    vmgate(&["generate", "man", folder.path().to_str().unwrap()]).exits(0);
    let commands = vmgate(&["generate", "commands"]).exits(0).stdout;
    for name in commands.lines().filter_map(|line| line.strip_prefix("## `")?.strip_suffix('`')) {
        let page = folder.path().join(format!("{}.1", name.replace(' ', "-")));
        assert!(page.exists(), "{}", page.display());
    }
    for shell in ["bash", "zsh", "fish"] {
        vmgate(&["generate", "completions", shell]).exits(0).reports("explain");
    }
}

#[test]
fn a_users_template_takes_the_place_of_the_shipped_one() {
    let folder = tempfile::tempdir().unwrap();
    let own = write(&folder, "page.html", "<title>Ours</title>{{ moves }}");
    check(HEALTHY, &["-o", "html", "--template", &own]).exits(0).reports("<title>Ours</title>");
    let other = write(&folder, "other.html", "");
    check(HEALTHY, &["-o", "html", "--template", &other]).exits(2).complains("expected one of page.html");
}

/// A change of moves of these VMs from hv1 to hv2, and a folder with the healthy facts, which are about web1.
fn change_of(folder: &TempDir, vms: &[&str]) -> (String, String) {
    let asked = |vm: &&str| {
        format!("  - vm: {vm}\n    from: qemu+ssh://root@hv1/system\n    to: qemu+ssh://root@hv2/system\n")
    };
    let moves = vms.iter().map(asked).collect::<Vec<_>>().concat();
    let text = format!("schema: vmgate/change/v1\nid: CHG-2041\nmoves:\n{moves}");
    write(folder, "facts/web1.yaml", &fs::read_to_string(HEALTHY).unwrap());
    (write(folder, "change.yaml", &text), folder.path().join("facts").to_str().unwrap().to_owned())
}

#[test]
fn a_change_is_judged_from_facts_files_and_a_move_without_its_own_is_no_go() {
    let folder = tempfile::tempdir().unwrap();
    let (change, facts) = change_of(&folder, &["web1"]);
    let check = |more: &[&str]| {
        let mut arguments = vec!["check", "--change", &change, "--facts", &facts, "--at", NOW];
        arguments.extend(more);
        vmgate(&arguments)
    };
    check(&[]).exits(0).reports("change CHG-2041");
    change_of(&folder, &["web1", "web2"]);
    let said = check(&["-o", "json"]).exits(21);
    let document: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(document["verdicts"][0]["decision"]["answer"], "GO");
    assert_eq!(document["verdicts"][1]["move"]["vm"]["name"], "web2");
    assert_eq!(document["verdicts"][1]["move"]["asked_in"]["line"], 7);
    check(&["-o", "github"]).exits(21).reports(&format!("::error file={change},line=7,"));
}

#[test]
fn verdicts_of_a_change_are_signed_and_verified_together() {
    let folder = tempfile::tempdir().unwrap();
    let (change, facts) = change_of(&folder, &["web1", "web2"]);
    let verdicts = folder.path().join("verdicts.json").to_str().unwrap().to_owned();
    let json = format!("json={verdicts}");
    // Only a verdict of the present can be signed.
    write(&folder, "facts/web1.yaml", &said::facts_collected(SignedDuration::ZERO));
    vmgate(&["check", "--change", &change, "--facts", &facts, "-o", &json]).exits(21);
    let openssl = |arguments: &[&str]| {
        assert!(
            Command::new("openssl").args(arguments).current_dir(folder.path()).status().unwrap().success()
        );
    };
    openssl(&["genpkey", "-algorithm", "ed25519", "-out", "private.pem"]);
    openssl(&["pkey", "-in", "private.pem", "-pubout", "-out", "public.pem"]);
    let signed =
        vmgate_in(folder.path(), &["verdict", "sign", &verdicts, "--key", "private.pem"]).exits(0).stdout;
    assert_eq!(signed.lines().count(), 2);
    write(&folder, "signed.json", &signed);
    let verify = ["verdict", "verify", "signed.json", "--key", "public.pem"];
    let verified = vmgate_in(folder.path(), &verify).exits(0).stdout;
    assert_eq!(verified, fs::read_to_string(&verdicts).unwrap());
    write(&folder, "signed.json", &signed.replacen("\"payload\":\"", "\"payload\":\"e", 1));
    vmgate_in(folder.path(), &verify).exits(2);
}

#[test]
fn the_ledger_keeps_verdicts_and_tells_when_it_was_changed() {
    let folder = tempfile::tempdir().unwrap();
    let ask = |arguments: &[&str]| {
        let ledger = ["--ledger", "sub/ledger.db"];
        vmgate_in(folder.path(), &[arguments, &ledger].concat())
    };
    ask(&["ledger", "verify"]).exits(2).complains("there is no ledger");
    ask(&["check", "--facts", HEALTHY, "--at", NOW]).exits(0);
    ask(&["check", "--facts", HEALTHY, "--at", NOW]).exits(0);
    ask(&["ledger", "list"]).exits(0).reports("GO");
    ask(&["ledger", "show", "2"]).exits(0).reports("\"kind\": \"verdict\"");
    ask(&["ledger", "show", "3"]).exits(2).complains("no record or run `3`");
    ask(&["ledger", "list", "--open"]).exits(0).reports("no records");
    let said = ask(&["ledger", "verify"]).exits(0).reports("2 records").stdout;
    let head = said.trim().rsplit_once("head ").unwrap().1.to_owned();
    ask(&["ledger", "verify", "--head", &head]).exits(0);
    ask(&["ledger", "verify", "--head", "9:00"]).exits(2).complains("were removed");
    ask(&["ledger", "verify", "--head", "1:00"]).exits(2).complains("was rewritten");
    // The bytes of a record, exchanged for as many others, as a damaged disk would.
    let path = folder.path().join("sub/ledger.db");
    let bytes = fs::read(&path).unwrap();
    let at = bytes.windows(15).position(|window| window == b"\"kind\":\"verdict").unwrap();
    let mut changed = bytes.clone();
    changed[at + 8] = b'V';
    fs::write(&path, changed).unwrap();
    ask(&["ledger", "verify"]).exits(2).complains("was changed after it was written");
}

#[test]

fn a_ledger_in_postgresql_is_used_as_one_in_a_file_and_its_password_is_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let owner = cluster::database();
    cluster::psql(&owner, "CREATE ROLE runner LOGIN PASSWORD 'secret'").unwrap();
    let runner = owner.replace("//owner@", "//runner:secret@");
    let ask = |store: &str, arguments: &[&str]| {
        let said = vmgate_in(folder.path(), &[arguments, &["--store", store]].concat());
        assert!(!(said.stdout.clone() + &said.stderr).contains("secret"), "{}{}", said.stdout, said.stderr);
        said
    };
    ask(&runner, &["ledger", "verify"]).exits(2).complains("`vmgate ledger init`");
    ask(&owner, &["ledger", "init"]).exits(0).reports("the ledger exists");
    ask(&runner, &["ledger", "list"]).exits(1).complains("permission denied");
    ask(&owner, &["ledger", "init", "--runner", "runner"]).exits(0);
    ask(&runner, &["check", "--facts", HEALTHY, "--at", NOW]).exits(0);
    let config = folder.path().join("vmgate.yaml");
    fs::write(&config, format!("ledger: \"{runner}\"\n")).unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
    vmgate_in(folder.path(), &["check", "--facts", HEALTHY, "--at", NOW]).exits(0);
    ask(&runner, &["ledger", "list"]).exits(0).reports("GO");
    ask(&runner, &["ledger", "show", "2"]).exits(0).reports("\"kind\": \"verdict\"");
    ask(&runner, &["ledger", "verify"]).exits(0).reports("2 records");
    ask(&format!("{runner}&sslmode=require"), &["ledger", "list"]).exits(1).complains("verify-full");
    vmgate_in(folder.path(), &["ledger", "init", "--ledger", "l.db", "--runner", "x"]).exits(2);
}

#[test]
#[cfg(feature = "libvirt")]
fn of_two_runners_for_one_change_each_move_is_taken_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = cluster::database();
    vmgate_in(folder.path(), &["ledger", "init", "--store", &store]).exits(0);
    let uri = |name: &str, vm: usize| format!("qemu+ssh://root@{name}{vm}/system");
    let a_move = |vm| format!("  - {{vm: vm{vm}, from: '{}', to: '{}'}}\n", uri("from", vm), uri("to", vm));
    let moves: Vec<String> = (0..6).map(a_move).collect();
    let host = |name: String| format!("  {name}: {{uri: 'test:///{name}'}}\n");
    let hosts: String = (0..6).map(|vm| host(format!("from{vm}")) + &host(format!("to{vm}"))).collect();
    fs::write(folder.path().join("vmgate.yaml"), format!("hosts:\n{hosts}")).unwrap();
    let change = format!("schema: vmgate/change/v1\nid: CHG-1\nmoves:\n{}", moves.concat());
    fs::write(folder.path().join("change.yaml"), change).unwrap();
    let run = ["run", "--change", "change.yaml", "--attempts", "1", "--store", &store];
    // The hosts do not exist: each move is tried once and fails.
    std::thread::scope(|scope| {
        let runners = [(); 2].map(|()| scope.spawn(|| vmgate_in(folder.path(), &run)));
        for runner in runners {
            assert_ne!(runner.join().unwrap().code, 0);
        }
    });
    let list = ["ledger", "list", "-n", "1000", "--kind", "campaign", "--store", &store];
    let said = vmgate_in(folder.path(), &list).exits(0).stdout;
    assert_eq!(said.matches(" takes move ").count(), 6, "{said}");
    assert_eq!(said.matches(" has ended").count(), 2, "{said}");
    vmgate_in(folder.path(), &["status", "--store", &store]).exits(30).reports("0 of 6 moves done");
    vmgate_in(folder.path(), &["campaign", "stop", "--store", &store]).exits(0);
    vmgate_in(folder.path(), &["recover", "--store", &store]).exits(0).reports("nothing to recover");
}

#[test]
#[cfg(feature = "libvirt")]
fn a_change_that_is_wrong_is_refused_with_everything_that_is_wrong_and_nothing_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let text =
        "schema: vmgate/change/v1\nid: ''\nmoves:\n  - {vm: a, from: here, to: 'qemu:///system', guest: x}\n";
    fs::write(folder.path().join("change.yaml"), text).unwrap();
    for command in ["check", "migrate"] {
        let said =
            vmgate_in(folder.path(), &[command, "--change", "change.yaml", "--ledger", "ledger.db"]).exits(2);
        for part in [
            "--> change.yaml:2:5",
            "`id` must be",
            "is not a libvirt URI",
            "is not a way to reach a guest",
            "3 problems",
        ] {
            assert!(said.stderr.contains(part), "{command}: {part} is missing:\n{}", said.stderr);
        }
    }
    vmgate(&["rules", "schema", "change.v1"]).exits(0).reports("vmgate/change/v1");
}

#[test]
#[cfg(feature = "libvirt")]
fn without_moves_there_is_nothing_to_recover() {
    let folder = tempfile::tempdir().unwrap();
    vmgate_in(folder.path(), &["recover", "--ledger", "ledger.db"]).exits(0).reports("there is no ledger");
    let saved = ["migrate", "a", "--from", "test:///a", "--to", "test:///b", "--verdict", "none.json"];
    vmgate_in(folder.path(), &saved).exits(2).complains("none.json: cannot be read");
}

/// Hosts of a site by name: all are libvirt's mock, so a VM runs on each.
#[test]
#[cfg(feature = "libvirt")]
fn a_source_is_found_and_never_guessed() {
    let folder = tempfile::tempdir().unwrap();
    let inventory =
        "schema: vmgate/inventory/v1\nhosts:\n  - {name: c, uri: 'qemu+ssh://root@192.0.2.1/system'}\n";
    write(&folder, "inventory.yaml", inventory);
    let hosts =
        "a: {uri: 'test:///default'}, b: {uri: 'test:///default?x=1'}, c: {uri: 'test:///default?x=2'}";
    write(&folder, "vmgate.yaml", &format!("inventory: inventory.yaml\nhosts: {{{hosts}}}\n"));
    let here = |arguments: &[&str]| vmgate_in(folder.path(), arguments).exits(2);
    here(&["check", "test", "--to", "b"]).complains("runs on c and on a and on b");
    here(&["check", "tset", "--to", "b"]).complains("Did you mean test (on c)");
    here(&["check", "--all"]).complains("--from");
    write(&folder, "vmgate.yaml", "{}");
    here(&["check", "test", "--to", "b"]).complains("vmgate init HOST");
}

/// Hosts of an inventory without libvirt: a command of vmgate.yaml runs the probe of this machine for both.
#[test]
#[cfg(feature = "libvirt")]
fn hosts_without_libvirt_are_named_in_an_inventory_and_their_vms_are_asked_of_the_probe() {
    let folder = tempfile::tempdir().unwrap();
    let inventory = |address: &str| {
        format!(
            "schema: vmgate/inventory/v1\nhosts:\n  - {{name: pve1, uri: '{address}'}}\n  - {{name: pve2, uri: 'ssh://pve2'}}\n"
        )
    };
    let probe = format!("{{exec: [{}, probe, ask]}}", env!("CARGO_BIN_EXE_vmgate"));
    let config = format!("inventory: inventory.yaml\nhosts: {{pve1: {probe}, pve2: {probe}}}\n");
    write(&folder, "vmgate.yaml", &config);
    write(&folder, "inventory.yaml", &inventory("ssh://root@192.0.2.1"));
    let here = |arguments: &[&str]| vmgate_in(folder.path(), arguments);
    here(&["check", "no-vm", "--to", "pve2"]).exits(2).complains("runs a VM `no-vm` (pve1, pve2)");
    here(&["check", "no-vm", "--from", "pve1", "--to", "pve2"]).exits(2).complains("pve1 runs no VM `no-vm`");
    write(&folder, "inventory.yaml", &inventory("ssh://root@192.0.2.1?command=x"));
    let refused = here(&["check", "no-vm", "--to", "pve2"]).exits(2);
    refused.complains("the parameter `command` is not allowed");
}

#[test]
fn messages_are_json_where_that_is_asked_for() {
    let said = vmgate(&["--log-format", "json", "check", "--facts", "none.yaml"]).exits(2);
    let line: Value = serde_json::from_str(said.stderr.trim()).unwrap();
    assert_eq!(line["level"], "ERROR");
    assert!(line["fields"]["message"].as_str().unwrap().contains("none.yaml"), "{line}");
}

#[test]
fn an_installation_proves_itself() {
    let said = vmgate(&["self-test"]);
    for part in ["rules", "verdicts", "reports", "ledger"] {
        assert!(said.stdout.contains(&format!("ok      {part}")), "{}", said.stdout);
    }
}
