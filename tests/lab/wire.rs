//! Verdicts about guests that let nobody in, from their packets, and an agent that does not tell all.

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
};

use serde_json::Value;

use crate::harness::{Guest, a_to_b, in_operators_network, statuses, vmgate, words};

/// A server on the guests' network that echoes on every connection, until the test ends.
fn echo(port: u16) {
    let listener = in_operators_network(move || TcpListener::bind(("10.77.2.254", port)).unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    let _ = stream.write_all(&buffer[..count]);
                }
            });
        }
    });
}

fn by_its_packets(guest: &Guest, more: &[&str]) -> Value {
    let first = [&["check", guest.name, "--guest", "wire", "--output", "json"][..], more].concat();
    vmgate(&words(&first, &a_to_b())).json()
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_guest_that_lets_nobody_in_gets_a_verdict_from_its_packets() {
    echo(9100);
    let load = "tcp to=10.77.2.254:9100 every=200";
    let guest = Guest::start("wire-silent", &["--on", "a", "--agent", "none", "--workload", load]);
    let verdict = by_its_packets(&guest, &[]);
    assert_eq!(verdict["decision"]["answer"], "GO", "{verdict:#}");
    assert_eq!(statuses(&verdict, "tcp-retransmission-budget"), ["pass"]);
    for rule in
        ["memory-sync-survives-blackout", "sctp-paths-survive-blackout", "control-sessions-survive-silence"]
    {
        assert_eq!(statuses(&verdict, rule), ["not-applicable"], "{rule}");
    }
    // What packets do not show has one way out.
    let groups = verdict["unknown"].as_array().unwrap().iter();
    let causes: Vec<_> =
        groups.filter(|group| group["effect"] != "note").map(|group| &group["cause"]).collect();
    // The pair of versions is new to the lab, whatever the guest tells.
    assert_eq!(causes, ["not-on-the-wire", "not-rehearsed"]);
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_vrrp_router_without_an_agent_is_found_on_the_wire_with_its_own_time_out() {
    let software = "software keepalived advert=1 priority=100";
    let options = ["--on", "a", "--agent", "none", "--image", "software", "--workload", software];
    let guest = Guest::start("wire-vrrp", &options);
    let soon = by_its_packets(&guest, &[]);
    assert_eq!(statuses(&soon, "control-sessions-survive-silence"), ["pass"], "{soon:#}");
    // Three adverts and the skew: 3.6 s. Where the network takes five to follow, the backup takes over.
    let late = by_its_packets(&guest, &["--network-dark", "5", "--longest-blackout", "10"]);
    assert_eq!(statuses(&late, "control-sessions-survive-silence"), ["fail"]);
    assert_eq!(late["decision"]["answer"], "NO-GO");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_vrrp_router_in_its_file_and_on_the_wire_is_one_finding() {
    let software = "software keepalived advert=1 priority=100";
    let guest = Guest::start("wire-once", &["--on", "a", "--image", "software", "--workload", software]);
    let dark = ["--dirty-window", "6", "--network-dark", "5", "--longest-blackout", "10", "--output", "json"];
    let verdict = vmgate(&words(&[&["check", guest.name][..], &dark].concat(), &a_to_b())).json();
    assert_eq!(statuses(&verdict, "control-sessions-survive-silence"), ["not-applicable"], "{verdict:#}");
    assert_eq!(statuses(&verdict, "memory-sync-survives-blackout"), ["fail"]);
    let message = verdict["outcomes"].as_array().unwrap().iter();
    let message = message.filter(|one| one["rule"] == "memory-sync-survives-blackout");
    let message = message.map(|one| one["message"].as_str().unwrap().to_owned()).collect::<String>();
    for source in ["/etc/keepalived/keepalived.conf", "its packets 10.77.2.", "on the wire 3.000 s"] {
        assert!(message.contains(source), "{source}: {message}");
    }
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn an_agent_that_does_not_know_of_a_connection_is_found_out() {
    echo(9101);
    let load = "tcp to=10.77.2.254:9101 every=50";
    let guest = Guest::start("wire-stale", &["--on", "a", "--workload", load]);
    let verdict = |more: &[&str]| {
        let first = [&["check", guest.name, "--dirty-window", "4", "--output", "json"][..], more].concat();
        statuses(&vmgate(&words(&first, &a_to_b())).json(), "guest-tells-what-the-wire-shows")
    };
    assert_eq!(verdict(&[]), ["pass"], "the real agent tells all");

    let folder = tempfile::tempdir().unwrap();
    let stale = folder.path().join("guest.json");
    std::fs::write(&stale, r#"{"hostname": "x", "tcp": {"connections": [], "listeners": []}}"#).unwrap();
    let config = folder.path().join("vmgate.yaml");
    let exec =
        format!("schema: vmgate/config/v1\nguests: {{wire-stale: {{exec: [cat, {}]}}}}\n", stale.display());
    std::fs::write(&config, exec).unwrap();
    let config = config.display().to_string();
    assert_eq!(verdict(&["--config", &config, "--guest", "exec"]), ["fail"]);
}
