//! Overview of several moves: one table row per move, and the result of the run.

use std::io::{self, Write};

use tabled::{
    builder::Builder,
    settings::{Color, Modify, Padding, Style as Lines, object::Cell, style::HorizontalLine},
};
use vmgate_verdict::{Decision, Effect, ExitCode, Status, Verdict};

use super::super::{Style, visible, words, wrap::fill};

/// Spaces between two columns.
const GAP: usize = 2;

pub(super) fn write(verdicts: &[Verdict], sink: &mut dyn Write, style: &Style) -> io::Result<()> {
    let rows: Vec<[String; 4]> = verdicts.iter().map(cells).collect();
    let widths = widths(&rows, style.columns());
    let mut builder = Builder::default();
    builder.push_record(["", "VM", "from", "to", "why"]);
    for (verdict, row) in verdicts.iter().zip(&rows) {
        let wrapped = row.iter().zip(widths).map(|(text, width)| fill(text, "", "", width));
        builder.push_record(std::iter::once(verdict.decision.word().to_owned()).chain(wrapped));
    }
    let mut table = builder.build();
    let lines = Lines::empty().horizontals([(1, HorizontalLine::new('─'))]);
    table.with(lines).with(Padding::new(0, GAP, 0, 0));
    if style.colour {
        for (position, verdict) in verdicts.iter().enumerate() {
            let color = match verdict.decision {
                Decision::Go(_) => Color::FG_GREEN,
                Decision::NoGo(_) => Color::FG_RED | Color::BOLD,
            };
            table.with(Modify::new(Cell::new(position + 1, 0)).with(color));
        }
    }
    for line in table.to_string().lines() {
        writeln!(sink, "{}", line.trim_end())?;
    }
    let go = verdicts.iter().filter(|verdict| matches!(verdict.decision, Decision::Go(_))).count();
    let code = ExitCode::of_all(verdicts);
    let moves = words::number(verdicts.len(), "move");
    writeln!(sink, "{moves}: {go} GO, {} NO-GO.", verdicts.len() - go)?;
    writeln!(sink, "Exit code {}: {}.", code.code(), code.meaning())
}

/// Cells of a row: VM, source, destination and reason.
fn cells(verdict: &Verdict) -> [String; 4] {
    let moved = &verdict.moved;
    let [vm, from, to] =
        [&moved.vm, &moved.source, &moved.destination].map(|named| visible(named.label()).into_owned());
    [vm, from, to, why(verdict)]
}

/// Widths of the cells: the names get what they need as long as the reason keeps a third of the terminal.
fn widths(rows: &[[String; 4]], columns: usize) -> [usize; 4] {
    let room = columns.saturating_sub(5 + 5 * GAP);
    let share = room * 2 / 9;
    let longest = |cell: fn(&[String; 4]) -> &str| {
        rows.iter().map(|row| textwrap::core::display_width(cell(row))).max().unwrap_or(0)
    };
    let needed = [longest(|[vm, ..]| vm), longest(|[_, from, ..]| from), longest(|[_, _, to, _]| to)];
    let [vm, from, to] =
        if needed.iter().sum::<usize>() <= share * 3 { needed } else { needed.map(|width| width.min(share)) };
    [vm, from, to, room.saturating_sub(vm + from + to)].map(|width| width.max(4))
}

/// The ids of the rules that block, or else the reason in words.
fn why(verdict: &Verdict) -> String {
    let blocking = verdict.with_effect(Effect::Block);
    let mut violated: Vec<&str> = blocking
        .filter(|judged| judged.outcome.status == Status::Fail)
        .map(|judged| &*judged.outcome.rule)
        .collect();
    violated.dedup();
    if violated.is_empty() {
        return words::reason(verdict);
    }
    let rules = visible(&violated.join(", ")).into_owned();
    words::simulation(verdict).map_or_else(|| rules.clone(), |simulated| format!("{simulated}; {rules}"))
}
