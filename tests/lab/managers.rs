//! VMs of a manager: not moved behind its back, forecast by its settings, and moved through its door.

use std::fs;

use tempfile::TempDir;

use crate::harness::{
    AnyForecast, Guest, SlowLink, a_to_b, lab, on_host, setting, start_vmgate, uri_a, uri_b, vmgate, words,
};

const RULE: &str = "vm-moved-by-its-manager";
/// Seconds of blackout that are accepted of an idle guest.
const ACCEPTED: &str = "4";

/// Puts Nova's mark into the metadata of a running guest.
fn give_to_nova(guest: &Guest) {
    let element = "<instance><name>web-7</name><owner><project>web</project></owner></instance>";
    let namespace = "http://openstack.org/xmlns/libvirt/nova/1.1";
    let command = [
        "host", "a", "virsh", "metadata", guest.name, "--uri", namespace, "--key", "nova", "--set", element,
        "--live",
    ];
    lab(&command).exits(0);
}

/// Configuration in which the program of Nova is virsh's door, with QEMU's traffic to this address.
fn config(folder: &TempDir, address: &str) -> String {
    let door = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/managers/virsh-door");
    let file = folder.path().join("vmgate.yaml");
    let program = [
        "env".to_owned(),
        format!("TMPDIR={}", folder.path().display()),
        format!("VIRSH_SOURCE={}", uri_a()),
        format!("VIRSH_DESTINATION={}", uri_b()),
        format!("MIGRATE_URI=tcp://{address}"),
        door.to_owned(),
    ];
    fs::write(
        &file,
        format!("managers: {{nova: {{program: {}}}}}\n", serde_json::to_string(&program).unwrap()),
    )
    .unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_vm_of_nova_is_not_moved_behind_its_back_and_is_forecast_by_its_settings() {
    let guest = Guest::start("of-nova", &["--on", "a"]);
    vmgate(&words(&["check", guest.name, "--longest-blackout", ACCEPTED], &a_to_b())).exits(0);
    give_to_nova(&guest);
    let said = vmgate(&words(&["migrate", guest.name, "--longest-blackout", ACCEPTED], &a_to_b()));
    said.exits(20).says(RULE).says("belongs to OpenStack Nova").says("--as nova");
    assert_eq!((guest.state_on("a").as_str(), guest.state_on("b").as_str()), ("running", ""));

    let conf = "mkdir -p /etc/nova; printf '[DEFAULT]\\ntransport_url = rabbit://u:secret@h\\n[libvirt]\\nlive_migration_downtime = 2000\\n' \
                >/etc/nova/nova.conf";
    on_host("a", conf, b"").exits(0);
    let checked =
        vmgate(&words(&["check", guest.name, "--as", "nova", "--longest-blackout", ACCEPTED], &a_to_b()));
    on_host("a", "rm -r /etc/nova", b"").exits(0);
    let checked =
        checked.exits(0).says("OpenStack Nova would complete it in").says("live_migration_downtime = 2000");
    assert!(!checked.stdout.contains("secret"), "{}", checked.stdout);
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_vm_is_moved_through_the_door_of_its_manager_and_its_record_is_compared() {
    let guest = Guest::start("by-the-door", &["--on", "a"]);
    give_to_nova(&guest);
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder, &setting("VMGATE_LAB_MIGRATE_B"));
    let order = ["--config", &config, "migrate", guest.name, "--as", "nova", "--longest-blackout", ACCEPTED];
    vmgate(&words(&order, &a_to_b())).exits(0).says("runs on lab-b");
    assert_eq!((guest.state_on("a").as_str(), guest.state_on("b").as_str()), ("", "running"));
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn what_a_manager_cannot_do_leaves_the_vm_where_it_was_and_is_told_in_its_words() {
    let guest = Guest::start("fails-there", &["--on", "a"]);
    give_to_nova(&guest);
    let folder = tempfile::tempdir().unwrap();
    // Nobody has this address: QEMU's connection fails.
    let config = config(&folder, "127.0.0.9:1");
    let order = ["--config", &config, "migrate", guest.name, "--as", "nova", "--longest-blackout", ACCEPTED];
    let said = vmgate(&words(&order, &a_to_b()));
    said.exits(30).says("nova reports that the migration failed").says("runs on lab-a");
    assert_eq!((guest.state_on("a").as_str(), guest.state_on("b").as_str()), ("running", ""));
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn ctrl_c_aborts_through_the_door() {
    let guest = Guest::start("door-abort", &["--on", "a"]);
    give_to_nova(&guest);
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder, &setting("VMGATE_LAB_MIGRATE_B"));
    let _slow = SlowLink::at("100mbit");
    let any = AnyForecast::will_do();
    let order = ["--config", &config, "migrate", guest.name, "--as", "nova", "--waivers", any.path()];
    let order = [&order[..], &["--longest-blackout", ACCEPTED]].concat();
    let vmgate = start_vmgate(&words(&order, &a_to_b())).copies(&guest);
    vmgate.interrupt();
    vmgate.said().exits(30).says("on request").says("runs on lab-a");
    assert_eq!((guest.state_on("a").as_str(), guest.state_on("b").as_str()), ("running", ""));
}
