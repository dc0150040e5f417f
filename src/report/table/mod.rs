//! The report for a terminal: the decision first, then blocking findings with their way out, then the rest.

mod audit;
mod chart;
mod differences;
mod grid;
mod overview;
mod settings;

use std::io::{self, Write};

use vmgate_verdict::{Decision, Effect, JudgedOutcome, Status, UnknownGroup, Verdict, WaiverProblem};

use super::{
    Style,
    baseline::baseline_entries,
    by_rule::{RuleGroup, by_rule, violations},
    style::Paint,
    visible, waiver_problems, words,
    wrap::wrap,
};
use crate::report::table::grid::{Grid, Line, Row};
pub(super) use crate::report::table::{audit::write as write_audit, differences::differences};

/// Most findings of one rule that are shown; the rest is only counted, unless the report is verbose.
const SHOWN: usize = 5;

pub(super) fn write(verdicts: &[Verdict], sink: &mut dyn Write, style: &Style) -> io::Result<()> {
    let mut sink = io::BufWriter::new(sink);
    match verdicts {
        [] => writeln!(sink, "No move was checked.")?,
        [verdict] => one(verdict, &mut sink, style)?,
        several => {
            for verdict in several.iter().filter(|v| style.verbose || needs_attention(v)) {
                one(verdict, &mut sink, style)?;
                writeln!(sink)?;
            }
            overview::write(several, &mut sink, style)?;
        }
    }
    sink.flush()
}

/// True if the move needs action: of several moves only these are shown in full.
fn needs_attention(verdict: &Verdict) -> bool {
    verdict.counts.blocking + verdict.counts.warnings > 0 || matches!(verdict.decision, Decision::NoGo(_))
}

fn one(verdict: &Verdict, sink: &mut dyn Write, style: &Style) -> io::Result<()> {
    head(verdict, sink, style)?;
    chart::write(verdict, sink, style)?;
    settings::write(verdict, sink, style)?;
    let paint = |effect| if effect == Effect::Block { Paint::Bad } else { Paint::Warning };
    for (effect, title) in
        [(Effect::Block, "What blocks"), (Effect::Warn, "Warnings"), (Effect::Note, "Notes")]
    {
        let mut grid = Grid::new(style);
        for group in violations(verdict, effect) {
            grid.push(violation(&group, effect, style));
        }
        for group in verdict.unknown.iter().filter(|group| group.effect == effect) {
            grid.push(missing(group, paint(effect)));
        }
        grid.write(title, sink)?;
    }
    alternatives(verdict, sink, style)?;
    trends(verdict, sink, style)?;
    waived(verdict, sink, style)?;
    problems(&waiver_problems(std::slice::from_ref(verdict)), sink, style)?;
    passed(verdict, sink, style)
}

fn head(verdict: &Verdict, sink: &mut dyn Write, style: &Style) -> io::Result<()> {
    let paint = match verdict.decision {
        Decision::Go(_) => Paint::Good,
        Decision::NoGo(_) => Paint::Bad,
    };
    let word = verdict.decision.word();
    let indent = " ".repeat(word.len() + 2);
    let mut lines = vec![visible(&words::movement(verdict)).into_owned(), words::reason(verdict)];
    let (at, until) = (words::time(verdict.evaluated_at), words::time(verdict.expires_at));
    lines.push(format!("evaluated {at}, valid until {until}"));
    lines.extend(words::basis(verdict).iter().map(|line| visible(line).into_owned()));
    lines.extend(verdict.since.as_ref().map(words::since));
    if verdict.expires_at <= verdict.evaluated_at {
        lines.push(
            "already expired: the facts are too old to act on, or dated later; collect them again".to_owned(),
        );
    }
    let width = style.columns().saturating_sub(indent.len());
    let lines = lines.iter().flat_map(|line| wrap(line, "", "", width));
    for (position, line) in lines.enumerate() {
        let lead = if position == 0 { format!("{}  ", style.paint(paint, word)) } else { indent.clone() };
        writeln!(sink, "{lead}{line}")?;
    }
    Ok(())
}

fn violation(group: &RuleGroup<'_>, effect: Effect, style: &Style) -> Row {
    let first = &group.first.outcome;
    let paint = match effect {
        Effect::Block => Some(Paint::Bad),
        Effect::Warn => Some(Paint::Warning),
        Effect::Note => None,
    };
    let mut lines = vec![Line::plain(visible(&first.rule))];
    let shown = if style.verbose { group.all.len() } else { SHOWN };
    for judged in group.all.iter().take(shown) {
        lines.push(Line::plain(visible(&words::finding(&judged.outcome))));
        evidence(judged, &mut lines, style);
    }
    if group.all.len() > shown {
        lines.push(Line::plain(format!("… and {} more; --verbose shows all", group.all.len() - shown)));
    }
    for remediation in group.remediations() {
        for (position, text) in remediation.trim_end().lines().enumerate() {
            lines.push(Line::after(if position == 0 { "Fix: " } else { "     " }, visible(text)));
        }
    }
    Row { key: format!("{}\n{}", first.severity.word(), first.step.word()), paint, lines }
}

fn evidence(judged: &JudgedOutcome, lines: &mut Vec<Line>, style: &Style) {
    if !style.verbose {
        return;
    }
    for evidence in &judged.outcome.evidence {
        let source = evidence.source.as_ref().map(|source| format!(", {source}")).unwrap_or_default();
        let at = evidence.at.map(|at| format!(", {}", words::time(at))).unwrap_or_default();
        let line = format!("{} = {}{source}{at}", evidence.path, evidence.value);
        lines.push(Line::after("  ", visible(&line)));
    }
    for missing in &judged.outcome.missing {
        let line = format!("{} is not known: {}", missing.path, missing.reason);
        lines.push(Line::after("  ", visible(&line)));
    }
}

fn missing(group: &UnknownGroup, paint: Paint) -> Row {
    let rules = words::number(group.rules.len(), "rule");
    let mut lines =
        vec![Line::plain(format!("{rules} cannot be decided: {}", visible(&group.rules.join(", "))))];
    lines.extend(group.reasons.iter().take(SHOWN).map(|reason| Line::plain(visible(reason))));
    if group.reasons.len() > SHOWN {
        let more = group.reasons.len() - SHOWN;
        lines.push(Line::plain(format!("… and {more} more reasons in the JSON report")));
    }
    lines.push(Line::after("Way out: ", visible(&group.way_out)));
    Row { key: words::cause(group.cause).to_owned(), paint: Some(paint), lines }
}

/// Writes the other destinations that were judged, best first.
fn alternatives(verdict: &Verdict, sink: &mut dyn Write, style: &Style) -> io::Result<()> {
    let mut grid = Grid::new(style);
    for other in &verdict.alternatives {
        let paint = match other.decision {
            Decision::Go(_) => None,
            Decision::NoGo(_) => Some(Paint::Bad),
        };
        let mut lines = vec![Line::plain(visible(&words::alternative(other)))];
        let reasons = if style.verbose { other.reasons.len() } else { SHOWN };
        lines.extend(other.reasons.iter().take(reasons).map(|reason| Line::after("  ", visible(reason))));
        if other.reasons.len() > reasons {
            lines.push(Line::plain(format!(
                "… and {} more; --verbose shows all",
                other.reasons.len() - reasons
            )));
        }
        grid.push(Row { key: other.decision.word().to_owned(), paint, lines });
    }
    grid.write("Other destinations", sink)
}

/// Writes the changes since the baseline.
fn trends(verdict: &Verdict, sink: &mut dyn Write, style: &Style) -> io::Result<()> {
    let mut grid = Grid::new(style);
    for entry in verdict.since.iter().flat_map(baseline_entries) {
        let mut lines = vec![Line::plain(visible(entry.rule))];
        lines.extend(entry.lines.iter().map(|line| Line::plain(visible(line))));
        let paint = (entry.word == "new").then_some(Paint::Bad);
        grid.push(Row { key: entry.word.to_owned(), paint, lines });
    }
    grid.write("Since the baseline", sink)
}

fn waived(verdict: &Verdict, sink: &mut dyn Write, style: &Style) -> io::Result<()> {
    let mut grid = Grid::new(style);
    for group in by_rule(verdict.waived()) {
        let mut lines = vec![Line::plain(visible(&group.first.outcome.rule))];
        for judged in &group.all {
            lines.push(Line::plain(visible(&words::finding(&judged.outcome))));
            if let Some(waiver) = &judged.waiver {
                let by = format!("waived by {} ({}): {}", waiver.owner, waiver.ticket, waiver.reason);
                lines.push(Line::after("  ", visible(&by)));
            }
        }
        let until = group.first.waiver.as_ref().map(|waiver| waiver.until.to_string()).unwrap_or_default();
        grid.push(Row { key: format!("until\n{until}"), paint: None, lines });
    }
    grid.write("Waived", sink)
}

fn problems(problems: &[&WaiverProblem], sink: &mut dyn Write, style: &Style) -> io::Result<()> {
    let mut grid = Grid::new(style);
    for problem in problems {
        let about = format!("{} ({}; {}, {})", problem.rule, problem.matches, problem.owner, problem.ticket);
        let lines = vec![Line::plain(visible(&about)), Line::plain(visible(&problem.message))];
        grid.push(Row { key: words::fault(problem.fault).to_owned(), paint: Some(Paint::Warning), lines });
    }
    grid.write("Waivers with problems", sink)
}

fn passed(verdict: &Verdict, sink: &mut dyn Write, style: &Style) -> io::Result<()> {
    if style.verbose {
        for (status, title) in [(Status::Pass, "Passed"), (Status::NotApplicable, "Not applicable")] {
            let mut grid = Grid::new(style);
            for group in by_rule(verdict.outcomes.iter().filter(|judged| judged.outcome.status == status)) {
                grid.push(Row { paint: None, ..violation(&group, Effect::Note, style) });
            }
            grid.write(title, sink)?;
        }
        return digests(verdict, sink);
    }
    let counts = verdict.counts;
    writeln!(sink)?;
    writeln!(sink, "{} passed, {} not applicable.", counts.pass, counts.not_applicable)
}

fn digests(verdict: &Verdict, sink: &mut dyn Write) -> io::Result<()> {
    writeln!(sink, "\n{} {}", verdict.tool.name, verdict.tool.version)?;
    let d = &verdict.digests;
    for (name, digest) in
        [("facts", d.facts), ("rules", d.rules), ("waivers", d.waivers), ("change", d.change)]
    {
        if let Some(digest) = digest {
            writeln!(sink, "{name:8}{digest}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use vmgate_verdict::{DecisionContext, Outcome, Waivers, decide, sample};

    use super::*;

    fn written(verdicts: &[Verdict], style: &Style) -> String {
        let mut out = Vec::new();
        write(verdicts, &mut out, style).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn widest(text: &str) -> usize {
        text.lines().map(textwrap::core::display_width).max().unwrap_or(0)
    }

    fn verdict_on(outcomes: Vec<Outcome>) -> Verdict {
        decide(outcomes, &Waivers::default(), &sample::facts("web1"), &DecisionContext::at(sample::now()))
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_the_table_never_below_sixty() {
        let verdicts = [sample::no_go(), sample::go()];
        for (width, limit) in [(0, 60), (60, 60), (80, 80), (200, 200)] {
            for verbose in [false, true] {
                let style = Style { width, verbose, ..Style::default() };
                // The digests of the verbose report are 79 wide: they are for copying and stay whole.
                let limit = if verbose { limit.max(79) } else { limit };
                assert!(widest(&written(&verdicts, &style)) <= limit, "at {width}, verbose {verbose}");
            }
        }
    }

    #[test]
    fn names_without_end_do_not_break_the_width() {
        let mut verdict = sample::no_go();
        verdict.moved.vm.name = Some("仮".repeat(300));
        verdict.moved.source.name = Some("h".repeat(300));
        verdict.outcomes[0].outcome.message = "x".repeat(500).into();
        let text = written(&[verdict, sample::go()], &Style::default());
        assert!(widest(&text) <= 80);
    }

    #[test]
    fn without_colour_nothing_is_left_that_a_terminal_obeys() {
        let text = written(&[sample::no_go(), sample::go()], &Style { verbose: true, ..Style::default() });
        assert!(!text.chars().any(|c| c != '\n' && vmgate_facts::text::is_control_or_hidden(c)));
        assert!(text.contains(r"\u{1b}]0;owned\u{7}"));
    }

    #[test]
    fn colour_is_used_where_it_means_something_and_only_if_allowed() {
        let text = written(&[sample::no_go()], &Style { colour: true, ..Style::default() });
        assert!(text.starts_with("\u{1b}[1;31mNO-GO\u{1b}[0m  web1"));
        let codes = text.matches('\u{1b}').count();
        assert!(codes > 10 && codes < 60, "{codes}");
    }

    #[test]
    fn many_findings_of_one_rule_are_a_number_unless_verbose() {
        let outcomes = (0..200).map(|n| Outcome {
            subject: Some(format!("peer {n}")),
            ..sample::outcome("tcp-retransmission-budget", Status::Fail)
        });
        let verdict = verdict_on(outcomes.collect());
        let text = written(std::slice::from_ref(&verdict), &Style::default());
        assert!(text.contains("… and 195 more") && text.lines().count() < 20, "{text}");
        let text = written(&[verdict], &Style { verbose: true, ..Style::default() });
        assert!(!text.contains("more;") && text.lines().count() > 200);
    }

    #[test]
    fn several_moves_end_with_an_overview_and_show_in_full_only_what_needs_attention() {
        let text = written(&[sample::go(), sample::no_go()], &Style::default());
        assert!(text.starts_with("NO-GO  web1"), "{text}");
        let end: Vec<&str> = text.lines().rev().take(6).collect();
        assert_eq!(end[0], "Exit code 20: NO-GO: a rule is violated.");
        assert!(end.iter().any(|line| line.starts_with("GO     idle1")), "{text}");
    }

    #[test]
    fn nothing_evaluated_and_expired_evidence_are_said() {
        let mut verdict = verdict_on(vec![]);
        verdict.expires_at = verdict.evaluated_at;
        let text = written(&[verdict], &Style::default());
        assert!(text.contains("NO-GO  web1") && text.contains("no rules were loaded"), "{text}");
        assert!(text.contains("already expired"), "{text}");
        assert_eq!(written(&[], &Style::default()), "No move was checked.\n");
    }
}
