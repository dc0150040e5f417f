//! Parts of the errors of a campaign: how far off a figure would be if only one part of the migration had been foretold wrongly.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::{
    Outcome,
    score::{self, Pair, quantile},
};

/// Errors of one migration as replayed, before any correction by earlier ones: foretold less came, in seconds.
struct Errors<'a> {
    pair: &'a Pair,
    total: f64,
    /// Time of the bytes that were foretold too many.
    bytes: f64,
    blackout: f64,
    /// Parts of both that the middle migration between the same two hosts has too: what earlier ones teach.
    wait_of_pair: f64,
    blackout_of_pair: f64,
}

impl<'a> Errors<'a> {
    fn of(pair: &'a Pair) -> Option<Self> {
        let (prediction, came) = pair;
        let replay = &prediction.trace.replay;
        let limit = prediction.case.bandwidth_mib.map_or(f64::INFINITY, |limit| (limit << 20) as f64);
        Some(Self {
            pair,
            total: replay.total_seconds?.p50 - came.total_seconds,
            bytes: (replay.bytes?.p50 - came.bytes) / prediction.goodput.min(limit),
            blackout: replay.blackout_seconds?.p50 - came.blackout_seconds?,
            wait_of_pair: 0.0,
            blackout_of_pair: 0.0,
        })
    }

    /// Error of everything that is neither sending nor the switch.
    fn wait(&self) -> f64 {
        self.total - self.bytes - self.blackout
    }

    fn rounds_as_foretold(&self) -> bool {
        let foretold = self.pair.0.trace.replay.rounds.map_or(f64::NAN, |rounds| rounds.p50.round());
        (foretold - self.pair.1.rounds).abs() < 0.5
    }

    /// True if it had the hosts to itself: it went alone, and its guest never waited for a processor; none where nobody saw.
    fn is_undisturbed(&self) -> Option<bool> {
        let (prediction, came) = self.pair;
        prediction.waited_ratio.and(came.waited_ratio)?;
        Some(score::undelayed(self.pair) && !prediction.case.beside)
    }
}

/// Errors of all migrations that were foretold to complete and did.
fn errors<'a>(pairs: &[&'a Pair]) -> Vec<Errors<'a>> {
    let done = pairs.iter().filter(|(_, came)| came.completed);
    let mut all: Vec<Errors> = done.filter_map(|pair| Errors::of(pair)).collect();
    let mut of_pair: BTreeMap<_, [Vec<f64>; 2]> = BTreeMap::new();
    let hosts = |errors: &Errors<'a>| (errors.pair.0.case.from.as_str(), errors.pair.0.case.to.as_str());
    for errors in &all {
        let [waits, blackouts] = of_pair.entry(hosts(errors)).or_default();
        waits.push(errors.wait());
        blackouts.push(errors.blackout);
    }
    for errors in &mut all {
        if let Some([waits, blackouts]) = of_pair.get(&hosts(errors)) {
            errors.wait_of_pair = quantile(waits, 0.5).unwrap_or(0.0);
            errors.blackout_of_pair = quantile(blackouts, 0.5).unwrap_or(0.0);
        }
    }
    all
}

/// Writes the section.
pub(crate) fn write(text: &mut String, title: &str, pairs: &[&Pair]) -> Outcome<()> {
    let all = errors(pairs);
    writeln!(
        text,
        "\n### {title}: parts of the errors\n\nError of the duration as replayed, before any correction (median, ninth decile), if one part alone were foretold as it was and\n\
         all others exactly, and if it alone were exact. Waiting is what is neither sending nor the switch: libvirt's preparation, the\n\
         destination's QEMU, the end, time without a processor, and a path that is slower than its goodput. Of it the middle move of the pair of\n\
         hosts has a part too, which earlier moves teach; the rest is the move's own.\n\n| part | alone wrong, % | alone exact, % |\n|---|---|---|"
    )?;
    type Part = fn(&Errors) -> f64;
    let parts: [(&str, Part); 6] = [
        ("all", |of| of.total),
        ("bytes, at the speed of path and limit", |of| of.bytes),
        ("blackout", |of| of.blackout),
        ("waiting, of the pair", |of| of.wait_of_pair),
        ("waiting, of the move", |of| of.wait() - of.wait_of_pair),
        ("waiting, both", |of| of.wait()),
    ];
    let two = |figures: Vec<f64>, digits: usize| {
        let at = |share| quantile(&figures, share).map_or("-".into(), |figure| format!("{figure:.digits$}"));
        format!("{}, {}", at(0.5), at(0.9))
    };
    let percent = |of: &[&Errors], part: &dyn Fn(&Errors) -> f64| {
        two(of.iter().map(|of| part(of).abs() / of.pair.1.total_seconds * 100.0).collect(), 1)
    };
    let everything: Vec<&Errors> = all.iter().collect();
    for (name, part) in parts {
        let exact = if name == "all" { "-".into() } else { percent(&everything, &|of| of.total - part(of)) };
        writeln!(text, "| {name} | {} | {exact} |", percent(&everything, &part))?;
    }
    writeln!(
        text,
        "\n| moves | | waiting, of the move, % | bytes, % | blackout, less the pair's middle, ms |\n|---|---|---|---|---|"
    )?;
    type Kept = fn(&Errors) -> bool;
    let kept: [(&str, Kept); 5] = [
        ("alone, and no guest waited for a processor", |of| of.is_undisturbed() == Some(true)),
        ("beside another, or a guest waited", |of| of.is_undisturbed() == Some(false)),
        ("5 s and longer: most that the speed of the path is off", |of| of.pair.1.total_seconds >= 5.0),
        ("as many rounds as foretold", |of| of.rounds_as_foretold()),
        ("more or fewer rounds", |of| !of.rounds_as_foretold()),
    ];
    for (name, keep) in kept {
        let group: Vec<&Errors> = all.iter().filter(|of| keep(of)).collect();
        if group.is_empty() {
            continue;
        }
        let blackout =
            two(group.iter().map(|of| (of.blackout - of.blackout_of_pair).abs() * 1e3).collect(), 0);
        writeln!(
            text,
            "| {name} | {} | {} | {} | {blackout} |",
            group.len(),
            percent(&group, &|of| of.wait() - of.wait_of_pair),
            percent(&group, &|of| of.bytes),
        )?;
    }
    Ok(())
}
