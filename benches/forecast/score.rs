//! Errors of the predictions.

use vmgate_facts::Quantiles;
use vmgate_forecast::{conformal::Correction, replay::PredictedMigration};

use crate::{
    Came, Outcome, Prediction,
    baseline::Baseline,
    constants::Constants,
    plan::{Kind, Part},
};

/// Prediction and outcome of a case.
pub(crate) type Pair = (Prediction, Came);

/// Dirty rates, as a ratio to the goodput, between which convergence is uncertain.
const NEAR: std::ops::RangeInclusive<f64> = 0.85..=1.15;

/// Of shorter migrations, the tenths of a second by which libvirt's preparation varies are many per cent.
const LONG_SECONDS: f64 = 5.0;

/// A forecast on one line.
pub(crate) fn words(replay: &PredictedMigration) -> String {
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

/// Prints all cases, and their errors by kind.
pub(crate) fn table((pairs, constants): &(Vec<Pair>, Constants)) -> Outcome<()> {
    println!(
        "| case | ρ | P | total s: foretold, came | MB: foretold, came | blackout ms: foretold, came (reported) | rounds | in 90 % |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    pairs.iter().for_each(|pair| println!("{}", row(pair)));
    println!("\n{HEAD}");
    let scored = Scored::of(pairs, constants);
    for (name, group) in scored.groups() {
        println!("{}", scored.score(&group).row(&name));
    }
    Ok(())
}

fn row((prediction, came): &Pair) -> String {
    let replay = &prediction.replay;
    let middle = |figure: Option<Quantiles>, unit: f64| figure.map_or(f64::NAN, |figure| figure.p50 / unit);
    let held = figures(prediction, came).map(|(foretold, came)| within(foretold, came));
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

/// Total time, bytes and blackout: forecast and measured.
fn figures(prediction: &Prediction, came: &Came) -> [(Option<Quantiles>, f64); 3] {
    let replay = &prediction.replay;
    [
        (replay.total_seconds, came.total_seconds),
        (replay.bytes, came.bytes),
        (replay.blackout_seconds, came.blackout_seconds.unwrap_or(f64::NAN)),
    ]
}

fn within(range: Option<Quantiles>, value: f64) -> bool {
    range.is_some_and(|range| (range.p5..=range.p95).contains(&value))
}

/// Results that count, with the corrections of the intervals learnt before.
pub(crate) struct Scored<'a> {
    pairs: Vec<&'a Pair>,
    corrections: [Option<Correction>; 3],
}

impl<'a> Scored<'a> {
    pub(crate) fn of(pairs: &'a [Pair], constants: &Constants) -> Self {
        Self {
            pairs: pairs.iter().filter(|(_, came)| !came.disturbed).collect(),
            corrections: constants.corrections,
        }
    }

    /// Validation cases of that kind, or all.
    pub(crate) fn held_out(&self, keep: impl Fn(&Pair) -> bool) -> Vec<&'a Pair> {
        let held_out =
            self.pairs.iter().copied().filter(|(prediction, _)| prediction.case.part == Part::HeldOut);
        held_out.filter(|pair| keep(pair)).collect()
    }

    /// The rows of the table by kind.
    pub(crate) fn groups(&self) -> Vec<(String, Vec<&'a Pair>)> {
        let plain =
            |(prediction, _): &Pair| !matches!(prediction.case.kind, Kind::AutoConverge | Kind::Xbzrle);
        let mut groups = vec![
            ("all held out".to_owned(), self.held_out(|_| true)),
            ("without auto-converge and XBZRLE".to_owned(), self.held_out(plain)),
            (
                "of these, on a quiet machine".to_owned(),
                self.held_out(|pair| plain(pair) && pair.1.pressure.stalled_ratio < crate::load::BUSY),
            ),
            ("shorter than 5 s".to_owned(), self.held_out(|(_, came)| came.total_seconds < LONG_SECONDS)),
            ("5 s and longer".to_owned(), self.held_out(|(_, came)| came.total_seconds >= LONG_SECONDS)),
            ("with a bandwidth limit".to_owned(), self.held_out(|pair| pair.0.case.bandwidth_mib.is_some())),
            ("from QEMU 7.2".to_owned(), self.held_out(|pair| plain(pair) && pair.0.case.from == "a")),
            ("from QEMU 10.0".to_owned(), self.held_out(|pair| plain(pair) && pair.0.case.from == "b")),
        ];
        groups.extend(
            Kind::ALL.map(|kind| (kind.words().to_owned(), self.held_out(|pair| pair.0.case.kind == kind))),
        );
        let tuning = self.pairs.iter().copied().filter(|pair| pair.0.case.part == Part::Tune);
        groups.push(("(those tuned on)".to_owned(), tuning.collect()));
        groups.retain(|(_, group)| !group.is_empty());
        groups
    }

    pub(crate) fn score(&self, group: &[&Pair]) -> Score {
        let mut score = Score::default();
        for (prediction, came) in group {
            score.cases += 1;
            let right = (prediction.replay.converges_ratio >= 0.5) == came.completed;
            let of = if NEAR.contains(&prediction.rho) { &mut score.near } else { &mut score.clear };
            of.0 += usize::from(right);
            of.1 += 1;
            if !came.completed {
                continue;
            }
            let figures = figures(prediction, came);
            let errors = [&mut score.total, &mut score.bytes, &mut score.blackout_ms];
            for ((index, (foretold, real)), errors) in figures.into_iter().enumerate().zip(errors) {
                let Some(foretold) = foretold.filter(|_| real.is_finite()) else { continue };
                errors.push(if index == 2 {
                    (foretold.p50 - real).abs() * 1e3
                } else {
                    (foretold.p50 / real - 1.0).abs() * 100.0
                });
                score.held.0 += usize::from(within(Some(foretold), real));
                score.held.1 += 1;
                if let Some(correction) = self.corrections[index] {
                    score.held_corrected.0 += usize::from(within(Some(correction.apply(foretold)), real));
                    score.held_corrected.1 += 1;
                }
            }
        }
        score
    }

    /// Errors of a simpler model on the same cases.
    pub(crate) fn baseline(&self, group: &[&Pair], of: fn(&Prediction) -> Option<Baseline>) -> Score {
        let mut score = Score::default();
        for (prediction, came) in group {
            let Some(said) = of(prediction) else { continue };
            score.cases += 1;
            let counted = if NEAR.contains(&prediction.rho) { &mut score.near } else { &mut score.clear };
            counted.0 += usize::from(said.converges == came.completed);
            counted.1 += 1;
            if came.completed && said.converges {
                score.total.push((said.total_seconds / came.total_seconds - 1.0).abs() * 100.0);
                score.bytes.push((said.bytes / came.bytes - 1.0).abs() * 100.0);
                score
                    .blackout_ms
                    .extend(came.blackout_seconds.map(|real| (said.blackout_seconds - real).abs() * 1e3));
            }
        }
        score
    }
}

/// Absolute errors of a group of cases, of those that completed and were forecast to complete.
#[derive(Default)]
pub(crate) struct Score {
    pub(crate) cases: usize,
    /// Correct forecasts of convergence, and number of cases: where the dirty rate is far from the goodput and where it is near.
    pub(crate) clear: (usize, usize),
    pub(crate) near: (usize, usize),
    pub(crate) total: Vec<f64>,
    pub(crate) bytes: Vec<f64>,
    pub(crate) blackout_ms: Vec<f64>,
    /// Figures within their 90 % interval, and number of figures; the same with intervals corrected by the tuning cases.
    pub(crate) held: (usize, usize),
    pub(crate) held_corrected: (usize, usize),
}

pub(crate) const HEAD: &str = "| cases | | converges: right, clear and near | total time, % | bytes, % | blackout, ms | in the 90 % interval | corrected |\n|---|---|---|---|---|---|---|---|";

impl Score {
    pub(crate) fn row(&self, name: &str) -> String {
        let share = |(held, of): (usize, usize)| match of {
            0 => "-".to_owned(),
            _ => format!("{:.0} % of {of}", held as f64 / of as f64 * 100.0),
        };
        format!(
            "| {name} | {} | {}/{} and {}/{} | {} | {} | {} | {} | {} |",
            self.cases,
            self.clear.0,
            self.clear.1,
            self.near.0,
            self.near.1,
            spread(&self.total, 1),
            spread(&self.bytes, 1),
            spread(&self.blackout_ms, 0),
            share(self.held),
            share(self.held_corrected)
        )
    }
}

/// Median, ninth decile and worst.
fn spread(errors: &[f64], digits: usize) -> String {
    let at = |share: f64| quantile(errors, share).map_or("-".to_owned(), |error| format!("{error:.digits$}"));
    format!("{}, {}, {}", at(0.5), at(0.9), at(1.0))
}

pub(crate) fn quantile(errors: &[f64], share: f64) -> Option<f64> {
    let mut sorted = errors.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get((share * sorted.len().checked_sub(1)? as f64).round() as usize).copied()
}
