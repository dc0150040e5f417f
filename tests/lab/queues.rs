//! Queues of virtio devices that the destination's QEMU refuses at the end of a migration: foretold for a guest that the source's
//! QEMU booted, and asked of QEMU for one that came from elsewhere. Asking ends no guest.

use crate::harness::{Guest, lab, setting, the_move, uri_a, uri_b, vmgate, words};

const RULE: &str = "move-not-known-to-fail";

/// Outcome of the rule for a move from b to d: its status, or none where no failure is known.
fn foretold(guest: &Guest, options: &[&str]) -> String {
    let (from, to, address) = (uri_b(), setting("VMGATE_LAB_URI_D"), setting("VMGATE_LAB_MIGRATE_D"));
    let the_move = ["--from", &from, "--to", &to, "--migrate-address", &address];
    let check = ["check", guest.name, "--output", "json"];
    let said = vmgate(&[&check[..], &the_move[..], options].concat());
    let outcomes = said.json()["outcomes"].as_array().cloned().unwrap_or_default();
    let of_rule = outcomes.iter().find(|outcome| outcome["rule"] == RULE);
    of_rule.and_then(|outcome| outcome["status"].as_str()).unwrap_or("none").to_owned()
}

/// The move by libvirt alone.
fn migrate(guest: &Guest, from: &str, to: &str) -> (i32, String) {
    let said = lab(&["run", "virsh", "-c", from, "migrate", "--live", guest.name, to]);
    (said.code, said.stderr)
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn queues_that_qemu_11_refuses_are_foretold_for_the_guest_that_has_them() {
    let to = setting("VMGATE_LAB_URI_D");
    lab(&["host-up", "d"]).exits(0);
    let booted = Guest::start("queues-booted", &["--on", "b", "--machine", "pc-q35-7.2"]);
    assert_eq!(foretold(&booted, &[]), "fail", "its operating system answers");
    assert_eq!(foretold(&booted, &["--guest", "none"]), "unknown", "it may wait in its firmware");
    assert_eq!(foretold(&booted, &["--guest", "none", "--allow-monitor"]), "fail");
    let (code, why) = migrate(&booted, &uri_b(), &to);
    assert!(code != 0 && why.contains("virtio"), "{why}");
    drop(booted);

    let arrived = Guest::start("queues-arrived", &["--on", "a", "--machine", "pc-q35-7.2"]);
    assert_eq!(migrate(&arrived, &uri_a(), &uri_b()).0, 0);
    assert_eq!(foretold(&arrived, &[]), "unknown");
    assert_eq!(foretold(&arrived, &["--allow-monitor"]), "not-applicable");
    let (code, why) = migrate(&arrived, &uri_b(), &to);
    assert_eq!(code, 0, "{why}");

    // QEMU 11.1.3 ends in one of the commands that tell of queues, and the guest with it.
    let back = the_move(&to, &uri_b(), &setting("VMGATE_LAB_MIGRATE_B"));
    vmgate(&words(&["check", arrived.name, "--allow-monitor"], &back));
    assert_eq!(arrived.state_on("d"), "running");
    lab(&["host-down", "d"]).exits(0);
}
