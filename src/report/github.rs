//! GitHub workflow commands: annotations on the line of the change file that asks for the move.
//!
//! Commands are lines; their text is percent-escaped as the runner unescapes it
//! (actions/toolkit, packages/core/src/command.ts). GitHub shows at most ten errors and ten warnings of a step, so
//! there is one annotation per rule and one per cause.

use std::io::{self, Write};

use vmgate_facts::text::without_commands;
use vmgate_verdict::{Decision, Effect, Move, NoGoReason, Verdict};

use super::{
    by_rule::{RuleGroup, violations},
    visible, waiver_problems, words,
};

/// Most findings of one rule that are named; GitHub cuts long annotations.
const SHOWN: usize = 5;

pub(super) fn write(verdicts: &[Verdict], sink: &mut dyn Write) -> io::Result<()> {
    let mut sink = io::BufWriter::new(sink);
    for verdict in verdicts {
        one(verdict, &mut sink)?;
    }
    let nowhere = Move::default();
    for problem in waiver_problems(verdicts) {
        let title = format!("waiver for {}", problem.rule);
        let about =
            format!("{} ({}; {}, {})", problem.message, problem.matches, problem.owner, problem.ticket);
        annotation("warning", &nowhere, &title, &[about], &mut sink)?;
    }
    for verdict in verdicts {
        let since =
            verdict.since.as_ref().map(|since| format!("; {}", words::since(since))).unwrap_or_default();
        let (word, movement) = (verdict.decision.word(), words::movement(verdict));
        let line = format!("{word} {movement}: {}{since}", words::reason(verdict));
        writeln!(sink, "{}", shown(&line))?;
    }
    if verdicts.is_empty() {
        annotation("error", &nowhere, "vmgate", &["no move was checked".to_owned()], &mut sink)?;
    }
    sink.flush()
}

fn one(verdict: &Verdict, sink: &mut dyn Write) -> io::Result<()> {
    let vm = verdict.moved.vm.label();
    for (effect, level) in [(Effect::Block, "error"), (Effect::Warn, "warning"), (Effect::Note, "notice")] {
        for group in violations(verdict, effect) {
            let title = format!("{vm}: {}", group.first.outcome.rule);
            annotation(level, &verdict.moved, &title, &findings(&group), sink)?;
        }
        for group in verdict.unknown.iter().filter(|group| group.effect == effect) {
            let rules = words::number(group.rules.len(), "rule");
            let mut lines = vec![format!("{rules} cannot be decided: {}", group.rules.join(", "))];
            lines.extend(group.reasons.iter().take(SHOWN).cloned());
            lines.push(format!("Way out: {}", group.way_out));
            annotation(level, &verdict.moved, &format!("{vm}: {}", words::cause(group.cause)), &lines, sink)?;
        }
    }
    for judged in verdict.waived() {
        let Some(waiver) = &judged.waiver else { continue };
        let by = format!("waived by {} ({}) until {}", waiver.owner, waiver.ticket, waiver.until);
        let lines = [words::finding(&judged.outcome), format!("{by}: {}", waiver.reason)];
        annotation(
            "notice",
            &verdict.moved,
            &format!("{vm}: {} (waived)", judged.outcome.rule),
            &lines,
            sink,
        )?;
    }
    if verdict.decision == Decision::NoGo(NoGoReason::NothingEvaluated) {
        annotation("error", &verdict.moved, vm, &[words::reason(verdict)], sink)?;
    }
    Ok(())
}

fn findings(group: &RuleGroup<'_>) -> Vec<String> {
    let mut lines = vec![group.first.outcome.title.to_string()];
    lines.extend(group.all.iter().take(SHOWN).map(|judged| words::finding(&judged.outcome)));
    if group.all.len() > SHOWN {
        lines.push(format!("… and {} more", group.all.len() - SHOWN));
    }
    lines.extend(group.remediations().into_iter().map(|remediation| format!("Fix: {remediation}")));
    lines
}

fn annotation(
    level: &str,
    moved: &Move,
    title: &str,
    lines: &[String],
    sink: &mut dyn Write,
) -> io::Result<()> {
    let place =
        moved.asked_in.as_ref().map(|place| format!("file={},line={},", property(&place.file), place.line));
    let lines: Vec<String> = lines.iter().map(|line| data(line)).collect();
    let place = place.unwrap_or_default();
    writeln!(sink, "::{level} {place}title={}::{}", property(title), lines.join("%0A"))
}

/// Text without the runner's old command notation, `##[…]`, which is recognised anywhere in a line
/// (ActionCommand.TryParse).
fn shown(text: &str) -> String {
    without_commands(&visible(text)).into_owned()
}

fn data(text: &str) -> String {
    shown(text).replace('%', "%25")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use vmgate_verdict::sample;

    use super::*;

    fn written(verdicts: &[Verdict]) -> String {
        let mut out = Vec::new();
        write(verdicts, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_violation_is_an_error_on_the_line_that_asks_for_the_move() {
        let text = written(&[sample::no_go()]);
        let start = "::error file=changes/CHG-2041.yaml,line=12,title=web1%3A destination-memory-fits::";
        assert!(text.contains(start), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("::error ")).count(), 3);
    }

    #[test]
    fn a_guest_cannot_give_commands_to_the_runner() {
        let mut verdict = sample::no_go();
        verdict.moved.vm.name =
            Some("x::\n::add-mask::secret\r\n::error ::a,b%0A::stop-commands ##[error]x".into());
        for judged in &mut verdict.outcomes {
            judged.outcome.message = "y\n::set-env name=PATH::/evil".into();
        }
        let text = written(&[verdict]);
        for line in text.lines() {
            let command = line.trim_start().starts_with("::");
            let ours =
                ["::error file", "::warning ", "::notice file"].iter().any(|own| line.starts_with(own));
            assert!(!command || ours, "{line}");
        }
        assert!(!text.contains("##["));
        let mut commands = text.lines().filter(|line| line.starts_with("::"));
        assert!(
            commands
                .all(|line| !line.contains("%0A::stop") && line.contains("%250A") || line.contains("waiver"))
        );
    }

    #[test]
    fn no_moves_are_an_error() {
        assert_eq!(written(&[]), "::error title=vmgate::no move was checked\n");
    }
}
