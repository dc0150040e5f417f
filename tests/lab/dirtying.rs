//! Dirty rates of guests, measured from their host: the sampler on real QEMUs, and QEMU's own measurements where the sampler
//! cannot be used.

use std::{thread, time::Duration};

use vmgate_facts::{
    DirtyRateMethod, Fact, ForecastMethod,
    trace::{DirtyTrace, TraceEnd},
};
use vmgate_probe::wire::{Question, read_answer};

use crate::harness::{Guest, a_to_b, collected, lab, on_host, uri_a, uri_b, vmgate, words};

const MIB: u64 = 1 << 20;

/// Trace of a guest, taken by the on-host program on its host.
fn traced(vm: &str, on: &str, seconds: u32) -> DirtyTrace {
    let question = Question::Trace {
        vm: vm.to_owned(),
        length_seconds: Duration::from_secs(seconds.into()),
        core_ratio: 0.05,
    };
    let said = on_host(on, &probe_on(on), &question.to_json()).exits(0);
    match read_answer::<Fact<DirtyTrace>>(said.stdout.as_bytes()).unwrap() {
        Fact::Known(trace) => trace,
        Fact::Unknown(why) => panic!("{why:?}"),
    }
}

/// Path of the on-host program on a host: in the lab's state folder, which is mounted on each host.
fn probe_on(host: &str) -> String {
    let state = std::env::var("VMGATE_LAB_STATE").unwrap();
    let built = concat!(env!("CARGO_MANIFEST_DIR"), "/target/debug/vmgate-probe");
    let place = format!("{state}/guests/vmgate-probe");
    std::fs::copy(built, &place).unwrap_or_else(|error| panic!("{built}: {error}; run make probe"));
    lab(&["host", host, "test", "-x", "/lab/guests/vmgate-probe"]).exits(0);
    "/lab/guests/vmgate-probe".to_owned()
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn the_trace_of_a_guest_is_of_its_ram_alone_on_either_qemu() {
    for on in ["a", "b"] {
        let vm =
            Guest::start("dirty-ram", &["--on", on, "--workload", "dirty size=64 rate=20 pattern=random"]);
        let trace = traced(vm.name, on, 4);
        assert_eq!((trace.check(), trace.ended), (Ok(()), TraceEnd::Complete));
        assert_eq!(trace.ram_bytes, 256 * MIB, "no ROM, no video memory, no heap");
        assert!(trace.cost.core_ratio < 0.08, "{:?}", trace.cost);
        // 64 MiB, written at random: all of them in the end, and none twice as fast as told.
        let rate = trace.dirty_rate();
        assert!((2 * MIB..40 * MIB).contains(&rate.rate_bytes_per_second), "{rate:?}");
    }
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn ram_is_recognised_whatever_holds_it() {
    let huge =
        std::fs::read_to_string("/proc/sys/vm/nr_hugepages").unwrap().trim().parse::<u32>().unwrap() >= 128;
    for backing in ["memfd", "hugepages"].into_iter().filter(|backing| huge || *backing != "hugepages") {
        for on in ["a", "b"] {
            let workload = "dirty size=16 rate=8 pattern=random";
            let vm = Guest::start("dirty-held", &["--on", on, "--backing", backing, "--workload", workload]);
            let trace = traced(vm.name, on, 2);
            assert_eq!((trace.check(), trace.ram_bytes), (Ok(()), 256 * MIB), "{backing} on {on}");
            assert!(trace.changes.ones() > 0, "{backing} on {on}: this guest writes");
        }
    }
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn what_is_traced_becomes_the_forecast() {
    let vm = Guest::start("dirty-fc", &["--on", "a", "--workload", "dirty size=32 rate=5 pattern=random"]);
    let facts = collected(vm.name, &a_to_b());
    let seen = facts.vm.known().unwrap();
    assert_eq!(seen.dirty_rate.known().unwrap().method, DirtyRateMethod::Trace);
    let trace = seen.dirty_trace.known().unwrap();
    let from = facts.provenance_of("vm.dirty_trace").unwrap();
    assert_eq!((from.collector.as_str(), from.window_seconds), ("host probe", Some(trace.seconds())));
    let said = vmgate(&words(&["check", vm.name, "--output", "json"], &a_to_b())).json();
    assert_eq!(said["forecast"]["method"], "replay", "{said:#}");
    let limit = said["forecast"]["downtime_limit_seconds"].as_f64().unwrap();
    let blackout = said["forecast"]["blackout_seconds"]["p95"].as_f64().unwrap();
    assert!(limit <= 0.3 && blackout <= 0.3, "with a limit of {limit} s a blackout of {blackout} s");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn without_a_trace_qemu_samples_pages_and_is_asked_nothing_else() {
    // Under emulation any other mode answers 0, or kills the guest.
    for (on, from, to) in [("a", uri_a(), uri_b()), ("b", uri_b(), uri_a())] {
        let vm = Guest::start("dirty-tcg", &["--on", on]);
        let the_move = ["--from".to_owned(), from, "--to".to_owned(), to];
        let calculated = || lab(&["host", on, "virsh", "-q", "domstats", "--dirtyrate", vm.name]).stdout;
        let facts = collected(vm.name, &the_move);
        assert!(facts.vm.known().unwrap().dirty_trace.known().is_some());
        assert!(
            !calculated().contains("calc_mode=page") || calculated().contains("calc_status=0"),
            "{}",
            calculated()
        );

        let sampled: Vec<String> = the_move.iter().cloned().chain(["--trace-seconds=0".to_owned()]).collect();
        let facts = collected(vm.name, &sampled);
        let seen = facts.vm.known().unwrap();
        assert_eq!(seen.dirty_rate.known().unwrap().method, DirtyRateMethod::PageSampling);
        assert_eq!(seen.dirty_windows.known().unwrap().len(), 2);
        let told = calculated();
        assert!(told.contains("page-sampling") && !told.contains("dirty-bitmap"), "{told}");
        assert_eq!(vm.state_on(on), "running");
        let (_, forecast) =
            vmgate_forecast::derive(facts, &vmgate_rules::catalogue::Catalogues::shipped().unwrap());
        assert_eq!(forecast.method, Fact::Known(ForecastMethod::ReplayOfWindows));
    }
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_trace_ends_by_itself_when_a_migration_begins() {
    let vm = Guest::start("dirty-job", &["--on", "a"]);
    let tracing = thread::spawn(move || traced("dirty-job", "a", 30));
    thread::sleep(Duration::from_secs(3));
    lab(&[
        "host",
        "a",
        "virsh",
        "-q",
        "migrate",
        "--live",
        "--persistent",
        vm.name,
        "qemu+tcp://lab-b/system",
    ])
    .exits(0);
    let trace = tracing.join().unwrap();
    assert_ne!(trace.ended, TraceEnd::Complete);
    assert!(trace.seconds() < 29.0, "{}", trace.seconds());
}
