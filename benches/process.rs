//! vmgate as a whole process: start-up, a check from a facts file, and a check of a real guest in the lab.
//!
//! `make bench` runs it; without the lab the last part is left out, with a message.

#![allow(clippy::expect_used, clippy::cast_precision_loss, clippy::zombie_processes)] // wait4 below waits

use std::{
    env,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const FACTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/fixtures/idle-vm.yaml");
const BINARY: &str = env!("CARGO_BIN_EXE_vmgate");

fn main() {
    println!("{:<44} {:>9} {:>9} {:>9} {:>9}", "whole process", "min ms", "median", "max", "peak MB");
    measure("start-up (vmgate --version)", 30, &[BINARY, "--version"]);
    measure("load and list the rule pack", 30, &[BINARY, "rules", "list"]);
    measure("check a facts file", 30, &[BINARY, "check", "--facts", FACTS]);

    let settings =
        ["VMGATE_LAB_NETNS", "VMGATE_LAB_URI_A", "VMGATE_LAB_URI_B", "VMGATE_LAB_MIGRATE_B", "VMGATE_LAB"];
    let found: Option<Vec<String>> = settings.iter().map(|name| env::var(name).ok()).collect();
    let Some([netns, from, to, address, lab]) = found.as_deref() else {
        println!("the check of a real guest was left out: the lab is not up (make bench brings it up)");
        return;
    };
    let in_lab = |arguments: &[&str]| {
        Command::new(lab).args(arguments).stdout(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    in_lab(&["guest", "stop", "bench"]);
    assert!(in_lab(&["guest", "start", "bench", "--on", "a"]), "the lab could not start a guest");
    let check = [
        "ip",
        "netns",
        "exec",
        netns,
        BINARY,
        "check",
        "bench",
        "--from",
        from,
        "--to",
        to,
        "--migrate-address",
        address,
        "--dirty-window",
        "1",
        "--output",
        "json",
    ];
    measure("check a guest (1 s of it the dirty window)", 10, &check);
    in_lab(&["guest", "stop", "bench"]);
}

/// Runs a command several times after a warm-up and prints wall time and peak memory.
fn measure(what: &str, runs: usize, command: &[&str]) {
    run(command);
    let mut seen: Vec<(Duration, u64)> = (0..runs).map(|_| run(command)).collect();
    seen.sort_unstable();
    let wall = |at: usize| seen.get(at).map_or(0.0, |(wall, _)| wall.as_secs_f64() * 1000.0);
    let peak = seen.iter().map(|(_, kilobytes)| *kilobytes).max().unwrap_or(0);
    println!(
        "{what:<44} {:>9.1} {:>9.1} {:>9.1} {:>9.1}",
        wall(0),
        wall(runs / 2),
        wall(runs - 1),
        peak as f64 / 1000.0
    );
}

/// Wall time and peak memory (KiB, of the largest process) of one run.
fn run(command: &[&str]) -> (Duration, u64) {
    let (program, arguments) = command.split_first().expect("a command");
    let start = Instant::now();
    let child = Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the command starts");
    let mut status = 0;
    // SAFETY: rusage is plain numbers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let pid = libc::pid_t::try_from(child.id()).expect("a pid");
    // SAFETY: both pointers are to live variables, and the child is waited for only here.
    unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    (start.elapsed(), u64::try_from(usage.ru_maxrss).unwrap_or(0))
}
