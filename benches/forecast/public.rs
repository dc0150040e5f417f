//! The public KVM set, from its polls of query-migrate to a table of scores.
//!
//! `KVM_PUBLIC_DERIVED=FILE` also writes what was derived: the fixture of the test.

use std::{env, fs, io::Read as _, path::Path};

use flate2::read::GzDecoder;
use serde::Deserialize;

use crate::{
    Outcome,
    public_set::{DOWNTIME_LIMIT_SECONDS, Foretold, PostCopy, Round, Run, foretell, middle},
};

/// A line of the set.
#[derive(Deserialize)]
struct Line {
    case: String,
    run: u32,
    qemu_rss_before_bytes: Option<u64>,
    polls: Vec<Poll>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Poll {
    status: Option<String>,
    total_time: Option<f64>,
    downtime: Option<f64>,
    expected_downtime: Option<f64>,
    cpu_throttle_percentage: Option<f64>,
    ram: Option<Ram>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
struct Ram {
    total: u64,
    remaining: f64,
    transferred: f64,
    normal: f64,
    duplicate: f64,
    dirty_sync_count: f64,
    postcopy_bytes: f64,
}

const PAGE: f64 = 4096.0;
/// Pages that a window of 100 ms sends at this limit: the limit, rounded up to a whole flush of 32 pages.
const WINDOW_PAGES: f64 = 3296.0;

/// A poll with figures, in seconds.
struct Seen<'a> {
    at: f64,
    ram: Ram,
    poll: &'a Poll,
}

impl Line {
    fn run(&self) -> Option<Run> {
        let seen: Vec<Seen> = self
            .polls
            .iter()
            .filter_map(|poll| Some(Seen { at: poll.total_time? / 1e3, ram: poll.ram?, poll }))
            .collect();
        let end = seen.last()?;
        let stopped = self.case == "stop-and-copy";
        let post_copy = post_copy(&seen);
        let first = seen.iter().rev().find(|one| one.ram.dirty_sync_count <= 1.0)?;
        let left = first.ram.remaining / PAGE;
        let begun = post_copy.is_none() || first.ram.remaining < 2e8;
        let expected = seen.iter().rev().filter(|one| one.poll.status.as_deref() == Some("active"));
        let expected = expected.filter_map(|one| one.poll.expected_downtime).next();
        let mut syncs = if stopped { Vec::new() } else { rounds(&seen) };
        // What came once the load had ended says nothing about the load.
        if matches!(self.case.as_str(), "precopy-near-critical" | "precopy-read-only") {
            syncs.truncate(syncs.len().saturating_sub(3));
        }
        Some(Run {
            case: self.case.clone(),
            run: self.run,
            ram_bytes: end.ram.total,
            resident_bytes: self.qemu_rss_before_bytes,
            total_seconds: end.at,
            downtime_seconds: end.poll.downtime? / 1e3,
            sent_bytes: end.ram.transferred,
            rounds: end.ram.dirty_sync_count,
            expected_downtime_seconds: expected
                .filter(|_| !stopped && post_copy.is_none())
                .map(|ms| ms / 1e3),
            first_pass_pages: match stopped {
                true => end.ram.normal,
                false => first.ram.normal + if begun { left.round() } else { 0.0 },
            },
            zero_pages: if stopped { end.ram.duplicate } else { first.ram.duplicate },
            syncs,
            post_copy,
        })
    }
}

/// Rounds between the syncs, until a vCPU is throttled: a sync lies where the memory left came below the threshold.
fn rounds(seen: &[Seen]) -> Vec<Round> {
    let window_bytes = WINDOW_PAGES * (PAGE + 8.0);
    let threshold = DOWNTIME_LIMIT_SECONDS * window_bytes * 10.0;
    let mut rounds = Vec::new();
    let (mut last, mut begin) = (0.0, seen.first().map_or(0.0, |one| one.ram.total as f64 / PAGE));
    for pair in seen.windows(2) {
        let (one, next) = (&pair[0], &pair[1]);
        if next.poll.status.as_deref() != Some("active") || one.poll.cpu_throttle_percentage.is_some() {
            break;
        }
        if next.ram.dirty_sync_count <= one.ram.dirty_sync_count {
            continue;
        }
        let sent = next.ram.normal - one.ram.normal + next.ram.duplicate - one.ram.duplicate;
        let found = (next.ram.remaining - one.ram.remaining) / PAGE + sent;
        let at = (one.at + (one.ram.remaining - threshold) / (window_bytes * 10.0)).clamp(one.at, next.at);
        let left = one.ram.remaining.min(threshold - 0.5 * WINDOW_PAGES * PAGE) / PAGE;
        rounds.push((at - last, found.round(), (1.0 - left / begin).clamp(0.0, 1.0)));
        (last, begin) = (at, left + found);
    }
    rounds
}

fn post_copy(seen: &[Seen]) -> Option<PostCopy> {
    let end = seen.last().filter(|end| end.ram.postcopy_bytes > 0.0)?;
    let of_post_copy =
        |one: &Seen| one.poll.status.as_deref().is_some_and(|status| status.starts_with("postcopy"));
    let first = seen.iter().position(of_post_copy)?;
    let (before, after) = (seen.get(first.checked_sub(1)?)?, seen.get(first)?);
    let at_seconds = f64::midpoint(before.at, after.at);
    let zero_pages = end.ram.duplicate - before.ram.duplicate;
    Some(PostCopy {
        at_seconds,
        seconds: end.at - at_seconds - end.poll.downtime? / 1e3,
        pages: ((end.ram.postcopy_bytes - 9.0 * zero_pages) / (PAGE + 8.0)).round(),
        zero_pages,
    })
}

pub(crate) fn score(file: &Path) -> Outcome<()> {
    let mut text = String::new();
    let bytes = fs::read(file)?;
    match file.extension().is_some_and(|end| end == "gz") {
        true => GzDecoder::new(bytes.as_slice()).read_to_string(&mut text)?,
        false => bytes.as_slice().read_to_string(&mut text)?,
    };
    let lines: Vec<Line> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let runs: Vec<Run> = lines.iter().filter_map(Line::run).collect();
    if let Some(derived) = env::var_os("KVM_PUBLIC_DERIVED") {
        fs::write(derived, serde_json::to_string(&runs)?)?;
    }
    let foretold = foretell(&runs);
    println!("{}", table(&foretold));
    Ok(())
}

/// Errors by case: median and ninth decile.
pub(crate) fn table(foretold: &[Foretold]) -> String {
    let mut cases: Vec<&str> = foretold.iter().map(|one| one.run.case.as_str()).collect();
    cases.dedup();
    let mut text = "| case | runs | answer while the load lasts | total time, % | bytes, % | downtime, ms | QEMU's own last expected-downtime, ms off | in the 90 % interval |\n|---|---|---|---|---|---|---|---|\n".to_owned();
    for case in cases {
        let of: Vec<&Foretold> = foretold.iter().filter(|one| one.run.case == case).collect();
        let errors = |figure: fn(&Foretold) -> f64, unit: f64| {
            let mut sorted: Vec<f64> = of.iter().map(|one| figure(one).abs() * unit).collect();
            sorted.sort_by(f64::total_cmp);
            let ninth =
                sorted.get((sorted.len() * 9 / 10).min(sorted.len() - 1)).copied().unwrap_or(f64::NAN);
            format!("{:.1}, {ninth:.1}", middle(sorted.into_iter()).unwrap_or(f64::NAN))
        };
        let converges = of.iter().filter(|one| one.converges_at[1] >= 0.5).count();
        let depend = of.iter().filter(|one| one.depends_on_the_load()).count();
        let off = of.iter().filter_map(|one| {
            Some((one.run.expected_downtime_seconds? - one.run.downtime_seconds).abs() * 1e3)
        });
        let held: usize = of.iter().map(|one| one.held().iter().filter(|held| **held).count()).sum();
        text += &format!(
            "| {case} | {} | converges {converges}, depends on the load {depend} | {} | {} | {} | {} | {held} of {} |\n",
            of.len(),
            errors(Foretold::total_error, 100.0),
            errors(Foretold::bytes_error, 100.0),
            errors(Foretold::downtime_error, 1e3),
            middle(off).map_or_else(|| "-".to_owned(), |off| format!("{off:.0}")),
            3 * of.len(),
        );
    }
    text
}
