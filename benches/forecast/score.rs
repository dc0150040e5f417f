//! How far off the predictions were.

use std::{collections::BTreeMap, fs};

use vmgate::{fact::Quantiles, forecast::replay::Replay};

use crate::{Came, Line, Outcome, Prediction};

/// A forecast on one line.
pub(crate) fn words(replay: &Replay) -> String {
    let range = |figure: Option<Quantiles>, unit: f64| {
        figure.map_or_else(
            || "-".to_owned(),
            |f| format!("{:.2} ({:.2} to {:.2})", f.p50 / unit, f.p5 / unit, f.p95 / unit),
        )
    };
    format!(
        "P {:.2}, total {} s, {} MB, blackout {} ms, {} rounds",
        replay.converges_ratio,
        range(replay.total_seconds, 1.0),
        range(replay.bytes, 1e6),
        range(replay.blackout_seconds, 1e-3),
        range(replay.rounds, 1.0)
    )
}

/// Prints all cases of a result file, and their errors together.
pub(crate) fn table(file: &str) -> Outcome<()> {
    let mut predicted: BTreeMap<u32, Box<Prediction>> = BTreeMap::new();
    let mut pairs: Vec<(Box<Prediction>, Came)> = Vec::new();
    for line in fs::read_to_string(file)?.lines() {
        match serde_json::from_str(line)? {
            Line::Predicted(prediction) => {
                predicted.insert(prediction.case.id, prediction);
            }
            Line::Came(came) => pairs.extend(predicted.remove(&came.id).map(|prediction| (prediction, came))),
        }
    }
    println!(
        "| case | ρ | P | total s: foretold, came | MB: foretold, came | blackout ms: foretold, came (reported) | rounds | in 90 % |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let mut errors = Errors::default();
    for (prediction, came) in &pairs {
        if !came.disturbed {
            errors.add(prediction, came);
        }
        println!("{}", row(prediction, came));
    }
    errors.print();
    Ok(())
}

fn row(prediction: &Prediction, came: &Came) -> String {
    let replay = &prediction.replay;
    let middle = |figure: Option<Quantiles>, unit: f64| figure.map_or(f64::NAN, |figure| figure.p50 / unit);
    let held = [
        within(replay.total_seconds, came.total_seconds),
        within(replay.bytes, came.bytes),
        within(replay.blackout_seconds, came.blackout_seconds.unwrap_or(f64::NAN)),
    ];
    format!(
        "| {} | {:.2} | {:.2} {} | {:.2}, {:.2} ({:+.1} %) | {:.0}, {:.0} ({:+.1} %) | {:.0}, {:.0} ({:.0}) | {:.0}, {:.0} | {} |",
        prediction.case,
        prediction.rho,
        replay.converges_ratio,
        if came.completed { "yes" } else { "no" },
        middle(replay.total_seconds, 1.0),
        came.total_seconds,
        (middle(replay.total_seconds, came.total_seconds) - 1.0) * 100.0,
        middle(replay.bytes, 1e6),
        came.bytes / 1e6,
        (middle(replay.bytes, came.bytes) - 1.0) * 100.0,
        middle(replay.blackout_seconds, 1e-3),
        came.blackout_seconds.unwrap_or(f64::NAN) * 1e3,
        came.reported_downtime_seconds * 1e3,
        middle(replay.rounds, 1.0),
        came.rounds,
        if came.disturbed {
            "disturbed".into()
        } else {
            held.map(|held| if held { 'y' } else { 'n' }).iter().collect::<String>()
        },
    )
}

fn within(range: Option<Quantiles>, value: f64) -> bool {
    range.is_some_and(|range| (range.p5..=range.p95).contains(&value))
}

/// Absolute errors of the cases that completed and were foretold to.
#[derive(Default)]
struct Errors {
    right: usize,
    all: usize,
    total: Vec<f64>,
    bytes: Vec<f64>,
    blackout_ms: Vec<f64>,
    baseline: Vec<f64>,
    held: usize,
    held_of: usize,
}

impl Errors {
    fn add(&mut self, prediction: &Prediction, came: &Came) {
        self.all += 1;
        self.right += usize::from((prediction.replay.converges_ratio >= 0.5) == came.completed);
        let replay = &prediction.replay;
        let (true, Some(total), Some(bytes), Some(blackout)) =
            (came.completed, replay.total_seconds, replay.bytes, replay.blackout_seconds)
        else {
            return;
        };
        self.total.push((total.p50 / came.total_seconds - 1.0).abs() * 100.0);
        self.baseline.push((prediction.baseline_seconds / came.total_seconds - 1.0).abs() * 100.0);
        self.bytes.push((bytes.p50 / came.bytes - 1.0).abs() * 100.0);
        self.held += usize::from(within(Some(total), came.total_seconds))
            + usize::from(within(Some(bytes), came.bytes));
        self.held_of += 2;
        if let Some(real) = came.blackout_seconds {
            self.blackout_ms.push((blackout.p50 - real).abs() * 1e3);
            self.held += usize::from(within(Some(blackout), real));
            self.held_of += 1;
        }
    }

    fn print(mut self) {
        println!("\nconverges or not: right in {} of {}", self.right, self.all);
        println!("90 % interval holds in {} of {}", self.held, self.held_of);
        let figures = [
            ("total, %", &mut self.total),
            ("total by RAM over link rate, %", &mut self.baseline),
            ("bytes, %", &mut self.bytes),
            ("blackout, ms", &mut self.blackout_ms),
        ];
        for (name, errors) in figures {
            errors.sort_by(f64::total_cmp);
            let Some(last) = errors.len().checked_sub(1) else { continue };
            let at = |share: f64| errors[(share * last as f64).round() as usize];
            println!(
                "error of {name}: median {:.1}, p90 {:.1}, worst {:.1} ({} cases)",
                at(0.5),
                at(0.9),
                at(1.0),
                last + 1
            );
        }
    }
}
