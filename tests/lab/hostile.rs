//! Guests with a malicious agent (tests/lab/guest/agent.rs): its only effect is missing evidence.

use std::time::{Duration, Instant};

use vmgate_facts::Fact;

use crate::harness::{Guest, a_to_b, collected, statuses, vmgate, words};

/// Memory limit of vmgate for any of these agents: far below the gigabyte that one of them sends.
const MOST_KIB: i64 = 400 << 10;

fn a_hostile_agent_is_borne(manner: &str, name: &'static str) {
    let guest = Guest::start(name, &["--on", "a", "--agent", manner]);
    let start = Instant::now();
    let said = vmgate(&words(&["check", guest.name, "--timeout", "5"], &a_to_b()));
    assert!(start.elapsed() < Duration::from_secs(40), "{manner}: {:?}", start.elapsed());
    let text = format!("{}{}", said.stdout, said.stderr);
    let obeyed =
        |c: char| c.is_control() && !matches!(c, '\n' | '\t') || matches!(c, '\u{202a}'..='\u{202e}');
    assert!(!text.contains(obeyed), "{manner}: {text:?}");
    said.exits(21);

    let said =
        vmgate(&words(&["check", guest.name, "--timeout", "5", "--output", "json"], &a_to_b())).exits(21);
    assert_eq!(statuses(&said.json(), "memory-sync-survives-blackout"), ["unknown"], "{manner}");
    assert_eq!(
        statuses(&said.json(), "destination-memory-fits"),
        ["pass"],
        "{manner}: the hosts are judged all the same"
    );

    let mut options = a_to_b();
    options.extend(["--timeout".to_owned(), "5".to_owned()]);
    let facts = collected(guest.name, &options);
    let found = facts.guest.known().unwrap();
    assert!(found.processes.known().is_none(), "{manner}: {:?}", found.processes);
    assert!(found.udp.known().unwrap().flows.known().is_some(), "{manner}: the host sees its flows");
    if let Fact::Known(name) = &found.hostname {
        panic!("{manner}: nobody asked it for its name, and it said {name}");
    }
    // libvirt still works, too.
    assert_eq!(guest.state_on("a"), "running");
    assert!(most_memory_kib() < MOST_KIB, "{manner}: {} KiB", most_memory_kib());
}

/// Peak memory of any process of these tests, in KiB.
fn most_memory_kib() -> i64 {
    // SAFETY: all zeroes is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the value is a rusage, and lives through the call.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) }, 0);
    usage.ru_maxrss
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn an_agent_that_sends_garbage_is_borne() {
    a_hostile_agent_is_borne("garbage", "evil-garbage");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn an_agent_that_sends_a_gigabyte_is_borne() {
    a_hostile_agent_is_borne("flood", "evil-flood");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn an_agent_that_never_answers_is_borne() {
    a_hostile_agent_is_borne("mute", "evil-mute");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn an_agent_that_answers_late_is_borne() {
    a_hostile_agent_is_borne("late", "evil-late");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn an_agent_that_answers_another_question_is_borne() {
    a_hostile_agent_is_borne("other", "evil-other");
}
