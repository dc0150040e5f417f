//! Real migrations: done and verified, refused, aborted, failed.

use std::fs;

use crate::harness::{
    AnyForecast, Guest, Said, SlowLink, a_to_b, b_to_a, lab, start_vmgate, statuses, vmgate, vmgate_command,
    words,
};

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_guest_goes_there_and_back_and_is_verified_each_time() {
    let guest =
        Guest::start("traveller", &["--on", "a", "--workload", "dirty size=32 rate=8 pattern=random"]);
    vmgate(&words(&["migrate", guest.name], &a_to_b())).exits(0).says("runs on lab-b");
    assert_eq!((guest.state_on("a").as_str(), guest.state_on("b").as_str()), ("", "running"));

    // The way back leads to an older hypervisor: permitted for this machine type, with a warning.
    vmgate(&words(&["migrate", guest.name], &b_to_a()))
        .exits(0)
        .says("runs on lab-a")
        .says("destination-hypervisor-not-older");
    assert_eq!((guest.state_on("a").as_str(), guest.state_on("b").as_str()), ("running", ""));
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_check_knows_the_moves_of_the_default_ledger() {
    let guest = Guest::start("known", &["--on", "a"]);
    let state = tempfile::tempdir().unwrap();
    let vmgate = |arguments: &[&str]| -> Said {
        let mut command = vmgate_command(arguments);
        command.env_remove("VMGATE_LEDGER").env("XDG_STATE_HOME", state.path()).output().unwrap().into()
    };
    let known_moves = || {
        let said = vmgate(&words(&["check", guest.name, "--output", "json"], &a_to_b()));
        said.json()["forecast"]["corrected_by_migrations"].as_u64().unwrap()
    };
    assert_eq!(known_moves(), 0);
    assert!(!state.path().join("vmgate").exists(), "a check makes no ledger");
    for way in [a_to_b(), b_to_a()] {
        vmgate(&words(&["migrate", guest.name, "--longest-blackout", "2"], &way)).exits(0);
    }
    assert_eq!(known_moves(), 1);
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_no_go_is_not_migrated_and_the_guest_stays() {
    let guest = Guest::start("stays", &["--on", "a", "--workload", "corosync token=100"]);
    vmgate(&words(&["migrate", guest.name], &a_to_b())).exits(20).says("NO-GO").says("not migrated");
    assert_eq!((guest.state_on("a").as_str(), guest.state_on("b").as_str()), ("running", ""));
}

/// Move of a guest over 100 Mbit/s, which takes some ten seconds.
fn slow_move<'a>(guest: &'a Guest, any: &'a AnyForecast, hosts: &'a [String]) -> Vec<&'a str> {
    words(&["migrate", guest.name, "--longest-blackout", "4", "--waivers", any.path()], hosts)
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn ctrl_c_aborts_the_migration_and_the_guest_goes_on_where_it_was() {
    let guest = Guest::start("aborted", &["--on", "a"]);
    let limit = || lab(&["host", "a", "virsh", "-q", "migrate-getmaxdowntime", guest.name]).stdout;
    let limit_before = limit();
    let _slow = SlowLink::at("100mbit");
    let (any, hosts) = (AnyForecast::will_do(), a_to_b());
    let vmgate = start_vmgate(&slow_move(&guest, &any, &hosts));
    let vmgate = vmgate.copies(&guest);
    vmgate.interrupt();
    vmgate.said().exits(30).says("runs on lab-a");
    assert_eq!((guest.state_on("a").as_str(), guest.state_on("b").as_str()), ("running", ""));
    let job = lab(&["host", "a", "virsh", "-q", "domjobinfo", guest.name]);
    assert!(job.stdout.contains("None"), "a job is left behind: {}", job.stdout);
    assert_eq!(limit(), limit_before, "a downtime limit is left behind");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn ctrl_c_while_the_destination_prepares_is_not_lost() {
    let guest = Guest::start("too-early", &["--on", "a"]);
    let _slow = SlowLink::at("100mbit");
    let (any, hosts) = (AnyForecast::will_do(), a_to_b());
    let vmgate = start_vmgate(&slow_move(&guest, &any, &hosts));
    let vmgate = vmgate.wait_until("the destination prepares", || !guest.state_on("b").is_empty());
    vmgate.interrupt();
    vmgate.said().exits(30).says("on request").says("runs on lab-a");
    assert_eq!((guest.state_on("a").as_str(), guest.state_on("b").as_str()), ("running", ""));
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_migration_that_fails_says_where_the_guest_runs() {
    let guest = Guest::start("cut-off", &["--on", "a"]);
    let _slow = SlowLink::at("100mbit");
    let (any, hosts) = (AnyForecast::will_do(), a_to_b());
    let vmgate = start_vmgate(&slow_move(&guest, &any, &hosts));
    let vmgate = vmgate.copies(&guest);
    // The destination's QEMU dies under the migration: only the lab's own process, by its pid.
    lab(&["host", "b", "sh", "-c", "kill -9 $(cat /run/libvirt/qemu/cut-off.pid)"]).exits(0);
    vmgate.said().exits(30).says("runs on lab-a");
    assert_eq!((guest.state_on("a").as_str(), guest.state_on("b").as_str()), ("running", ""));
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_saved_verdict_opens_the_gate_only_signed_by_a_trusted_key_and_for_this_move() {
    let guest = Guest::start("signed", &["--on", "a"]);
    let other = Guest::start("unsigned", &["--on", "a"]);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for key in ["site", "stranger"] {
        let (private, public) = (path(&format!("{key}.key")), path(&format!("{key}.pem")));
        openssl(&["genpkey", "-algorithm", "ed25519", "-out", &private]);
        openssl(&["pkey", "-in", &private, "-pubout", "-out", &public]);
    }
    let report = format!("json={}", path("verdict.json"));
    vmgate(&words(&["check", guest.name, "--output", &report], &a_to_b())).exits(0);
    for key in ["site", "stranger"] {
        let private = path(&format!("{key}.key"));
        let envelope = vmgate(&["verdict", "sign", &path("verdict.json"), "--key", &private]).exits(0).stdout;
        fs::write(path(&format!("{key}.json")), envelope).unwrap();
    }
    let key = path("site.pem");
    let migrate = |vm: &str, verdict: &str| {
        vmgate(&words(&["migrate", vm, "--verdict", &path(verdict), "--trusted-key", &key], &a_to_b()))
    };
    migrate(guest.name, "stranger.json").exits(2).says("not migrated");
    migrate(other.name, "site.json").exits(2).says("is for the VM signed");
    // Facts are collected again all the same: a VM that is NO-GO by now stays on its source.
    lab(&["host", "a", "virsh", "-q", "suspend", guest.name]).exits(0);
    migrate(guest.name, "site.json").exits(20).says("the verdict no longer holds: vm-is-running");
    lab(&["host", "a", "virsh", "-q", "resume", guest.name]).exits(0);
    assert_eq!((guest.state_on("a").as_str(), guest.state_on("b").as_str()), ("running", ""));

    migrate(guest.name, "site.json").exits(0).says("runs on lab-b");
    assert_eq!((guest.state_on("a").as_str(), guest.state_on("b").as_str()), ("", "running"));
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_pair_of_versions_that_is_new_is_rehearsed_with_a_vm_that_may_be_lost() {
    let rehearser = Guest::start("rehearser", &["--on", "a"]);
    let asked = |options: &[&str]| {
        let first = ["check", rehearser.name, "--profile", "strict", "--output", "json"];
        let verdict = vmgate(&words(&[&first[..], options].concat(), &a_to_b())).json();
        statuses(&verdict, "version-pair-rehearsed")
    };
    assert_eq!(asked(&[]), ["fail"]);
    assert_eq!(asked(&["--rehearsal"]), ["not-applicable"]);
    vmgate(&words(&["migrate", rehearser.name, "--rehearsal"], &a_to_b())).exits(0);
    vmgate(&["ledger", "list", "--kind", "rehearsal"]).exits(0).says("passed");
    lab(&["guest", "stop", rehearser.name]).exits(0);
    let _again = Guest::start("rehearser", &["--on", "a"]);
    // The move passes; that nobody has rehearsed the way back is a warning.
    assert_eq!(asked(&[]), ["fail", "pass"]);
}

pub(crate) fn openssl(arguments: &[&str]) {
    let said: Said = std::process::Command::new("openssl").args(arguments).output().unwrap().into();
    said.exits(0);
}
