//! Obstacles to evidence: each gives a clear message and the right exit code, and nothing hangs.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::harness::{Guest, a_to_b, lab, start_vmgate, statuses, uri_a, uri_b, vmgate, words};

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_guest_without_an_agent_lacks_evidence_and_the_rest_is_checked() {
    let guest = Guest::start("no-agent", &["--on", "a", "--agent", "none"]);
    vmgate(&words(&["check", guest.name], &a_to_b())).exits(21).says("qemu-guest-agent");
    let said = vmgate(&words(&["check", guest.name, "--output", "json"], &a_to_b())).exits(21);
    assert_eq!(statuses(&said.json(), "destination-memory-fits"), ["pass"]);
    assert_eq!(statuses(&said.json(), "memory-sync-survives-blackout"), ["unknown"]);
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn an_agent_that_hangs_costs_its_time_limit_and_no_more() {
    let guest = Guest::start("hanging", &["--on", "a", "--agent", "hang"]);
    let start = Instant::now();
    vmgate(&words(&["check", guest.name, "--timeout", "3"], &a_to_b())).exits(21).says("agent");
    assert!(start.elapsed() < Duration::from_secs(20), "took {:?}", start.elapsed());
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn an_agent_that_forbids_files_says_what_to_allow() {
    let guest = Guest::start("no-files", &["--on", "a", "--agent", "nofile"]);
    vmgate(&words(&["check", guest.name], &a_to_b())).exits(21).says("guest-file-open");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_paused_or_shut_off_guest_is_no_go() {
    let guest = Guest::start("halted", &["--on", "a"]);
    lab(&["host", "a", "virsh", "-q", "suspend", guest.name]).exits(0);
    vmgate(&words(&["check", guest.name], &a_to_b())).exits(20).says("vm-is-running").says("paused");
    vmgate(&words(&["migrate", guest.name], &a_to_b())).exits(20);
    lab(&["host", "a", "virsh", "-q", "destroy", guest.name]).exits(0);
    vmgate(&words(&["check", guest.name], &a_to_b())).exits(20).says("vm-is-running").says("shut-off");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn an_unknown_vm_is_named_and_its_neighbours_are_offered() {
    let guest = Guest::start("web-one", &["--on", "a"]);
    vmgate(&words(&["check", "web-on"], &a_to_b())).exits(2).says("web-on").says(guest.name);
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn the_wrong_host_says_that_the_vm_is_not_there() {
    let guest = Guest::start("elsewhere", &["--on", "a"]);
    vmgate(&["check", guest.name, "--from", &uri_b(), "--to", &uri_a()])
        .exits(2)
        .says("elsewhere")
        .says("lab-b");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn the_same_host_twice_is_a_mistake() {
    vmgate(&["check", "any", "--from", &uri_a(), "--to", &uri_a()]).exits(2).says("same host");
    // Another way to the same host: only its UUID tells.
    let other = uri_a().replace("lab-a", "10.77.3.1");
    let guest = Guest::start("twice", &["--on", "a"]);
    vmgate(&["check", guest.name, "--from", &uri_a(), "--to", &other]).exits(2).says("same host");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn an_unreachable_source_is_an_error_an_unreachable_destination_is_missing_evidence() {
    let nowhere = "qemu+tcp://10.77.3.77/system";
    let guest = Guest::start("reachable", &["--on", "a"]);
    let start = Instant::now();
    vmgate(&["check", guest.name, "--from", nowhere, "--to", &uri_b(), "--timeout", "3"])
        .exits(1)
        .says("10.77.3.77");
    vmgate(&["check", guest.name, "--from", &uri_a(), "--to", nowhere, "--timeout", "3"])
        .exits(21)
        .says("10.77.3.77");
    assert!(start.elapsed() < Duration::from_secs(40), "took {:?}", start.elapsed());
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_user_without_permission_is_told_so() {
    let stranger = uri_a().replace("root@", "nobody@");
    vmgate(&["check", "any", "--from", &stranger, "--to", &uri_b()]).exits(1).says("Permission denied");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn hosts_that_go_silent_in_mid_check_do_not_hang_it() {
    let guest = Guest::start("silenced", &["--on", "a"]);
    let quick = ["check", guest.name, "--timeout", "3", "--trace-seconds", "0", "--dirty-window", "10"];
    let vmgate = start_vmgate(&words(&quick, &a_to_b()));
    wait_for_page_sampling(&guest);
    let _silence = Silence::over(&["a", "b"]);
    let start = Instant::now();
    let said = vmgate.said();
    assert!(start.elapsed() < Duration::from_secs(30), "took {:?}", start.elapsed());
    said.exits(21);
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn an_output_that_cannot_be_written_is_said_before_anything_is_done() {
    let guest = Guest::start("unwritten", &["--on", "a"]);
    let missing = "json=/nonexistent/folder/report.json";
    vmgate(&words(&["migrate", guest.name, "--output", missing], &a_to_b()))
        .exits(1)
        .says("/nonexistent/folder");
    assert_eq!((guest.state_on("a").as_str(), guest.state_on("b").as_str()), ("running", ""));
}

/// Waits until QEMU samples the pages of a guest on host `a`.
fn wait_for_page_sampling(guest: &Guest) {
    const MEASURING: &str = "dirtyrate.calc_status=1";
    for _ in 0..600 {
        let statistics = lab(&["host", "a", "virsh", "domstats", "--dirtyrate", guest.name]).stdout;
        if statistics.contains(MEASURING) {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("nobody asked for the dirty rate of {}", guest.name);
}

/// Takes the management link of hosts down until it is dropped: no request of vmgate is answered.
struct Silence(Vec<&'static str>);

impl Silence {
    fn over(hosts: &[&'static str]) -> Self {
        for host in hosts {
            lab(&["host", host, "ip", "link", "set", "mgmt0", "down"]).exits(0);
        }
        Self(hosts.to_vec())
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        for host in &self.0 {
            lab(&["host", host, "ip", "link", "set", "mgmt0", "up"]);
        }
    }
}
