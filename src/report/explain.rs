//! Explanation of one outcome: its verdict, the finding, the rule, the facts with the origin of each, the missing
//! facts, and the way out.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use vmgate_rules::Rule;
use vmgate_verdict::{Effect, Evidence, JudgedOutcome, Status, Verdict};

use super::{Style, style::Paint, visible, words, wrap::fill};

/// Writes the explanation of `judged`, an outcome of `verdict`. The flag beside the rule is true if the verdict was made
/// with the same rules and parameters.
pub fn explain(
    verdict: &Verdict,
    judged: &JudgedOutcome,
    rule: Option<(&Rule, bool)>,
    sink: &mut dyn Write,
    style: &Style,
) -> io::Result<()> {
    let mut page = Page { sink, style };
    page.head(verdict, judged)?;
    page.found(judged)?;
    match rule {
        Some((rule, same)) => page.rule(rule, same)?,
        None => {
            page.section("The rule", ["this rule is not loaded: name its folder with --rules".to_owned()])?;
        }
    }
    page.facts(verdict, judged)?;
    page.waiver(judged)?;
    page.way_out(judged)?;
    writeln!(page.sink)
}

struct Page<'a> {
    sink: &'a mut dyn Write,
    style: &'a Style,
}

impl Page<'_> {
    fn line(&mut self, indent: usize, text: &str) -> io::Result<()> {
        let (first, next) = (" ".repeat(indent), " ".repeat(indent + 2));
        writeln!(self.sink, "{}", fill(&visible(text), &first, &next, self.style.columns()))
    }

    fn title(&mut self, title: &str) -> io::Result<()> {
        writeln!(self.sink, "\n{}", self.style.paint(Paint::Strong, title))
    }

    fn section(&mut self, title: &str, lines: impl IntoIterator<Item = String>) -> io::Result<()> {
        self.title(title)?;
        lines.into_iter().try_for_each(|line| self.line(2, &line))
    }

    fn head(&mut self, verdict: &Verdict, judged: &JudgedOutcome) -> io::Result<()> {
        let word = verdict.decision.word();
        self.line(0, &format!("{word}  {}: {}", words::movement(verdict), words::reason(verdict)))?;
        let (at, until) = (words::time(verdict.evaluated_at), words::time(verdict.expires_at));
        self.line(
            2,
            &format!(
                "evaluated {at}, valid until {until}, by {} {}",
                verdict.tool.name, verdict.tool.version
            ),
        )?;
        let outcome = &judged.outcome;
        let effect = match (&judged.waiver, judged.effect_now) {
            (Some(_), _) => "waived",
            (None, None) => "no effect",
            (None, Some(Effect::Note)) => "noted",
            (None, Some(Effect::Warn)) => "warns",
            (None, Some(Effect::Block)) => "blocks",
        };
        let status = outcome.status.word();
        self.title(&visible(&outcome.rule))?;
        self.line(
            2,
            &format!(
                "{status}, {effect}; severity {}, step {}",
                outcome.severity.word(),
                outcome.step.word()
            ),
        )?;
        self.line(2, &outcome.title)
    }

    fn found(&mut self, judged: &JudgedOutcome) -> io::Result<()> {
        self.section("What was found", [words::finding(&judged.outcome)])
    }

    fn rule(&mut self, rule: &Rule, same: bool) -> io::Result<()> {
        self.title("The rule")?;
        if !same {
            self.line(2, "(as loaded now; the verdict was made with other rules or parameters)")?;
        }
        let texts = &rule.texts;
        let mut expressions: Vec<(String, &str)> = Vec::new();
        expressions.extend(texts.when.as_deref().map(|text| ("when".to_owned(), text)));
        expressions
            .extend(texts.foreach.iter().map(|(name, text)| (format!("foreach {name} in"), text.as_str())));
        expressions.extend(texts.lets.iter().map(|(name, text)| (format!("let {name} ="), text.as_str())));
        expressions.push(("assert".to_owned(), &texts.assert));
        for (word, text) in expressions {
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            self.line(2, &format!("{word} {text}"))?;
        }
        for param in &rule.params {
            self.line(
                2,
                &format!("params.{} = {} (set by {}): {}", param.name, param.value, param.origin, param.help),
            )?;
        }
        self.line(2, &format!("read from {}", rule.file))?;
        self.section("Why it matters", rule.rationale.lines().map(str::to_owned).collect::<Vec<_>>())
    }

    fn facts(&mut self, verdict: &Verdict, judged: &JudgedOutcome) -> io::Result<()> {
        let outcome = &judged.outcome;
        if outcome.evidence.is_empty() && outcome.missing.is_empty() {
            return self.section("The facts", ["the verdict names no facts for this outcome".to_owned()]);
        }
        self.title("The facts")?;
        for evidence in &outcome.evidence {
            self.line(2, &format!("{} = {}", evidence.path, evidence.value))?;
            self.line(6, &origin(evidence, verdict))?;
        }
        for missing in &outcome.missing {
            self.line(2, &format!("{} is not known", missing.path))?;
            self.line(6, &format!("{}: {}", words::cause(Some(missing.cause)), missing.reason))?;
        }
        Ok(())
    }

    fn waiver(&mut self, judged: &JudgedOutcome) -> io::Result<()> {
        let Some(waiver) = &judged.waiver else { return Ok(()) };
        let by = format!("by {} ({}) until {}: {}", waiver.owner, waiver.ticket, waiver.until, waiver.reason);
        self.section("Waived", [by])
    }

    fn way_out(&mut self, judged: &JudgedOutcome) -> io::Result<()> {
        let outcome = &judged.outcome;
        if matches!(outcome.status, Status::Pass | Status::NotApplicable) {
            return Ok(());
        }
        // An open question first needs its answer.
        let causes: BTreeSet<_> = outcome.missing.iter().map(|missing| missing.cause).collect();
        let answers: Vec<_> = causes.into_iter().map(|cause| cause.way_out().to_owned()).collect();
        let remedy: Vec<_> =
            outcome.remediation.iter().flat_map(|text| text.lines()).map(str::to_owned).collect();
        let title = if answers.is_empty() { "What to do" } else { "What the rule advises" };
        if !answers.is_empty() {
            self.section("What to do", answers)?;
        }
        if remedy.is_empty() { Ok(()) } else { self.section(title, remedy) }
    }
}

/// Origin of a fact: collector, method, time, and age at the evaluation.
fn origin(evidence: &Evidence, verdict: &Verdict) -> String {
    let derived = ["forecast.", "params.", "now"].iter().any(|root| evidence.path.starts_with(root));
    let source = match &evidence.source {
        Some(source) => format!("from {source}"),
        None if derived => "calculated from other facts, not observed".to_owned(),
        None if evidence.path.starts_with("change.") => "set for this move by the operator".to_owned(),
        None => "the source is not recorded in the facts".to_owned(),
    };
    match evidence.at {
        Some(at) => format!(
            "{source}, {}, {} before the evaluation",
            words::time(at),
            words::age(at, verdict.evaluated_at)
        ),
        None => source,
    }
}

#[cfg(test)]
mod tests {
    use vmgate_verdict::sample;

    use super::*;

    fn explained(rule: &str) -> String {
        let verdict = sample::no_go();
        let judged = verdict.outcomes.iter().find(|judged| &*judged.outcome.rule == rule).unwrap();
        let mut out = Vec::new();
        explain(&verdict, judged, None, &mut out, &Style::default()).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_fact_says_where_it_came_from_and_how_old_it_was() {
        let text = explained("tcp-retransmission-budget");
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            text.contains(
                "from guest agent: guest-file-read /proc/net/tcp, 2026-11-23 09:58:04Z, 1 min 56 s"
            ),
            "{text}"
        );
        assert!(text.contains("calculated from other facts"), "{text}");
    }

    #[test]
    fn what_is_missing_is_named_with_its_cause_and_the_way_out() {
        let text = explained("memory-sync-survives-blackout");
        assert!(
            text.contains("guest.memory_sync is not known") && text.contains("agent forbids it"),
            "{text}"
        );
        assert!(
            text.contains(vmgate_facts::Cause::AgentForbids.way_out().split(' ').next().unwrap()),
            "{text}"
        );
    }

    #[test]
    fn nothing_is_obeyed_by_a_terminal_and_no_line_is_too_wide() {
        let text = explained("no-uninterruptible-process");
        assert!(!text.chars().any(|c| c != '\n' && vmgate_facts::text::is_control_or_hidden(c)), "{text}");
        assert!(text.lines().all(|line| textwrap::core::display_width(line) <= 80), "{text}");
    }
}
