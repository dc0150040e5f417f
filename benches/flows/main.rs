//! Cost of a flow capture with its evidence from the wire: packets per second without loss, share of a core, slowdown of
//! the sender.
//!
//! `cargo bench --bench flows` as root. A generator sends over a veth pair in a network namespace made here. The
//! filters run in the sender's softirq, so their cost is not the watcher's processor time: it is the processor time
//! by which sending a packet gets more expensive, measured by sending as fast as possible with and without a watcher.
//! Bounded: some 3 minutes, at most 800,000 packets a second. `flows quick` takes a quarter of
//! that, `flows sender` measures the sender's cost alone, `flows wire` the cost at 100,000 packets a second of UDP and TCP.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::items_after_statements,
    reason = "a benchmark that cannot go on stops"
)]

mod generator;
mod watchers;

use std::{process::Command, time::Duration};

use generator::Generator;
use watchers::{Watcher, kernel_nanoseconds};

const RATES: [u32; 7] = [100_000, 200_000, 300_000, 400_000, 500_000, 600_000, 800_000];
const AIM: u32 = 500_000;
/// Rate at which the capture may take at most 2 % of a core.
const WIRE_RATE: u32 = 100_000;

fn main() {
    // SAFETY: no pointers. No other thread runs yet, so that the whole process moves.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        eprintln!("flows: skipped: needs root, to make a network namespace");
        return;
    }
    let quick = std::env::args().any(|word| word == "quick");
    let seconds = Duration::from_millis(if quick { 500 } else { 2000 });
    for words in [
        "link set lo up",
        "link add tap0 type veth peer name guest0",
        "link set tap0 up arp off",
        "link set guest0 up arp off",
    ] {
        let made = Command::new("ip").args(words.split(' ')).status().is_ok_and(|status| status.success());
        assert!(made, "ip {words}");
    }
    let generator = Generator::new("guest0");
    if std::env::args().any(|word| word == "wire") {
        return wire(quick, seconds);
    }
    let sender_only = std::env::args().any(|word| word == "sender");
    let bare = bare_cost(&generator, quick);
    println!("nobody watches: {bare:.0} ns of processor time to send a packet");
    println!("load of the machine: {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
    if sender_only {
        for watcher in [Watcher::Refusing, Watcher::Kernel, Watcher::Refusing, Watcher::Kernel] {
            let dearer = slowdown(watcher, &generator, quick);
            println!("{}: {dearer:+.0} ns a packet for the sender", watcher.title());
        }
        return;
    }
    println!();
    println!(
        "| watcher | most packets/s without loss | at {AIM}/s: sent/s | lost | watcher, share of a core | dearer for the sender, ns a packet | as share of a core at {AIM}/s |"
    );
    println!("|---|---|---|---|---|---|---|");
    for watcher in Watcher::COUNTING {
        if matches!(watcher, Watcher::Tcpdump) && Command::new("tcpdump").arg("--version").output().is_err() {
            println!("| tcpdump | not installed here | | | | | |");
            continue;
        }
        let mut most = 0;
        let mut limit = " (the sender's limit)";
        for rate in RATES {
            let run = watcher.run(&generator, rate, seconds);
            if run.lost() > 0 {
                limit = "";
                break;
            }
            if run.sent_per_second() < 0.95 * f64::from(rate) {
                break;
            }
            most = rate;
        }
        let at_aim = watcher.run(&generator, AIM, seconds * 2);
        let slower = slowdown(watcher, &generator, quick);
        println!(
            "| {} | {most}{limit} | {:.0} | {} ({:.1} %) | {:.1} % | {slower:+.0} | {:+.1} % |",
            watcher.title(),
            at_aim.sent_per_second(),
            at_aim.lost(),
            at_aim.lost_percent(),
            at_aim.watcher_percent(),
            slower * f64::from(AIM) / 1e7,
        );
    }
    println!();
    wire(quick, seconds);
    let socket = slowdown(Watcher::Refusing, &generator, quick);
    println!(
        "{}: {socket:+.0} ns a packet for the sender; every figure contains it",
        Watcher::Refusing.title()
    );
    match kernel_nanoseconds(&generator) {
        Some((nanoseconds, runs)) => println!(
            "the kernel's own account of the program (its clock included): {nanoseconds:.0} ns a packet, {runs} packets"
        ),
        None => println!("the kernel's own account of the program: not available"),
    }
}

/// Cost of vmgate's capture at [`WIRE_RATE`], half of it TCP: in its process, and in the sender's softirq.
fn wire(quick: bool, seconds: Duration) {
    let generator = Generator::mixed("guest0");
    let run = Watcher::Kernel.run(&generator, WIRE_RATE, seconds * 2);
    let slower = slowdown(Watcher::Kernel, &generator, quick) * f64::from(WIRE_RATE) / 1e7;
    println!(
        "vmgate at {:.0} packets/s of UDP and TCP: {:.2} % of a core in its process, {slower:+.2} % in the sender",
        run.sent_per_second(),
        run.watcher_percent(),
    );
}

/// Nanoseconds a packet, sent as fast as possible: the best of several short runs, as others use the machine too.
fn bare_cost(generator: &Generator, quick: bool) -> f64 {
    (0..rounds(quick)).map(|_| generator.burst(BURST)).fold(f64::INFINITY, f64::min)
}

const BURST: u32 = 30_000;

fn rounds(quick: bool) -> u32 {
    if quick { 8 } else { 24 }
}

/// With and without take turns, so that both meet the same neighbours; the best of each is compared.
fn slowdown(watcher: Watcher, generator: &Generator, quick: bool) -> f64 {
    let (mut with, mut without) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..rounds(quick) {
        without = without.min(generator.burst(BURST));
        with = with.min(watcher.burst(generator, BURST));
    }
    with - without
}
