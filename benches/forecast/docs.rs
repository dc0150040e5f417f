//! docs/forecast-measured.md and its plots, from a result file: no figure in them is written by hand.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use crate::{
    Outcome, campaign,
    constants::Constants,
    plan::{Kind, Part},
    public_set::{Run, foretell},
    score::{HEAD, Pair, Score, Scored, quantile},
};

/// Side of a plot, and its margin.
const SIDE: f64 = 420.0;
const MARGIN: f64 = 48.0;

pub(crate) fn write(file: &Path, folder: &Path) -> Outcome<()> {
    let (pairs, constants) = campaign::results(file)?;
    let scored = Scored::of(&pairs, &constants);
    let plots = folder.join("forecast");
    fs::create_dir_all(&plots)?;
    let done = scored.held_out(|(_, came)| came.completed);
    let total = points(&done, |pair| Some((pair.0.replay.total_seconds?.p50, pair.1.total_seconds)));
    let bytes = points(&done, |pair| Some((pair.0.replay.bytes?.p50 / 1e6, pair.1.bytes / 1e6)));
    let blackout = points(&done, |pair| {
        Some((pair.0.replay.blackout_seconds?.p50 * 1e3, pair.1.blackout_seconds? * 1e3))
    });
    for (name, title, points) in [
        ("total", "whole migration, s", &total),
        ("bytes", "sent, MB", &bytes),
        ("blackout", "blackout, ms", &blackout),
    ] {
        fs::write(plots.join(format!("{name}.svg")), scatter(title, points))?;
    }
    fs::write(folder.join("forecast-measured.md"), page(file, &pairs, &constants, &scored)?)?;
    Ok(())
}

fn page(file: &Path, pairs: &[Pair], constants: &Constants, scored: &Scored) -> Outcome<String> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let mut text = String::new();
    let tuning = pairs.iter().filter(|pair| pair.0.case.part == Part::Tune).count();
    let learnt = match tuning {
        0 => format!(
            "{} earlier ones taught the lab's fixed costs, which were frozen before the first of these.",
            constants.cases
        ),
        some => format!(
            "The first {some} taught the lab's fixed costs, which were then frozen; the tables are of the others."
        ),
    };
    writeln!(text, "# How good the forecast is\n")?;
    writeln!(
        text,
        "Written by `make bench-forecast` from `benches/forecast/results/{name}`: {} real migrations between QEMU 7.2 and\n\
         10.0 through libvirt, in the lab, of emulated guests. Each was foretold before it started, from a trace of 15 s and\n\
         the goodput of one TCP stream; the blackout is the silence of a heartbeat every 2.5 ms, seen outside the guest.\n\
         {learnt}\n",
        pairs.len()
    )?;
    kvm(&mut text, file)?;
    let all = scored.held_out(|_| true);
    writeln!(text, "## Emulated guests: aims\n\n| | aim | all held out |\n|---|---|---|")?;
    aims(&mut text, &scored.score(&all))?;
    writeln!(
        text,
        "\n## By kind\n\nErrors are absolute: median, ninth decile, worst. Converges or not: right of so many where\nthe dirty rate lies clearly off the goodput, and where it is within 0.85 to 1.15 of it. \"Corrected\" is by how far those\ntuned on were off, foretold with the frozen costs.\n\n{HEAD}"
    )?;
    for (name, group) in scored.groups() {
        writeln!(text, "{}", scored.score(&group).row(&name))?;
    }
    writeln!(
        text,
        "\n## Beside simpler models\n\nOn the same inputs. They give no intervals; a migration that they think endless has no duration, and is left out there.\n\n{HEAD}"
    )?;
    writeln!(text, "{}", scored.score(&all).row("replay"))?;
    writeln!(text, "{}", scored.baseline(&all, |p| p.mean_rate).row("mean rate over nominal bandwidth"))?;
    writeln!(text, "{}", scored.baseline(&all, |p| p.working_set).row("working set D(t) over goodput"))?;
    noise(&mut text, pairs)?;
    writeln!(
        text,
        "\n## Plots\n\n![whole migration](forecast/total.svg) ![bytes](forecast/bytes.svg) ![blackout](forecast/blackout.svg)"
    )?;
    Ok(text)
}

/// Guests under KVM come first: the lab's own campaign, where there is one beside the results, and the public set.
fn kvm(text: &mut String, results: &Path) -> Outcome<()> {
    writeln!(text, "## On real KVM\n")?;
    let own = results.with_file_name("kvm-1.jsonl");
    if own.exists() {
        let (pairs, constants) = campaign::results(&own)?;
        let scored = Scored::of(&pairs, &constants);
        let busy = pairs.iter().map(|(_, came)| came.load).sum::<f64>() / pairs.len().max(1) as f64;
        writeln!(
            text,
            "{} migrations of a bare-metal guest between QEMU 7.2 and 10.0 in the lab, under KVM, each foretold before it started, a third of them with\n\
             a bandwidth limit. The first teach the fixed costs of each pair, and are in a row of their own. The machine was loaded by\n\
             others all the while: {busy:.0} tasks on two cores on average.\n\n{HEAD}",
            pairs.len()
        )?;
        for (name, group) in scored.groups() {
            writeln!(text, "{}", scored.score(&group).row(&name))?;
        }
    }
    let public: Vec<Run> =
        serde_json::from_str(include_str!("../../crates/forecast/tests/kvm-postgres.json"))?;
    writeln!(
        text,
        "\n### Public migrations under KVM\n\nPostgreSQL with YCSB, 8 GiB, QEMU's defaults (github.com/LordWicked/live-migration-thesis-code, MIT licence); each\n\
         foretold from the other runs of its case, from what their syncs found dirty and the resident set of its QEMU. Median and ninth decile. Near-critical and\n\
         read-only ended with their load: their duration is foretold with its end as an event.\n\n{}",
        crate::public::table(&foretell(&public))
    )?;
    Ok(())
}

fn aims(text: &mut String, score: &Score) -> Outcome<()> {
    let at = |errors: &[f64], share| quantile(errors, share).unwrap_or(f64::NAN);
    let share = |(right, of): (usize, usize)| match of {
        0 => "-".to_owned(),
        _ => format!("{:.0} % of {of}", right as f64 / of as f64 * 100.0),
    };
    for (name, aim, got) in [
        ("total time, median error", "≤ 2 %", format!("{:.1} %", at(&score.total, 0.5))),
        ("total time, ninth decile", "≤ 6 %", format!("{:.1} %", at(&score.total, 0.9))),
        ("bytes, ninth decile", "≤ 4 %", format!("{:.1} %", at(&score.bytes, 0.9))),
        ("blackout, median error", "≤ 20 ms", format!("{:.0} ms", at(&score.blackout_ms, 0.5))),
        ("blackout, ninth decile", "≤ 60 ms", format!("{:.0} ms", at(&score.blackout_ms, 0.9))),
        ("converges or not, clear", "≥ 98 %", share(score.clear)),
        ("converges or not, near", "≥ 85 %", share(score.near)),
        ("90 % interval holds", "88 to 95 %", share(score.held)),
        ("the same, corrected", "88 to 95 %", share(score.held_corrected)),
    ] {
        writeln!(text, "| {name} | {aim} | {got} |")?;
    }
    Ok(())
}

/// Noise floor: differences between repetitions of the same migration.
fn noise(text: &mut String, pairs: &[Pair]) -> Outcome<()> {
    let mut groups: BTreeMap<u32, Vec<&Pair>> = BTreeMap::new();
    let repeated: Vec<u32> = pairs.iter().filter_map(|pair| pair.0.case.repeats).collect();
    for pair in pairs {
        let of = pair.0.case.repeats.unwrap_or(pair.0.case.id);
        if repeated.contains(&of) && pair.1.completed {
            groups.entry(of).or_default().push(pair);
        }
    }
    if groups.is_empty() {
        return Ok(());
    }
    writeln!(
        text,
        "\n## Noise floor\n\nThe same migration several times: what no forecast can be better than. \"Off\" is by how much one of them is off their\nmiddle, at the median.\n\n| case | times | total s | off | blackout ms | off |\n|---|---|---|---|---|---|"
    )?;
    for group in groups.values().filter(|group| group.len() > 1) {
        let range = |of: fn(&Pair) -> f64, digits: usize| {
            let figures: Vec<f64> = group.iter().map(|pair| of(pair)).collect();
            let at = |share| quantile(&figures, share).unwrap_or(f64::NAN);
            let middle = at(0.5);
            let off: Vec<f64> = figures.iter().map(|figure| (figure - middle).abs()).collect();
            let off = quantile(&off, 0.5).unwrap_or(f64::NAN);
            (format!("{:.digits$} to {:.digits$}", at(0.0), at(1.0)), off, middle)
        };
        let (total, off_total, middle) = range(|pair| pair.1.total_seconds, 2);
        let (blackout, off_blackout, _) = range(|pair| pair.1.blackout_seconds.unwrap_or(f64::NAN) * 1e3, 0);
        writeln!(
            text,
            "| {} | {} | {total} | {:.1} % | {blackout} | {off_blackout:.0} ms |",
            group[0].0.case,
            group.len(),
            off_total / middle * 100.0
        )?;
    }
    Ok(())
}

fn points(pairs: &[&Pair], of: impl Fn(&Pair) -> Option<(f64, f64)>) -> Vec<(Kind, f64, f64)> {
    let usable = |(foretold, came): &(f64, f64)| *foretold > 0.0 && *came > 0.0;
    pairs
        .iter()
        .filter_map(|pair| of(pair).filter(usable).map(|(foretold, came)| (pair.0.case.kind, foretold, came)))
        .collect()
}

/// Plot of forecast against measured values, on logarithmic axes, with the line of equality.
fn scatter(title: &str, points: &[(Kind, f64, f64)]) -> String {
    let all = points.iter().flat_map(|(_, foretold, came)| [*foretold, *came]);
    let low = all.clone().fold(f64::INFINITY, f64::min).max(1e-3) / 1.3;
    let high = all.fold(low * 2.0, f64::max) * 1.3;
    let at = |value: f64| MARGIN + (value / low).ln() / (high / low).ln() * (SIDE - 2.0 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {SIDE} {SIDE}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{SIDE}\" height=\"{SIDE}\" fill=\"#fff\"/>\n<text x=\"{}\" y=\"20\" text-anchor=\"middle\">{title}: foretold (across), came (up)</text>\n\
         <path d=\"M{a:.1} {b:.1}L{c:.1} {d:.1}\" stroke=\"#999\"/>\n",
        SIDE / 2.0,
        a = at(low),
        b = SIDE - at(low),
        c = at(high),
        d = SIDE - at(high),
    );
    let ticks = (-3..7).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)));
    for tick in ticks.filter(|tick| (low..high).contains(tick)) {
        let place = at(tick);
        let _ = writeln!(
            svg,
            "<text x=\"{place:.1}\" y=\"{}\" text-anchor=\"middle\">{tick}</text>",
            SIDE - 26.0
        );
        let _ =
            writeln!(svg, "<text x=\"40\" y=\"{:.1}\" text-anchor=\"end\">{tick}</text>", SIDE - place + 4.0);
    }
    for (kind, foretold, came) in points {
        let colour = match kind {
            Kind::Sweep => "#d9480f",
            Kind::AutoConverge => "#9c36b5",
            Kind::Xbzrle => "#2b8a3e",
            _ => "#1971c2",
        };
        let (x, y) = (at(*foretold), SIDE - at(*came));
        let _ = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\" fill-opacity=\"0.7\"/>"
        );
    }
    let legend =
        [("#1971c2", "others"), ("#d9480f", "sweep"), ("#9c36b5", "auto-converge"), ("#2b8a3e", "XBZRLE")];
    for (place, (colour, name)) in legend.iter().enumerate() {
        let y = 40 + place * 16;
        let _ = writeln!(
            svg,
            "<circle cx=\"60\" cy=\"{}\" r=\"4\" fill=\"{colour}\"/><text x=\"70\" y=\"{y}\">{name}</text>",
            y - 4
        );
    }
    svg + "</svg>\n"
}
