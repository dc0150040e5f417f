//! CSV: one line per outcome, for spreadsheets (RFC 4180, with a header).
//!
//! A spreadsheet evaluates cells that begin with `=`, `+`, `-` or `@`: such cells get an apostrophe in front, which
//! marks them as text (OWASP, CSV injection).

use std::io::{self, Write};

use vmgate_verdict::{Effect, Finding, JudgedOutcome, Verdict};

use super::{visible, words};

const HEADER: [&str; 27] = [
    "vm",
    "vm_uuid",
    "source",
    "destination",
    "change",
    "decision",
    "exit_code",
    "evaluated_at",
    "expires_at",
    "rule",
    "title",
    "step",
    "severity",
    "effect",
    "on_unknown",
    "status",
    "effect_now",
    "subject",
    "message",
    "remediation",
    "causes",
    "waived_by",
    "waiver_ticket",
    "waiver_reason",
    "waived_until",
    "since_baseline",
    "basis",
];

pub(super) fn write(verdicts: &[Verdict], sink: &mut dyn Write) -> io::Result<()> {
    let mut sink = io::BufWriter::new(sink);
    record(HEADER, &mut sink)?;
    for verdict in verdicts {
        let about = about(verdict);
        let basis = words::basis(verdict).join("; ");
        let basis = std::iter::once(basis.as_str());
        // A move without any outcome must still be in the list.
        if verdict.outcomes.is_empty() {
            record(about.iter().map(String::as_str).chain([""; 17]).chain(basis.clone()), &mut sink)?;
        }
        for judged in &verdict.outcomes {
            let outcome = outcome(judged, verdict);
            record(about.iter().chain(&outcome).map(String::as_str).chain(basis.clone()), &mut sink)?;
        }
    }
    sink.flush()
}

fn about(verdict: &Verdict) -> [String; 9] {
    let moved = &verdict.moved;
    [
        moved.vm.label().to_owned(),
        moved.vm.uuid.as_ref().map(ToString::to_string).unwrap_or_default(),
        moved.source.label().to_owned(),
        moved.destination.label().to_owned(),
        verdict.change.id.clone().unwrap_or_default(),
        decision(verdict),
        verdict.exit_code().code().to_string(),
        verdict.evaluated_at.to_string(),
        verdict.expires_at.to_string(),
    ]
}

/// GO or NO-GO. A simulated one is another value, which a filter on GO does not find.
fn decision(verdict: &Verdict) -> String {
    let simulated = if verdict.simulated { " (simulated)" } else { "" };
    format!("{}{simulated}", verdict.decision.word())
}

fn outcome(judged: &JudgedOutcome, verdict: &Verdict) -> [String; 17] {
    let outcome = &judged.outcome;
    let waiver = judged.waiver.as_ref();
    let mut causes: Vec<&str> =
        outcome.missing.iter().map(|missing| words::cause(Some(missing.cause))).collect();
    causes.sort_unstable();
    causes.dedup();
    [
        outcome.rule.to_string(),
        outcome.title.to_string(),
        outcome.step.word().to_owned(),
        outcome.severity.word().to_owned(),
        outcome.effect.word().to_owned(),
        outcome.on_unknown.word().to_owned(),
        outcome.status.word().to_owned(),
        judged.effect_now.map(Effect::word).unwrap_or_default().to_owned(),
        outcome.subject.clone().unwrap_or_default(),
        outcome.message.to_string(),
        outcome.remediation.clone().unwrap_or_default(),
        causes.join("; "),
        waiver.map(|waiver| waiver.owner.clone()).unwrap_or_default(),
        waiver.map(|waiver| waiver.ticket.clone()).unwrap_or_default(),
        waiver.map(|waiver| waiver.reason.clone()).unwrap_or_default(),
        waiver.map(|waiver| waiver.until.to_string()).unwrap_or_default(),
        trend(judged, verdict).unwrap_or_default().to_owned(),
    ]
}

/// Change of a finding since the baseline; `None` without a baseline or for an outcome that is not a finding. An outcome
/// that passes now and did not pass then is fixed.
fn trend(judged: &JudgedOutcome, verdict: &Verdict) -> Option<&'static str> {
    let since = verdict.since.as_ref()?;
    let outcome = &judged.outcome;
    let fixed = |finding: &Finding| *finding.rule == *outcome.rule && finding.subject == outcome.subject;
    match since.trend(judged) {
        Some(trend) => Some(trend.word()),
        None => since.fixed.iter().any(fixed).then_some("fixed"),
    }
}

fn record<'a>(cells: impl IntoIterator<Item = &'a str>, sink: &mut dyn Write) -> io::Result<()> {
    for (position, text) in cells.into_iter().enumerate() {
        if position > 0 {
            sink.write_all(b",")?;
        }
        sink.write_all(cell(text).as_bytes())?;
    }
    sink.write_all(b"\r\n")
}

fn cell(text: &str) -> String {
    let text = visible(text);
    let first = text.trim_start().chars().next();
    // The full-width forms too: some spreadsheets treat them like the ASCII characters.
    let evaluated = matches!(first, Some('=' | '+' | '-' | '@' | '＝' | '＋' | '－' | '＠'));
    let apostrophe = if evaluated { "'" } else { "" };
    if evaluated || text.contains(['"', ',', ';', '\'']) {
        format!("\"{apostrophe}{}\"", text.replace('"', "\"\""))
    } else {
        text.into_owned()
    }
}

#[cfg(test)]
mod tests {
    use vmgate_verdict::{DecisionContext, Waivers, decide, sample};

    use super::*;

    #[test]
    fn nothing_is_evaluated_by_a_spreadsheet() {
        for (text, shown) in [
            ("web1", "web1"),
            ("=cmd|' /C calc'!A0", "\"'=cmd|' /C calc'!A0\""),
            ("+1", "\"'+1\""),
            ("-1", "\"'-1\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("  =1", "\"'  =1\""),
            ("\t=1", "\"' =1\""),
            ("＝1", "\"'＝1\""),
            ("a,\"b\"", "\"a,\"\"b\"\"\""),
            ("a\r\nb", r"a\u{d} b"),
        ] {
            assert_eq!(cell(text), shown);
        }
    }

    #[test]
    fn every_line_has_every_column() {
        let empty =
            decide(vec![], &Waivers::default(), &sample::facts("web1"), &DecisionContext::at(sample::now()));
        let mut out = Vec::new();
        write(&[sample::no_go(), sample::go(), empty], &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let mut lines = 0;
        for line in text.split_terminator("\r\n") {
            let mut quoted = false;
            let commas = line.chars().filter(|c| {
                quoted ^= *c == '"';
                *c == ',' && !quoted
            });
            assert_eq!(commas.count() + 1, HEADER.len(), "{line}");
            lines += 1;
        }
        assert_eq!(lines, 1 + 11 + 3 + 1);
    }
}
