//! Promises 1 and 2: time is the machine's own, and a verdict ends.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;
use vmgate_attest::PrivateKey;
use vmgate_verdict::Verdict;

use crate::said::{Said, facts_collected, vmgate_in, vmgate_with};

/// RFC 8410 section 10.3 gives this key pair.
const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

/// Commands that look: the only ones that can be given a time.
const LOOKS: [&str; 4] = ["check", "audit", "evacuate", "explain"];

/// A folder with fresh facts of a move that is GO, and a key pair.
fn site() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("facts.yaml"), facts_collected(SignedDuration::ZERO)).unwrap();
    fs::write(folder.path().join("public.pem"), PUBLIC).unwrap();
    let private = folder.path().join("private.pem");
    fs::write(&private, PRIVATE).unwrap();
    restrict(&private);
    folder
}

fn restrict(file: &Path) {
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}

fn check(site: &TempDir, more: &[&str]) -> Said {
    vmgate_in(site.path(), &[&["check", "--facts", "facts.yaml"], more].concat())
}

/// Verdict of the present, GO.
fn go(site: &TempDir) -> Verdict {
    let said = check(site, &["-o", "json"]).exits(0);
    serde_json::from_str(&said.stdout).unwrap()
}

fn sign(site: &TempDir, verdict: &Verdict) -> Said {
    fs::write(site.path().join("verdict.json"), serde_json::to_string(verdict).unwrap()).unwrap();
    vmgate_in(site.path(), &["verdict", "sign", "verdict.json", "--key", "private.pem"])
}

/// Writes an envelope as somebody would who has the key and does without `verdict sign`.
fn signed_by_hand(site: &TempDir, verdict: &Verdict) {
    let key = PrivateKey::from_pem("key", PRIVATE).unwrap();
    let envelope = vmgate_attest::sign(verdict, &key).unwrap();
    fs::write(site.path().join("envelope.json"), serde_json::to_string(&envelope).unwrap()).unwrap();
}

/// Verdicts that nothing may act on, each with a word of the refusal.
fn without_authority(go: &Verdict) -> Vec<(Verdict, &'static str)> {
    let hour = SignedDuration::from_hours(1);
    let moved = |by: SignedDuration| Verdict {
        evaluated_at: go.evaluated_at + by,
        expires_at: go.expires_at + by,
        ..go.clone()
    };
    vec![
        (Verdict { simulated: true, ..go.clone() }, "simulated"),
        (moved(hour), "the time here is"),
        (moved(hour * 24 * 3650), "the time here is"),
        (Verdict { expires_at: go.expires_at + hour * 24 * 365, ..go.clone() }, "at most 1h is accepted"),
        (Verdict { expires_at: go.evaluated_at, ..go.clone() }, "too old by then"),
    ]
}

#[track_caller]
fn refuses(said: &Said, why: &str) {
    assert_ne!(said.code, 0, "{}", said.stdout);
    assert!(said.stderr.contains(why), "`{why}` is missing: {}", said.stderr);
    assert_eq!(said.stdout, "");
}

/// Names of the commands that have an option, each with its parents.
fn commands_with(option: &str, command: &clap::Command, path: &str, found: &mut Vec<String>) {
    for sub in command.get_subcommands() {
        let path = format!("{path} {}", sub.get_name()).trim().to_owned();
        if sub.get_arguments().any(|argument| argument.get_long() == Some(option)) {
            found.push(path.clone());
        }
        commands_with(option, sub, &path, found);
    }
}

/// Promise 1: gives a time to every command, and only those that look take it.
#[test]
fn only_what_looks_can_be_given_a_time() {
    let mut command = vmgate::cli::command();
    command.build();
    let mut found = Vec::new();
    commands_with("at", &command, "", &mut found);
    found.sort_unstable();
    let mut looks: Vec<&str> =
        LOOKS.into_iter().filter(|name| command.find_subcommand(name).is_some()).collect();
    looks.sort_unstable();
    assert_eq!(found, looks);

    let site = site();
    let time = "2026-01-15T00:00:00Z";
    for acting in [
        &["migrate", "web1", "--from", "test:///default", "--to", "test:///other"][..],
        &["run", "--change", "change.yaml"],
        &["recover"],
        &["isolate", "web1", "--on", "test:///default"],
        &["hook", "override", "hv1", "--reason", "x", "--by", "x", "--minutes", "1"],
        &["hook", "install", "hv1"],
        &["verdict", "sign", "verdict.json", "--key", "private.pem"],
        &["verdict", "push", "hv1", "envelope.json"],
        &["collect", "web1", "--from", "test:///default", "--to", "test:///other"],
        &["observe", "web1", "--from", "test:///default"],
        &["serve"],
        &["campaign", "resume"],
        &["ledger", "init"],
    ] {
        for words in [[acting, &["--at", time]].concat(), [&["--at", time], acting].concat()] {
            let said = vmgate_in(site.path(), &words);
            if command.find_subcommand(acting[0]).is_some() {
                let said = said.exits(2);
                assert!(said.stderr.contains("--at is for commands that look"), "{}", said.stderr);
            }
        }
    }
}

/// Promise 1: tries to hand a time over by the environment, the time zone, and the configuration.
#[test]
fn there_is_no_other_way_to_give_a_time() {
    let site = site();
    let time = "2026-01-15T00:00:00Z";
    let environment = [
        ("VMGATE_AT", time),
        ("VMGATE_NOW", time),
        ("VMGATE_TIME", time),
        ("SOURCE_DATE_EPOCH", "1768435200"),
        ("TZ", "Pacific/Kiritimati"),
        ("TZDIR", "/nonexistent"),
    ];
    let said =
        vmgate_with(site.path(), &["check", "--facts", "facts.yaml", "-o", "json"], &environment).exits(0);
    let verdict: Verdict = serde_json::from_str(&said.stdout).unwrap();
    let off = verdict.evaluated_at.duration_since(Timestamp::now()).abs();
    assert!(off < SignedDuration::from_mins(1), "{}", verdict.evaluated_at);
    fs::write(site.path().join("vmgate.yaml"), format!("at: {time}\n")).unwrap();
    let said = check(&site, &[]).exits(2);
    assert!(said.stderr.contains("`at`"), "{}", said.stderr);
}

/// Promise 1: evaluates for another time, and looks for the word "simulated" in each format of a report.
#[test]
fn a_verdict_of_another_time_says_so_in_every_format() {
    let site = site();
    let later = (Timestamp::now() + SignedDuration::from_mins(5)).to_string();
    for format in vmgate::report::Format::ALL {
        let said = check(&site, &["--at", &later, "-o", format.name()]).exits(0);
        assert!(said.stdout.to_lowercase().contains("simulated"), "{format}: {}", said.stdout);
        let said = check(&site, &["-o", format.name()]).exits(0);
        assert!(!said.stdout.to_lowercase().contains("simulated"), "{format}: {}", said.stdout);
    }
    check(&site, &["--at", &later, "-o", "json=verdict.json"]).exits(0);
    for words in [
        &["report", "verdict.json"][..],
        &["explain", "vm-is-running", "--verdict", "verdict.json"],
        &["diff", "--json", "verdict.json", "verdict.json"],
    ] {
        let said = vmgate_in(site.path(), words).exits(0);
        assert!(said.stdout.contains("simulated"), "{words:?}: {}", said.stdout);
    }
    check(&site, &["--at", &later, "--ledger", "ledger.db"]).exits(0);
    let said = vmgate_in(site.path(), &["ledger", "list", "--ledger", "ledger.db"]).exits(0);
    assert!(said.stdout.contains("simulated GO"), "{}", said.stdout);
}

/// Promise 1: signs what `check --at` wrote, for an earlier time and for one ten years ahead.
#[test]
fn a_simulated_verdict_is_not_signed() {
    let site = site();
    sign(&site, &go(&site)).exits(0);
    for hours in [-1, 1, 24 * 3650] {
        let time = (Timestamp::now() + SignedDuration::from_hours(hours)).to_string();
        check(&site, &["--at", &time, "-o", "json=simulated.json"]);
        let signing = ["verdict", "sign", "simulated.json", "--key", "private.pem"];
        refuses(&vmgate_in(site.path(), &signing), "simulated");
    }
}

/// Promise 2: signs verdicts from the future, on old facts, and with a validity that was made longer.
#[test]
fn a_verdict_with_wrong_times_is_not_signed() {
    let site = site();
    for (verdict, why) in without_authority(&go(&site)) {
        refuses(&sign(&site, &verdict), why);
    }
}

/// Promise 2: sends such verdicts, signed by other means, to a host whose hook might be older.
#[test]
fn a_verdict_with_wrong_times_is_not_sent() {
    let site = site();
    for (verdict, why) in without_authority(&go(&site)) {
        signed_by_hand(&site, &verdict);
        let said = vmgate_in(site.path(), &["verdict", "push", "hv.invalid", "envelope.json"]);
        refuses(&said, why);
    }
}

/// Promise 1: opens the gate of `migrate` with such verdicts, signed by a trusted key.
#[test]
#[cfg(feature = "libvirt")]
fn a_verdict_with_wrong_times_opens_no_gate() {
    let site = site();
    let verdict = go(&site);
    let uuid = verdict.moved.vm.uuid.clone().unwrap();
    let hour = SignedDuration::from_hours(1);
    let expired = Verdict {
        evaluated_at: verdict.evaluated_at - hour * 2,
        expires_at: verdict.expires_at - hour * 2,
        ..verdict.clone()
    };
    for (verdict, why) in without_authority(&verdict).into_iter().chain([(expired, "expired at")]) {
        signed_by_hand(&site, &verdict);
        let moved = ["migrate", uuid.as_str(), "--from", "test:///default", "--to", "test:///other"];
        let by =
            ["--verdict", "envelope.json", "--trusted-key", "public.pem", "--ledger", "l.db", "-o", "json=r"];
        let said = vmgate_in(site.path(), &[&moved[..], &by].concat());
        assert_eq!(said.code, 21, "{}", said.stderr);
        assert!(said.stderr.contains("not migrated") && said.stderr.contains(why), "{why}: {}", said.stderr);
    }
}

/// Promise 2: dates facts into the future, so that they never grow old.
#[test]
fn facts_of_the_future_make_no_verdict_to_act_on() {
    let site = site();
    let future = facts_collected(SignedDuration::from_hours(-24 * 365));
    fs::write(site.path().join("facts.yaml"), future).unwrap();
    let said = check(&site, &["-o", "json=verdict.json", "-o", "table"]);
    assert!(said.stdout.contains("already expired"), "{}", said.stdout);
    let signing = ["verdict", "sign", "verdict.json", "--key", "private.pem"];
    refuses(&vmgate_in(site.path(), &signing), "dated later");
}
