//! Table of `vmgate diff`: only the differences between two reports, move by move.

use std::io::{self, Write};

use vmgate_verdict::{Move, Verdict};

use super::{
    super::{Style, style::Paint, visible, words},
    trends,
};

/// Writes the differences of `verdicts` from their baseline, and the moves that are `gone`: only the baseline has them.
pub(in crate::report) fn differences(
    verdicts: &[Verdict],
    gone: &[&Move],
    sink: &mut dyn Write,
    style: &Style,
) -> io::Result<()> {
    let mut sink = io::BufWriter::new(sink);
    let mut totals = [0_usize; 4];
    for verdict in verdicts {
        let Some(since) = &verdict.since else { continue };
        let counts = [since.new.len(), since.changed.len(), since.fixed.len(), since.unchanged];
        totals.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
        let word = verdict.decision.word();
        let turned = since.decision.map(vmgate_verdict::Decision::word).filter(|before| *before != word);
        if since.new.is_empty() && since.changed.is_empty() && since.fixed.is_empty() && turned.is_none() {
            continue;
        }
        let was = turned.map(|before| format!(", was {before}")).unwrap_or_default();
        let paint = if word == "GO" { Paint::Good } else { Paint::Bad };
        let movement = words::movement(verdict);
        writeln!(sink, "{}{was}  {}", style.paint(paint, word), visible(&movement))?;
        if let Some(simulated) = words::simulation(verdict) {
            writeln!(sink, "{simulated}")?;
        }
        writeln!(sink, "{}", words::since(since))?;
        trends(verdict, &mut sink, style)?;
        writeln!(sink)?;
    }
    for moved in gone {
        let names = [&moved.vm, &moved.source, &moved.destination].map(|named| visible(named.label()));
        let [vm, source, destination] = names;
        writeln!(sink, "gone   {vm}: {source} -> {destination}: the later report does not have this move")?;
    }
    let [new, changed, fixed, unchanged] = totals;
    writeln!(sink, "{new} new, {changed} changed, {fixed} fixed, {unchanged} unchanged.")?;
    sink.flush()
}
