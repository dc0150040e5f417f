//! GO and NO-GO on real guests, and the same verdict from a facts file.

use std::fs;

use crate::harness::{Guest, a_to_b, b_to_a, lab, setting, statuses, uri_a, uri_b, vmgate, words};

#[test]
#[ignore = "needs the lab: make lab-test"]
fn an_idle_guest_is_go_with_every_topic_looked_at() {
    let guest = Guest::start("idle-go", &["--on", "a"]);
    let said = vmgate(&words(&["check", guest.name, "--output", "json"], &a_to_b())).exits(0);
    let verdict = said.json();
    assert_eq!(verdict["decision"]["answer"], "GO", "{verdict:#}");
    for rule in [
        "udp-listeners-known",
        "tcp-retries-sysctl-sane",
        "memory-sync-survives-blackout",
        "dirty-rate-below-goodput",
        "migration-nic-dedicated",
        "migration-nic-fast-enough",
        "destination-hypervisor-not-older",
        "machine-type-supported",
        "destination-memory-fits",
    ] {
        let found = statuses(&verdict, rule);
        assert!(!found.is_empty(), "{rule} has no outcome");
        assert!(!found.iter().any(|status| status == "fail" || status == "unknown"), "{rule}: {found:?}");
    }
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_tight_failure_detector_is_no_go_and_says_why() {
    let guest = Guest::start("tight", &["--on", "a", "--workload", "corosync token=100"]);
    vmgate(&words(&["check", guest.name], &a_to_b()))
        .exits(20)
        .says("NO-GO")
        .says("memory-sync-survives-blackout")
        .says("Corosync");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_guest_that_gives_connections_up_early_is_no_go() {
    let peer = Guest::start("peer", &["--on", "a", "--workload", "tcp-listen port=7000"]);
    let address = lab(&["guest", "list"]).stdout;
    let address =
        address.lines().find(|line| line.starts_with("peer\t")).unwrap().rsplit('\t').next().unwrap();
    let workload = format!("tcp to={address}:7000 retries2=1");
    let guest = Guest::start("impatient", &["--on", "a", "--workload", &workload]);
    // The lab's network follows at once: a second of dark time, as a switch beyond it might take, ends the connection.
    let dark = ["check", guest.name, "--output", "json", "--network-dark", "1"];
    let said = vmgate(&words(&dark, &a_to_b())).exits(20);
    assert_eq!(statuses(&said.json(), "tcp-retransmission-budget"), ["fail"]);
    drop(peer);
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_facts_file_gives_the_same_verdict_without_a_hypervisor() {
    let guest =
        Guest::start("on-file", &["--on", "a", "--workload", "udp to=10.77.2.254:514 rate=10 listen=5060"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("facts.yaml");
    let file = file.to_str().unwrap();
    vmgate(&words(&["collect", guest.name, "--output", file], &a_to_b())).exits(0);
    let live = vmgate(&words(&["check", guest.name, "--output", "json"], &a_to_b()));
    let at = live.json()["evaluated_at"].as_str().unwrap().to_owned();
    let from_file = || vmgate(&["check", "--facts", file, "--output", "json", "--at", &at]);
    assert_eq!(
        from_file().stdout,
        from_file().stdout,
        "the same facts, rules and time give the same verdict"
    );
    assert_eq!(from_file().code, live.code);
    assert_eq!(from_file().json()["decision"], live.json()["decision"]);
    assert_eq!(blocking(&from_file().json()), blocking(&live.json()));
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_vm_that_may_move_is_planned() {
    let guest = Guest::start("planned", &["--on", "a"]);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (inventory, change) = (path("inventory.yaml"), path("change.yaml"));
    let host = |name: &str, uri: String, address: &str| {
        format!("  - {{name: {name}, uri: '{uri}', migrate_address: {}}}\n", setting(address))
    };
    let hosts = host("a", uri_a(), "VMGATE_LAB_MIGRATE_A") + &host("b", uri_b(), "VMGATE_LAB_MIGRATE_B");
    fs::write(&inventory, format!("schema: vmgate/inventory/v1\nhosts:\n{hosts}")).unwrap();
    let plan = ["evacuate", "a", "--into", "b", "--inventory", &inventory, "--output", &change];
    vmgate(&plan).exits(0);
    assert!(fs::read_to_string(&change).unwrap().contains(&format!("vm: {}", guest.name)));
    // The move itself is judged on all of its facts.
    vmgate(&["check", "--change", &change]).exits(0);
}

/// Rules that block, each with its subject.
fn blocking(verdict: &serde_json::Value) -> Vec<String> {
    let outcomes = verdict["outcomes"].as_array().unwrap().iter();
    outcomes
        .filter(|o| o["effect_now"] == "block")
        .map(|o| format!("{} {}", o["rule"], o["subject"]))
        .collect()
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_waiver_with_a_name_on_it_is_the_way_past_a_rule() {
    let guest = Guest::start("waived", &["--on", "a", "--workload", "corosync token=100"]);
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    let today = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let text = format!(
        "schema: vmgate/waivers/v1
waivers:
  - rule: memory-sync-survives-blackout
    match: {{vm: waived}}
    owner: lab@example.org
    reason: The other members are stopped for the time of the change.
    ticket: LAB-1
    created: {today}
    expires: {today}
"
    );
    std::fs::write(file.path(), text).unwrap();
    let file = file.path().to_str().unwrap();
    vmgate(&words(&["check", guest.name, "--waivers", file], &a_to_b())).exits(0).says("lab@example.org");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_machine_type_that_the_other_host_lacks_is_refused_by_vmgate_and_by_libvirt() {
    let guest = Guest::start("too-new", &["--on", "b", "--machine", "pc-q35-10.0"]);
    let said = vmgate(&words(&["check", guest.name, "--output", "json"], &b_to_a())).exits(20);
    assert_eq!(statuses(&said.json(), "machine-type-supported"), ["fail"]);
    assert_eq!(
        statuses(&said.json(), "destination-hypervisor-not-older").first().map(String::as_str),
        Some("fail")
    );
    vmgate(&words(&["migrate", guest.name], &b_to_a())).exits(20).says("machine-type-supported");

    let libvirt = lab(&["host", "b", "virsh", "migrate", "--live", guest.name, "qemu+tcp://lab-a/system"]);
    assert_ne!(libvirt.code, 0);
    let text = format!("{}{}", libvirt.stdout, libvirt.stderr);
    assert!(
        text.contains("pc-q35-10.0") || text.contains("machine type"),
        "libvirt refused for another reason: {text}"
    );
    assert_eq!(guest.state_on("b"), "running");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_path_that_shares_the_guests_bridge_is_no_go() {
    let guest = Guest::start("shared", &["--on", "a"]);
    // The business address of host b: br0, which carries the guests and the default route.
    let from = crate::harness::uri_a();
    let to = uri_b();
    let said = vmgate(&[
        "check",
        guest.name,
        "--from",
        &from,
        "--to",
        &to,
        "--migrate-address",
        "10.77.2.2",
        "--output",
        "json",
    ])
    .exits(20);
    assert!(statuses(&said.json(), "migration-nic-dedicated").contains(&"fail".to_owned()));
}
