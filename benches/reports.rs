//! Reports of 10,000 moves: time to write and peak memory of the process, each format in a process of its own.
//!
//! The aim is 2 s and 200 MB per format, for moves with as many outcomes as the sample in `reports/samples/`. The second table is
//! for moves on which the whole built-in pack was evaluated: those reports are hundreds of megabytes long.

#![allow(clippy::expect_used, clippy::cast_precision_loss, clippy::zombie_processes)] // wait4 below waits

use std::{
    env, fs,
    io::{BufWriter, Read as _},
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use vmgate::report::{self, Format, Style};
use vmgate_judge::{Policy, VerdictRequest};
use vmgate_rules::{ParamOverrides, RuleSource};
use vmgate_verdict::Verdict;

const MOVES: usize = 10_000;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [child, moves, format] = arguments.as_slice()
        && child == "child"
    {
        return write(moves, format.parse().expect("a format"));
    }
    for (moves, what) in [("sample", "moves like the sample"), ("pack", "moves under the whole pack")] {
        let outcomes = one(moves).outcomes.len();
        println!(
            "{:<32} {:>9} {:>9} {:>9}",
            format!("{MOVES} {what} ({outcomes})"),
            "s",
            "MB out",
            "peak MB"
        );
        for format in Format::ALL {
            let (seconds, megabytes, peak) = measure(moves, format);
            println!("{:<32} {seconds:>9.2} {megabytes:>9.1} {peak:>9.1}", format.name());
        }
    }
}

fn one(moves: &str) -> Verdict {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if moves == "sample" {
        let bytes = fs::read(root.join("reports/samples/json.json")).expect("the sample");
        return vmgate_verdict::read("json.json", &bytes).expect("a verdict").remove(0);
    }
    let policy =
        Policy::load(&[RuleSource::Builtin], None, &ParamOverrides::new()).expect("the shipped rules");
    let facts = vmgate_documents::facts_file::read(&root.join("rules/fixtures/idle-vm.yaml")).expect("facts");
    policy.judge(facts, "2026-11-23T01:05:00Z".parse().expect("a time"), &VerdictRequest::default())
}

/// The child process: writes the report to a file, and the seconds and bytes to stdout.
fn write(moves: &str, format: Format) {
    let sample = one(moves);
    let verdicts: Vec<Verdict> = (0..MOVES)
        .map(|number| {
            let mut verdict = sample.clone();
            verdict.moved.vm.name = Some(format!("vm{number}"));
            verdict.moved.vm.uuid = format!("5e7c9b3e-6a0e-4c2e-9a53-{number:012}").parse().ok();
            verdict
        })
        .collect();
    let file = tempfile::tempfile().expect("a file");
    let start = Instant::now();
    report::write(format, &verdicts, &mut BufWriter::new(&file), &Style::default()).expect("a report");
    let seconds = start.elapsed().as_secs_f64();
    println!("{seconds} {}", file.metadata().expect("a length").len());
}

/// Seconds, megabytes written, and peak megabytes of the process, the verdicts included.
fn measure(moves: &str, format: Format) -> (f64, f64, f64) {
    let mut child = Command::new(env::current_exe().expect("this program"))
        .args(["child", moves, format.name()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let mut said = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut said).expect("its answer");
    let mut status = 0;
    // SAFETY: rusage is plain numbers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let pid = libc::pid_t::try_from(child.id()).expect("a pid");
    // SAFETY: both pointers are to live variables, and the child is waited for only here.
    unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    assert_eq!(status, 0, "{format} failed");
    let mut numbers = said.split_whitespace().map(|number| number.parse::<f64>().expect("a number"));
    let mut next = || numbers.next().expect("two numbers");
    (next(), next() / 1e6, usage.ru_maxrss as f64 / 1000.0)
}
