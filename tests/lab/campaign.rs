//! `vmgate run` on real migrations: runners share a change, and one that is lost is fenced off.

use std::{fmt::Write as _, fs, thread, time::Duration};

use tempfile::TempDir;

use crate::harness::{
    Guest, Running, SlowLink, completed_migrations, setting, uri_a, uri_b, vmgate, wait_for_the_copy,
};

/// A change that moves these guests from a to b.
fn change(folder: &TempDir, guests: &[&Guest]) -> String {
    let (from, to, address) = (uri_a(), uri_b(), setting("VMGATE_LAB_MIGRATE_B"));
    let mut text =
        String::from("schema: vmgate/change/v1\nid: LAB\ngoals: {longest_blackout_seconds: 2}\nmoves:\n");
    for guest in guests {
        let name = guest.name;
        writeln!(text, "  - {{vm: {name}, from: '{from}', to: '{to}', migrate_address: {address}}}").unwrap();
    }
    let file = folder.path().join("change.yaml");
    fs::write(&file, text).unwrap();
    file.display().to_string()
}

fn runs_on_b_alone(guest: &Guest) {
    assert_eq!(
        (guest.state_on("a").as_str(), guest.state_on("b").as_str()),
        ("", "running"),
        "{}",
        guest.name
    );
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn two_runners_share_a_change_and_each_move_is_made_once() {
    let guests = [Guest::start("shared-1", &["--on", "a"]), Guest::start("shared-2", &["--on", "a"])];
    let folder = tempfile::tempdir().unwrap();
    let file = change(&folder, &guests.each_ref());
    let runners = [(); 2].map(|()| Running::start(&["run", "--change", &file, "--timeout", "60"]));
    for runner in runners {
        runner.said().exits(0);
    }
    guests.iter().for_each(runs_on_b_alone);
    assert_eq!(completed_migrations(), 2);
    vmgate(&["status"]).exits(0).says("LAB: 2 of 2 moves done");
    // A late runner finds nothing to do.
    vmgate(&["run", "--change", &file]).exits(0);
    assert_eq!(completed_migrations(), 2);
    vmgate(&["ledger", "verify"]).exits(0);
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_runner_that_stands_still_is_fenced_off_and_its_move_is_made_once() {
    let guest = Guest::start("fenced", &["--on", "a"]);
    let folder = tempfile::tempdir().unwrap();
    let file = change(&folder, &[&guest]);
    let arguments = ["run", "--change", &file, "--timeout", "60", "--lease", "20", "--backoff", "1"];
    let slow = SlowLink::at("30mbit");
    let first = Running::start(&arguments);
    wait_for_the_copy(&guest);
    let pid = libc::pid_t::try_from(first.child.id()).unwrap();
    // SAFETY: kill(2) takes no pointers, and the child has not been waited for, so the pid is its own.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGSTOP) }, 0);
    let second = Running::start(&arguments);
    // Long enough for the second to hear nothing for the length of the lease.
    thread::sleep(Duration::from_secs(30));
    drop(slow);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGCONT) }, 0);
    let (first, second) = (first.said(), second.said());
    first.exits(31).says("other runners take them over");
    second.exits(0);
    runs_on_b_alone(&guest);
    assert_eq!(completed_migrations(), 1);
    vmgate(&["status"]).exits(0).says("LAB: 1 of 1 moves done");
    vmgate(&["recover"]).exits(0).says("nothing to recover");
    vmgate(&["ledger", "verify"]).exits(0);
}
