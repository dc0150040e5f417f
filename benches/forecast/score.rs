//! Errors of the predictions.

use std::collections::BTreeSet;

use vmgate_facts::Quantiles;

use crate::{Came, Outcome, Prediction, baseline::Baseline, learnt::Forecast, load::BUSY, plan::Kind};

/// Prediction and outcome of a case.
pub(crate) type Pair = (Prediction, Came);

/// Dirty rates, as a ratio to the goodput, between which convergence is uncertain.
const NEAR: std::ops::RangeInclusive<f64> = 0.85..=1.15;

/// Of shorter migrations, the tenths of a second by which libvirt's preparation varies are many per cent.
const LONG_SECONDS: f64 = 5.0;

/// A forecast on one line.
pub(crate) fn words(forecast: &Forecast) -> String {
    let replay = &forecast.replay;
    let range = |figure: Option<Quantiles>, unit: f64| {
        figure.map_or_else(
            || "-".to_owned(),
            |f| format!("{:.2} ({:.2} to {:.2})", f.p50 / unit, f.p5 / unit, f.p95 / unit),
        )
    };
    format!(
        "P {:.2}, total {} s, {} MB, blackout {} ms, {} rounds",
        replay.converges_ratio,
        range(forecast.total_seconds, 1.0),
        range(forecast.bytes(), 1e6),
        range(forecast.blackout_seconds, 1e-3),
        range(replay.rounds, 1.0)
    )
}

/// Prints all cases, and their errors by kind.
pub(crate) fn table(pairs: &[Pair]) -> Outcome<()> {
    println!(
        "| case | ρ, learnt from | P | total s: foretold, came | MB: foretold, came | blackout ms: foretold, came (reported, QEMU expected) | rounds | in 90 % |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    pairs.iter().for_each(|pair| println!("{}", row(pair)));
    println!("\n{HEAD}");
    let counted = undisturbed(pairs);
    for (name, group) in groups(&counted) {
        println!("{}", Score::of(&group, |prediction| Some(&prediction.trace)).row(&name));
    }
    println!("{}", Score::of(&counted, |prediction| prediction.windows.as_ref()).row("without a trace"));
    println!("QEMU's expected downtime is off by {} ms", expected_downtime_errors(&counted));
    Ok(())
}

fn row((prediction, came): &Pair) -> String {
    let forecast = &prediction.trace;
    let replay = &forecast.replay;
    let middle = |figure: Option<Quantiles>, unit: f64| figure.map_or(f64::NAN, |figure| figure.p50 / unit);
    let held = figures(forecast, came).map(|(foretold, came)| within(foretold, came));
    let held: String = held.iter().map(|held| if *held { 'y' } else { 'n' }).collect();
    format!(
        "| {} | {:.2}, {} | {:.2} {} | {:.2}, {:.2} ({:+.1} %) | {:.0}, {:.0} ({:+.1} %) | {:.0}, {:.0} ({:.0}, {:.0}) | {:.0}, {:.0} | {} |",
        prediction.case,
        prediction.rho,
        forecast.earlier,
        replay.converges_ratio,
        if came.completed { "yes" } else { "no" },
        middle(forecast.total_seconds, 1.0),
        came.total_seconds,
        (middle(forecast.total_seconds, came.total_seconds) - 1.0) * 100.0,
        middle(forecast.bytes(), 1e6),
        came.bytes / 1e6,
        (middle(forecast.bytes(), came.bytes) - 1.0) * 100.0,
        middle(forecast.blackout_seconds, 1e-3),
        came.blackout_seconds.unwrap_or(f64::NAN) * 1e3,
        came.reported_downtime_seconds * 1e3,
        came.expected_downtime_seconds.unwrap_or(f64::NAN) * 1e3,
        middle(replay.rounds, 1.0),
        came.rounds,
        if came.disturbed { "disturbed" } else { &held },
    )
}

/// Total time, bytes and blackout: forecast and measured.
fn figures(forecast: &Forecast, came: &Came) -> [(Option<Quantiles>, f64); 3] {
    [
        (forecast.total_seconds, came.total_seconds),
        (forecast.bytes(), came.bytes),
        (forecast.blackout_seconds, came.blackout_seconds.unwrap_or(f64::NAN)),
    ]
}

fn within(range: Option<Quantiles>, value: f64) -> bool {
    range.is_some_and(|range| (range.p5..=range.p95).contains(&value))
}

/// Results that count.
pub(crate) fn undisturbed(pairs: &[Pair]) -> Vec<&Pair> {
    pairs.iter().filter(|(_, came)| !came.disturbed).collect()
}

/// True if the guest had its processor both while it was traced and while it moved.
pub(crate) fn undelayed((prediction, came): &Pair) -> bool {
    [prediction.waited_ratio, came.waited_ratio]
        .iter()
        .all(|waited| waited.is_some_and(|waited| waited < BUSY))
}

/// Earlier cases of a pair from which on its costs, and its intervals, are learnt.
const LEARNT: [usize; 2] = [3, 9];

/// The rows of the table by kind.
pub(crate) fn groups<'a>(pairs: &[&'a Pair]) -> Vec<(String, Vec<&'a Pair>)> {
    let of = |keep: &dyn Fn(&Pair) -> bool| pairs.iter().copied().filter(|pair| keep(pair)).collect();
    let earlier = |from: usize, to: usize| of(&|pair| (from..to).contains(&pair.0.trace.earlier));
    let plain = |pair: &Pair| !matches!(pair.0.case.kind, Kind::AutoConverge | Kind::Xbzrle);
    let mut groups: Vec<(String, Vec<&Pair>)> = vec![
        ("all".into(), pairs.to_vec()),
        ("fewer than three earlier moves of the pair".into(), earlier(0, LEARNT[0])),
        ("three and more earlier moves of the pair".into(), earlier(LEARNT[0], usize::MAX)),
        ("nine and more".into(), earlier(LEARNT[1], usize::MAX)),
        ("without auto-converge and XBZRLE".into(), of(&plain)),
        ("while no guest waited for a processor".into(), of(&undelayed)),
        ("shorter than 5 s".into(), of(&|pair| pair.1.total_seconds < LONG_SECONDS)),
        ("5 s and longer".into(), of(&|pair| pair.1.total_seconds >= LONG_SECONDS)),
        ("limit up to 500 ms".into(), of(&|pair| pair.0.case.limit_ms <= 500)),
        ("with a bandwidth limit".into(), of(&|pair| pair.0.case.bandwidth_mib.is_some())),
        ("beside another move".into(), of(&|pair| pair.0.case.beside)),
        ("as a manager runs it".into(), of(&|pair| pair.0.case.managed.is_some())),
    ];
    let managers: BTreeSet<&str> =
        pairs.iter().filter_map(|pair| Some(pair.0.case.managed.as_ref()?.title.as_str())).collect();
    let is_of = |pair: &Pair, title: &str| pair.0.case.managed.as_ref().is_some_and(|by| by.title == title);
    groups.extend(managers.into_iter().map(|title| (format!("as {title}"), of(&|pair| is_of(pair, title)))));
    for (host, version) in [("a", "7.2"), ("b", "10.0"), ("d", "11.1")] {
        groups.push((format!("from QEMU {version}"), of(&|pair| pair.0.case.from == host)));
        groups.push((format!("to QEMU {version}"), of(&|pair| pair.0.case.to == host)));
    }
    groups.extend(Kind::ALL.map(|kind| (kind.words().to_owned(), of(&|pair| pair.0.case.kind == kind))));
    groups.retain(|(_, group)| !group.is_empty());
    groups
}

/// Error of QEMU's own expected downtime against the silence: median, ninth decile and worst, in ms.
pub(crate) fn expected_downtime_errors(pairs: &[&Pair]) -> String {
    let error = |(_, came): &&Pair| {
        let real = came.blackout_seconds.filter(|_| came.completed)?;
        Some((came.expected_downtime_seconds? - real).abs() * 1e3)
    };
    let errors: Vec<f64> = pairs.iter().filter_map(error).collect();
    format!("{} (of {})", spread(&errors, 0), errors.len())
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
    /// Figures within their 90 % interval, and number of figures.
    pub(crate) held: (usize, usize),
}

pub(crate) const HEAD: &str = "| cases | | converges: right, clear and near | total time, % | bytes, % | blackout, ms | in the 90 % interval |\n|---|---|---|---|---|---|---|";

impl Score {
    pub(crate) fn of(group: &[&Pair], of: impl Fn(&Prediction) -> Option<&Forecast>) -> Self {
        let mut score = Self::default();
        for (prediction, came) in group {
            let Some(forecast) = of(prediction) else { continue };
            score.answer(prediction.rho, forecast.replay.converges_ratio >= 0.5, came);
            if !came.completed {
                continue;
            }
            let errors = [&mut score.total, &mut score.bytes, &mut score.blackout_ms];
            for ((index, (foretold, real)), errors) in
                figures(forecast, came).into_iter().enumerate().zip(errors)
            {
                let Some(foretold) = foretold.filter(|_| real.is_finite()) else { continue };
                errors.push(match index {
                    2 => (foretold.p50 - real).abs() * 1e3,
                    _ => (foretold.p50 / real - 1.0).abs() * 100.0,
                });
                score.held.0 += usize::from(within(Some(foretold), real));
                score.held.1 += 1;
            }
        }
        score
    }

    /// Errors of a simpler model on the same cases.
    pub(crate) fn of_baseline(group: &[&Pair], of: fn(&Prediction) -> Baseline) -> Self {
        let mut score = Self::default();
        for (prediction, came) in group {
            let said = of(prediction);
            score.answer(prediction.rho, said.converges, came);
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

    fn answer(&mut self, rho: f64, converges: bool, came: &Came) {
        self.cases += 1;
        let of = if NEAR.contains(&rho) { &mut self.near } else { &mut self.clear };
        of.0 += usize::from(converges == came.completed);
        of.1 += 1;
    }

    pub(crate) fn row(&self, name: &str) -> String {
        format!(
            "| {name} | {} | {}/{} and {}/{} | {} | {} | {} | {} |",
            self.cases,
            self.clear.0,
            self.clear.1,
            self.near.0,
            self.near.1,
            spread(&self.total, 1),
            spread(&self.bytes, 1),
            spread(&self.blackout_ms, 0),
            share(self.held),
        )
    }
}

/// Part of so many, in percent.
pub(crate) fn share((right, of): (usize, usize)) -> String {
    match of {
        0 => "-".to_owned(),
        _ => format!("{:.0} % of {of}", right as f64 / of as f64 * 100.0),
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
