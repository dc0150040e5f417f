//! Speed of several runners that share a change over one ledger, with hosts that do not exist.
//!
//! `cargo bench --bench campaign [MOVES [RUNNERS]]`: 1,000 hosts, 20 VMs each, 8 runners, each a process of its own. A move
//! takes no time, so the ledger is measured: claims per second, its size, the memory of a runner, and the time to verify the
//! whole chain. VMGATE_LEDGER=postgres://… measures that ledger instead of an SQLite file.
#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "a benchmark that cannot go on stops"
)]

use std::{
    env,
    fmt::Write as _,
    process::{Child, Command},
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use vmgate::serve::{Dashboard, metrics, page};
use vmgate_execute::campaign::{Mover, Runner, RunnerSettings, uptime_seconds};
use vmgate_judge::change::ChangeFile;
use vmgate_ledger::{Ledger, campaign::ClaimResult, entry::Driver};

const HOSTS: usize = 1000;

struct Nowhere;

impl Mover for Nowhere {
    fn make(&self, _: usize, _: &AtomicBool) -> ClaimResult {
        ClaimResult::Done
    }

    fn take_over(&self, _: usize) -> ClaimResult {
        ClaimResult::Done
    }

    fn wave_ready(&self, _: usize) -> Result<(), String> {
        Ok(())
    }
}

fn main() {
    let words: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if let ["runner", name, moves, place] = words.as_slice() {
        return run(name, &change(moves.parse().unwrap()), place);
    }
    let number = |at: usize, usual| words.get(at).map_or(usual, |word| word.parse().unwrap());
    let (moves, runners): (usize, usize) = (number(0, 20 * HOSTS), number(1, 8));
    let folder = tempfile::tempdir().unwrap();
    let place =
        env::var("VMGATE_LEDGER").unwrap_or_else(|_| folder.path().join("ledger.db").display().to_string());

    let start = Instant::now();
    let children: Vec<Child> = (0..runners)
        .map(|at| {
            let runner = ["runner", &format!("runner-{at}"), &moves.to_string(), &place].map(str::to_owned);
            Command::new(env::current_exe().unwrap()).args(runner).spawn().unwrap()
        })
        .collect();
    let peaks: Vec<i64> = children.into_iter().map(peak_kilobytes).collect();
    let seconds = start.elapsed().as_secs_f64();

    let ledger = Ledger::open(&place).unwrap();
    let (head, verifying) = timed(|| ledger.verify().unwrap());
    let mut board = Dashboard::new(&change(moves).digest.to_string());
    let ((), reading) = timed(|| board.read(&ledger.records(&board.unread()).unwrap(), uptime_seconds()));
    assert_eq!(board.state.counts(None).done, moves, "every move is made");
    let attempts: u32 = board.state.tasks.iter().map(|task| task.attempts).sum();
    assert_eq!(attempts as usize, moves, "none is made twice");
    let (shown, showing) =
        timed(|| page(&board, jiff::Timestamp::now()).unwrap().len() + metrics(&board).len());

    println!("{moves} moves of {HOSTS} hosts, {runners} runners, {seconds:.1} s");
    println!("claims a second              {:>10.0}", moves as f64 / seconds);
    println!("records                      {:>10}", head.sequence);
    if let Ok(file) = std::fs::metadata(&place) {
        println!("size of the ledger           {:>10.1} MB", file.len() as f64 / 1e6);
    }
    println!("memory of a runner, at most  {:>10.1} MB", *peaks.iter().max().unwrap() as f64 / 1e3);
    println!("the whole chain verified in  {:>10.2} s", verifying.as_secs_f64());
    println!("read for a page in           {:>10.2} s", reading.as_secs_f64());
    println!("page and metrics written in  {:>10.3} s ({shown} bytes)", showing.as_secs_f64());
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let done = work();
    (done, start.elapsed())
}

/// Every host is emptied into the next one.
fn change(moves: usize) -> ChangeFile {
    let mut text = "schema: vmgate/change/v1\nid: CHG-SCALE\nmoves:\n".to_owned();
    for at in 0..moves {
        let (from, to) = (at % HOSTS, (at + 1) % HOSTS);
        let _ = writeln!(
            text,
            "  - {{vm: vm{at}, from: 'qemu+ssh://hv{from}/system', to: 'qemu+ssh://hv{to}/system', expected_seconds: 30}}"
        );
    }
    ChangeFile::parse("scale.yaml", text.as_bytes()).unwrap()
}

fn run(name: &str, change: &ChangeFile, place: &str) {
    let ledger = Ledger::open(place).unwrap().for_runner(name);
    let settings = RunnerSettings {
        jobs: 16,
        attempts: 3,
        lease_seconds: 60.0,
        backoff_seconds: 30.0,
        look: Duration::from_millis(20),
    };
    let runner = Runner {
        ledger: &ledger,
        change,
        mover: &Nowhere,
        name: name.to_owned(),
        driver: Driver {
            machine: "bench".into(),
            boot: "b".into(),
            pid: std::process::id(),
            started_ticks: 0,
        },
        settings,
        drain: Arc::default(),
        stop: Arc::default(),
        on_progress: &|_| {},
    };
    runner.run().unwrap();
}

/// Waits for a child, which must succeed, and returns its peak memory.
#[allow(clippy::needless_pass_by_value)] // it is gone afterwards
fn peak_kilobytes(child: Child) -> i64 {
    let pid = libc::pid_t::try_from(child.id()).unwrap();
    let mut status = 0;
    // SAFETY: rusage is plain numbers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live variables, and the child is waited for only here.
    unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    assert_eq!(status, 0, "a runner failed");
    usage.ru_maxrss
}
