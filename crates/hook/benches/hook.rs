//! Decisions of a destination's hook while ten thousand verdicts wait and fifty migrations begin at once.
//!
//! `make bench` runs it; `cargo bench -p vmgate-hook --bench hook -- [WAITING [MIGRATIONS]]` sets other numbers. Every migration is decided
//! within a second and leaves one line in the log, or the benchmark fails.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    missing_docs,
    reason = "a benchmark that cannot go on stops; it uses a part of the tests' host"
)]

#[path = "../../../tests/authority/destination.rs"]
mod destination;

use std::{
    env,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use destination::{Destination, SITE, begin, go, signed, vm};

const WAITING: usize = 10_000;
const MIGRATIONS: usize = 50;
const LIMIT: Duration = Duration::from_secs(1);

fn main() {
    // cargo adds --bench.
    let numbers: Vec<usize> = env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let waiting = numbers.first().copied().unwrap_or(WAITING);
    let migrations = numbers.get(1).copied().unwrap_or(MIGRATIONS).min(waiting);
    let host = Destination::new();
    let begun = Instant::now();
    for number in 0..waiting {
        host.place(number, "0", &signed(&go(number), SITE));
    }
    println!("{waiting} verdicts signed and placed in {:.1} s", begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    host.push(&go(waiting), SITE).unwrap();
    println!("one more received in {:.0} ms", begun.elapsed().as_secs_f64() * 1000.0);

    // Every other VM has a verdict.
    let start = Barrier::new(migrations);
    let mut took: Vec<Duration> = thread::scope(|scope| {
        let threads: Vec<_> = (0..migrations)
            .map(|number| {
                let (start, layout) = (&start, &host.layout);
                let wanted = number % 2 == 0;
                let number = if wanted { number } else { waiting + 1 + number };
                scope.spawn(move || {
                    start.wait();
                    let begun = Instant::now();
                    let answer = begin(layout, &format!("web{number}"), &vm(number));
                    assert_eq!(answer.let_in, wanted, "{answer:?}");
                    begun.elapsed()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    took.sort();
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    let (median, slowest) = (took[migrations / 2], took[migrations - 1]);
    println!(
        "{migrations} migrations at once: median {:.0} ms, slowest {:.0} ms",
        milliseconds(median),
        milliseconds(slowest)
    );
    assert_eq!(host.decisions().len(), migrations, "one line for each decision");
    assert!(slowest < LIMIT, "a decision took more than {LIMIT:?}");
}
