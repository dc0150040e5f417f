//! The oracle: domain configurations that `vmgate check` judges and libvirt and QEMU then really move, or refuse. It compares the two
//! answers and writes docs/acceptance.md. `make acceptance` runs it.
//!
//! Results are kept in results.jsonl, one line a case (a configuration in a direction); a run goes on with the cases that have none.
//! `VMGATE_ACCEPTANCE` chooses: `again` drops the results in which the two disagree or vmgate could not tell and makes those cases
//! anew, `page` only writes the page, another word makes the cases anew whose topic or id contains it.
//! `VMGATE_ACCEPTANCE_MINUTES` ends a run early.

mod batch;
mod configuration;
mod page;
mod results;
mod stage;

use std::{
    collections::{BTreeSet, VecDeque},
    env, fs,
    path::PathBuf,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use configuration::{Configuration, configurations};
use results::Results;
use stage::Stage;

use crate::harness::lab;

/// A move of one configuration from a host to another.
struct Case {
    number: usize,
    configuration: Configuration,
    from: char,
    to: char,
}

/// Directions, in the order in which they are filled.
const DIRECTIONS: [(char, char); 5] = [('a', 'b'), ('b', 'a'), ('b', 'd'), ('d', 'b'), ('a', 'd')];
/// Cases that are judged in one call of vmgate, and so many calls at once: what takes long is waiting.
const BATCH: usize = 10;
const WORKERS: usize = 6;
/// Step through the configurations, a prime number: neighbours, which are alike, are not run one after the other.
const STEP: usize = 7919;

/// Every configuration in one direction, then every one in its next direction, and so on: a run that is ended early has seen much.
fn plan() -> Vec<Case> {
    let all = configurations();
    let mut cases = Vec::new();
    for round in 0..DIRECTIONS.len() {
        for index in (0..all.len()).map(|at| at * STEP % all.len()) {
            let configuration = &all[index];
            let (from, to) = DIRECTIONS[(index + round) % DIRECTIONS.len()];
            cases.push(Case { number: cases.len() + 1, configuration: configuration.clone(), from, to });
        }
    }
    cases
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/lab/acceptance")
}

/// Cases in batches of one direction each.
fn batches(cases: Vec<Case>) -> VecDeque<Vec<Case>> {
    let mut batches = VecDeque::new();
    let mut open: Vec<Vec<Case>> = Vec::new();
    for case in cases {
        let same = |batch: &Vec<Case>| batch[0].from == case.from && batch[0].to == case.to;
        let at = open.iter().position(same).unwrap_or_else(|| {
            open.push(Vec::new());
            open.len() - 1
        });
        open[at].push(case);
        if open[at].len() == BATCH {
            batches.push_back(open.remove(at));
        }
    }
    batches.extend(open);
    batches
}

#[test]
#[ignore = "an hour in the lab: make acceptance"]
fn libvirt_takes_what_vmgate_calls_go() {
    let word = env::var("VMGATE_ACCEPTANCE").unwrap_or_default();
    let minutes = env::var("VMGATE_ACCEPTANCE_MINUTES").ok().and_then(|text| text.parse().ok());
    let mut results = Results::read(folder().join("results.jsonl"));
    if word != "page" {
        let wanted = |topic: &str, id: &str| topic.contains(&word) || id.contains(&word);
        results.retain(|result| match word.as_str() {
            "" => true,
            "again" => !result.disagrees(),
            _ => !wanted(&result.topic, &result.id),
        });
        let done: BTreeSet<_> = results.lines.iter().map(results::Line::key).collect();
        let mut cases = plan();
        cases.retain(|case| {
            let key = (case.configuration.id.clone(), case.from, case.to);
            let named = word.is_empty() || word == "again" || wanted(&case.configuration.topic, &key.0);
            named && !done.contains(&key)
        });
        if word == "again" {
            let known: BTreeSet<_> = results.dropped.iter().cloned().collect();
            cases.retain(|case| known.contains(&(case.configuration.id.clone(), case.from, case.to)));
        }
        results = run(batches(cases), results, minutes.map(|minutes: u64| Duration::from_secs(minutes * 60)));
    }
    let page = page::page(&results.lines, plan().len());
    fs::write(folder().ancestors().nth(3).unwrap().join("docs/acceptance.md"), page).unwrap();
    let wrong = |line: &&results::Line| line.go_and_refused() || line.without_a_twins_warning();
    let refused: Vec<String> = results.lines.iter().filter(wrong).map(page::name).collect();
    assert!(refused.is_empty(), "refused without a warning:\n{}", refused.join("\n"));
}

fn run(batches: VecDeque<Vec<Case>>, results: Results, limit: Option<Duration>) -> Results {
    let begin = Instant::now();
    if batches.is_empty() {
        return results;
    }
    lab(&["up", "a", "b", "d"]).exits(0);
    let _stage = Stage::set();
    let (queue, results) = (Mutex::new(batches), Mutex::new(results));
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    if limit.is_some_and(|limit| begin.elapsed() > limit) {
                        return;
                    }
                    let Some(cases) = queue.lock().unwrap().pop_front() else { return };
                    let lines = batch::run(&cases);
                    results.lock().unwrap().add(lines);
                    println!(
                        "{:.0} s, {} batches left",
                        begin.elapsed().as_secs_f64(),
                        queue.lock().unwrap().len()
                    );
                }
            });
        }
    });
    results.into_inner().unwrap()
}
