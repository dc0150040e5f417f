//! The comparison of settings for a terminal, where the move as it is set misses its goals, or on request.

use std::io::{self, Write};

use tabled::{
    builder::Builder,
    settings::{Padding, Style as Lines},
};
use vmgate_verdict::Verdict;

use super::super::{
    Style,
    settings::{COLUMNS, SettingRow, present_settings_do, rows},
    style::Paint,
    visible,
    wrap::fill,
};

/// Width of the three columns of figures, with a space after each.
const FIGURES: usize = 27;

/// Writes the table; nothing where the present settings do, unless the style is verbose.
pub(super) fn write(verdict: &Verdict, sink: &mut dyn Write, style: &Style) -> io::Result<()> {
    let rows = rows(verdict);
    let suffices = verdict.forecast.as_ref().is_some_and(present_settings_do);
    if rows.is_empty() || suffices && !style.verbose {
        return Ok(());
    }
    let named = style.columns() / 4 + 3;
    let costs = style.columns().saturating_sub(named + 1 + FIGURES);
    let mut builder = Builder::default();
    builder.push_record(COLUMNS);
    for SettingRow { setting, total, blackout, completes, costs: text } in rows {
        let cell = |text: &str, width| fill(&visible(text), "", " ", width);
        builder.push_record([cell(&setting, named), total, blackout, completes, cell(&text, costs)]);
    }
    let mut table = builder.build();
    table.with(Lines::empty()).with(Padding::new(0, 1, 0, 0));
    writeln!(sink, "\n{}", style.paint(Paint::Strong, "Settings compared"))?;
    for line in table.to_string().lines() {
        writeln!(sink, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use vmgate_facts::{Alternative, Fact};
    use vmgate_verdict::sample;

    use super::*;

    fn written(verdict: &Verdict, verbose: bool) -> String {
        let mut out = Vec::new();
        write(verdict, &mut out, &Style { verbose, ..Style::default() }).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_table_fits_a_terminal_and_is_shown_where_another_setting_is_needed() {
        let mut verdict = sample::go();
        let text = written(&verdict, true);
        assert!(text.contains("present settings") && text.contains("auto-converge"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let forecast = verdict.forecast.as_mut().unwrap();
        let mut present = forecast.alternatives.known().unwrap()[0].clone();
        present.setting = Alternative::PRESENT.to_owned();
        forecast.recommended = Fact::Known(Some(present));
        assert_eq!(written(&verdict, false), "");
        verdict.forecast.as_mut().unwrap().recommended = Fact::Known(None);
        assert!(written(&verdict, false).contains("Settings compared"));
    }
}
