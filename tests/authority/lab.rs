//! Promises that need real hosts: run by tests/lab/main.rs.

use std::{fs, path::PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tempfile::TempDir;
use vmgate_attest::PrivateKey;
use vmgate_verdict::Verdict;

use crate::{
    harness::{Guest, Running, SlowLink, a_to_b, b_to_a, on_host, setting, the_move, uri_a, uri_b, words},
    hook::{Enforced, refused, uuid_of, virsh_migrate, vmgate},
};

const JANUARY: &str = "2026-01-15T00:00:00Z";

fn runs_on(guest: &Guest, host: &str) -> bool {
    let other = if host == "a" { "b" } else { "a" };
    guest.state_on(host) == "running" && guest.state_on(other).is_empty()
}

/// Configuration with the key that the destination trusts.
fn with_key(enforced: &Enforced) -> String {
    let file = enforced.path("vmgate.yaml");
    fs::write(&file, "signing_key: site.key\n").unwrap();
    file
}

/// Number of permits that wait at the destination.
fn waiting(enforced: &Enforced) -> u64 {
    enforced.status()["status"]["waiting"].as_u64().unwrap()
}

/// A verdict whose times are moved.
fn moved_in_time(verdict: &Value, by: SignedDuration) -> Value {
    let mut verdict = verdict.clone();
    for time in ["evaluated_at", "expires_at"] {
        let then: Timestamp = verdict[time].as_str().unwrap().parse().unwrap();
        verdict[time] = (then + by).to_string().into();
    }
    verdict
}

/// Signs with the site's key, as somebody would who has the key and does without `verdict sign`.
fn sign_by_hand(enforced: &Enforced, verdict: &Value) -> String {
    let pem = fs::read_to_string(enforced.path("site.key")).unwrap();
    let key = PrivateKey::from_pem("site.key", &pem).unwrap();
    let verdict: Verdict = serde_json::from_value(verdict.clone()).unwrap();
    let file = enforced.path("by-hand.json");
    fs::write(&file, serde_json::to_string(&vmgate_attest::sign(&verdict, &key).unwrap()).unwrap()).unwrap();
    file
}

/// Promise 1: migrates on a waiver that expired in January, in a change window of January, and with January's time.
#[test]
#[ignore = "needs the lab: make lab-test"]
fn what_held_in_january_moves_nothing_today() {
    let guest = Guest::start("january", &["--on", "a", "--workload", "corosync token=100"]);
    let folder = tempfile::tempdir().unwrap();
    let waivers = format!(
        "schema: vmgate/waivers/v1\nwaivers:\n  - rule: memory-sync-survives-blackout\n    match: {{vm: {}}}\n    owner: lab\n    \
         reason: tested\n    ticket: LAB-1\n    created: 2026-01-02\n    expires: 2026-01-31\n",
        guest.name
    );
    let file = folder.path().join("waivers.yaml");
    fs::write(&file, waivers).unwrap();
    let waivers = file.to_str().unwrap();
    let there = a_to_b();
    let waived = words(&["migrate", guest.name, "--waivers", waivers], &there);
    vmgate(&waived).exits(20).says("not migrated");
    vmgate(&[&["--at", JANUARY][..], &waived].concat()).exits(2);
    vmgate(&[&waived[..], &["--at", JANUARY]].concat()).exits(2).says("--at is for commands that look");
    assert!(runs_on(&guest, "a"));

    let quiet = Guest::start("closed", &["--on", "a"]);
    let change =
        change_of(&folder, &quiet, "window: {start: 2026-01-14T22:00:00Z, end: 2026-01-15T04:00:00Z}\n");
    for command in ["migrate", "run"] {
        let said = vmgate(&[command, "--change", &change, "--at", JANUARY]).exits(2);
        said.says("--at is for commands that look");
    }
    vmgate(&["migrate", "--change", &change]).exits(20).says("change-window-open");
    assert!(runs_on(&quiet, "a"));
}

fn change_of(folder: &TempDir, guest: &Guest, more: &str) -> String {
    let (from, to, address) = (uri_a(), uri_b(), setting("VMGATE_LAB_MIGRATE_B"));
    let name = guest.name;
    let text = format!(
        "schema: vmgate/change/v1\nid: LAB\n{more}moves:\n  - {{vm: {name}, from: '{from}', to: '{to}', migrate_address: {address}}}\n"
    );
    let file = folder.path().join("change.yaml");
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

/// Promise 2: checks live hosts for 2036 and for an hour ago, and tries to sign, send, store and use the verdict.
#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_verdict_for_another_time_lets_nobody_in() {
    let enforced = Enforced::with(&[]);
    let guest = Guest::start("someday", &["--on", "a"]);
    let key = enforced.path("site.pub.pem");
    let go = enforced.check(&guest, &[]);
    assert_eq!(go["decision"]["answer"], "GO", "{go:#}");
    let simulated = enforced.check(&guest, &["--at", "2036-01-01T00:00:00Z"]);
    assert_eq!(simulated["simulated"], true, "{simulated:#}");
    let mut relabelled = simulated.clone();
    relabelled.as_object_mut().unwrap().remove("simulated");
    let mut long = go.clone();
    long["expires_at"] = "2036-01-01T00:00:00Z".into();
    let (january, year) = (SignedDuration::from_hours(-24 * 300), SignedDuration::from_hours(24 * 365));
    let cases = [
        (&simulated, "simulated"),
        (&relabelled, "the time here is"),
        (&moved_in_time(&go, year), "the time here is"),
        (&long, "is accepted here"),
    ];
    for (verdict, why) in cases {
        let file = enforced.path("verdict.json");
        fs::write(&file, verdict.to_string()).unwrap();
        vmgate(&["verdict", "sign", &file, "--key", &enforced.path("site.key")]).exits(2).says(why);
        let envelope = sign_by_hand(&enforced, verdict);
        vmgate(&["verdict", "push", "lab-b", &envelope]).exits(2).says(why);
        let by = ["migrate", guest.name, "--verdict", &envelope, "--trusted-key", &key];
        vmgate(&words(&by, &a_to_b())).exits(21).says("not migrated").says(why);
        enforced.place(&guest, &envelope);
        assert_ne!(virsh_migrate(&guest, "a", "b").code, 0, "{why}");
        enforced.clear();
    }
    let envelope = sign_by_hand(&enforced, &moved_in_time(&go, january));
    let by = ["migrate", guest.name, "--verdict", &envelope, "--trusted-key", &key];
    vmgate(&words(&by, &a_to_b())).exits(21).says("expired");
    assert!(runs_on(&guest, "a"));
}

/// Promise 7: lets the recheck say NO-GO while an earlier GO waits at the destination, then migrates with virsh.
#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_no_go_leaves_no_permit_behind() {
    let enforced = Enforced::with(&[]);
    let guest = Guest::start("withdrawn", &["--on", "a"]);
    let config = with_key(&enforced);
    let key = enforced.path("site.pub.pem");
    let envelope = enforced.sign(&enforced.check(&guest, &[]), "site");
    let pause = |action: &str| {
        on_host("a", &format!("virsh -q {action} {}", guest.name), b"").exits(0);
    };

    // The recheck is NO-GO: nothing is sent, and nothing that waited is left.
    for earlier in [false, true] {
        if earlier {
            vmgate(&["verdict", "push", "lab-b", &envelope]).exits(0);
            assert_eq!(waiting(&enforced), 1);
        }
        pause("suspend");
        let by = ["migrate", guest.name, "--config", &config, "--verdict", &envelope, "--trusted-key", &key];
        vmgate(&words(&by, &a_to_b())).exits(20).says("the verdict no longer holds");
        pause("resume");
        assert_eq!(waiting(&enforced), 0, "earlier: {earlier}");
        refused(&guest, "was refused:");
    }

    // The first check of a later move is NO-GO.
    let another = enforced.sign(&enforced.check(&guest, &[]), "site");
    vmgate(&["verdict", "push", "lab-b", &another]).exits(0);
    pause("suspend");
    vmgate(&words(&["migrate", guest.name], &a_to_b())).exits(20).says("not migrated");
    pause("resume");
    assert_eq!(waiting(&enforced), 0);
    refused(&guest, "was refused:");

    // By hand.
    let third = enforced.sign(&enforced.check(&guest, &[]), "site");
    vmgate(&["verdict", "push", "lab-b", &third]).exits(0);
    vmgate(&["verdict", "withdraw", "lab-b", "--vm", &uuid_of(&guest)]).exits(0).says("lets no VM in");
    refused(&guest, "was refused:");

    // What is GO still passes, once.
    vmgate(&words(&["migrate", guest.name, "--config", &config], &a_to_b())).exits(0).says("runs on lab-b");
    assert_eq!(waiting(&enforced), 0);
}

/// Promise 7: ends a migration before the destination's hook is asked, and uses the permit that was sent for it.
#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_move_that_does_not_reach_the_hook_leaves_no_permit_behind() {
    let enforced = Enforced::with(&["--chain"]);
    let guest = Guest::start("unreached", &["--on", "a"]);
    let config = with_key(&enforced);
    // The other hook is asked first, so that ours never is.
    let other = "/etc/libvirt/hooks/qemu.before-vmgate";
    let refusing = b"#!/bin/sh\n[ \"$2/$3\" = migrate/begin ] || exit 0\necho not today >&2\nexit 3\n";
    on_host("b", &format!("cat > {other}; chmod 755 {other}"), refusing).exits(0);
    let said = vmgate(&words(&["migrate", guest.name, "--config", &config, "-v"], &a_to_b())).exits(30);
    said.says("not today").says("has received the signed verdict").says("is withdrawn");
    assert_eq!(waiting(&enforced), 0);
    on_host("b", &format!("printf '#!/bin/sh\\nexit 0\\n' > {other}"), b"").exits(0);
    refused(&guest, "was refused:");
}

/// Promise 7: uses a verdict of one migration address and source for another.
#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_verdict_is_for_its_source_and_its_address() {
    let guest = Guest::start("rerouted", &["--on", "a"]);
    let enforced = Enforced::with(&[]);
    let key = enforced.path("site.pub.pem");
    let go = enforced.check(&guest, &[]);
    assert_eq!(go["move"]["migrate_address"], setting("VMGATE_LAB_MIGRATE_B"), "{go:#}");
    let migrate = |verdict: &Value, address: &str| {
        let envelope = sign_by_hand(&enforced, verdict);
        let by = ["migrate", guest.name, "--verdict", &envelope, "--trusted-key", &key];
        vmgate(&words(&by, &the_move(&uri_a(), &uri_b(), address)))
    };
    migrate(&go, "10.77.9.9").exits(1).says("10.77.9.9").says("the verdict is about");
    let mut other = go.clone();
    other["move"]["source"]["uuid"] = "11111111-2222-4333-8444-555555555555".into();
    migrate(&other, &setting("VMGATE_LAB_MIGRATE_B")).exits(1).says("but the verdict is about host");
    assert!(runs_on(&guest, "a"));
}

/// A wall clock of vmgate's process alone, which can be set while it runs.
struct SteppedClock {
    folder: TempDir,
}

impl SteppedClock {
    fn new() -> Self {
        let clock = Self { folder: tempfile::tempdir().unwrap() };
        clock.step("+0");
        clock
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("offset")
    }

    /// Sets the clock, relative to the real time, such as `+1d`.
    fn step(&self, offset: &str) {
        let draft = self.folder.path().join("draft");
        fs::write(&draft, offset).unwrap();
        fs::rename(&draft, self.file()).unwrap();
    }

    fn start(&self, arguments: &[&str]) -> Running {
        let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
        assert!(fs::exists(library).unwrap(), "libfaketime is missing: tests/install faketime");
        let file = self.file();
        let environment = [
            ("LD_PRELOAD", library),
            ("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ];
        Running::start_with(arguments, &environment)
    }
}

/// Number of rechecks that have begun, by the ledger of the test.
fn rechecks() -> usize {
    let listed = vmgate(&["ledger", "list", "--kind", "transition", "--last", "1000"]);
    listed.stdout.matches("recheck").count()
}

/// Promise 1: sets the clock of vmgate's machine by a day, forwards and back, while facts are collected and while memory
/// is copied, and the move is made and verified all the same.
#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_clock_that_is_set_while_a_move_runs_is_survived() {
    let guest = Guest::start("timeless", &["--on", "a"]);
    let clock = SteppedClock::new();
    let there = a_to_b();
    let migrate = |way: &[String]| {
        let options = ["migrate", guest.name, "--longest-blackout", "2", "--timeout", "60"];
        clock.start(&words(&options, way))
    };
    for offset in ["+1d", "-1d"] {
        clock.step("+0");
        let slow = SlowLink::at("100mbit");
        let moving = migrate(&there).copies(&guest);
        clock.step(offset);
        drop(slow);
        moving.said().exits(0).says("runs on lab-b");
        assert!(runs_on(&guest, "b"), "{offset} while memory was copied");

        clock.step("+0");
        let before = rechecks();
        let moving = migrate(&b_to_a()).wait_until("the facts are collected again", || rechecks() > before);
        clock.step(offset);
        moving.said().exits(0).says("runs on lab-a");
        assert!(runs_on(&guest, "a"), "{offset} while facts were collected");
    }
    vmgate(&["ledger", "verify"]).exits(0);
}
