//! JUnit XML, for the test page of a CI system: one suite per move, one case per outcome.
//!
//! In JUnit's terms: a violation that blocks is a failure; missing evidence that blocks is an error, since the
//! test could not run; a waived or not applicable outcome is skipped, with the reason. Warnings pass with
//! their text as output, and fail under `--strict`. Suites are written one after the other: a tree of all of them
//! would outgrow the verdicts.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, Write},
};

use quick_xml::{
    Writer,
    escape::escape,
    events::{BytesText, attributes::Attribute},
    name::QName,
};
use vmgate_facts::text::between_marks;
use vmgate_verdict::{Decision, Effect, JudgedOutcome, NoGoReason, Status, Verdict};

use super::{visible, words};

type Xml<'a> = Writer<&'a mut dyn Write>;

/// Result of a test case.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CaseResult {
    Success,
    Skipped,
    Failure,
    Error,
}

/// Number of test cases by result.
#[derive(Default)]
struct Totals {
    tests: usize,
    failures: usize,
    errors: usize,
    skipped: usize,
}

impl Totals {
    fn of(kinds: impl Iterator<Item = CaseResult>) -> Self {
        let mut totals = Self::default();
        for kind in kinds {
            totals.tests += 1;
            match kind {
                CaseResult::Success => {}
                CaseResult::Skipped => totals.skipped += 1,
                CaseResult::Failure => totals.failures += 1,
                CaseResult::Error => totals.errors += 1,
            }
        }
        totals
    }

    fn attributes(&self) -> [(&'static str, String); 4] {
        [
            ("tests", self.tests.to_string()),
            ("failures", self.failures.to_string()),
            ("errors", self.errors.to_string()),
            ("skipped", self.skipped.to_string()),
        ]
    }
}

pub(super) fn write(verdicts: &[Verdict], sink: &mut dyn Write) -> io::Result<()> {
    let mut buffered = io::BufWriter::new(sink);
    let mut xml: Xml<'_> = Writer::new_with_indent(&mut buffered, b' ', 2);
    xml.get_mut().write_all(b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n")?;
    let none = verdicts.is_empty().then_some(CaseResult::Error);
    let totals = Totals::of(verdicts.iter().flat_map(kinds).chain(none));
    element(
        "testsuites",
        [("name", "vmgate".to_owned())].into_iter().chain(totals.attributes()),
        &mut xml,
        |xml| {
            if verdicts.is_empty() {
                let attributes = [("name", "vmgate".to_owned())].into_iter().chain(totals.attributes());
                element("testsuite", attributes, xml, |xml| nothing("no move was checked", xml))?;
            }
            verdicts.iter().try_for_each(|verdict| suite(verdict, xml))
        },
    )?;
    xml.get_mut().write_all(b"\n")?;
    buffered.flush()
}

/// Writes an element whose content `inner` writes.
fn element(
    name: &str,
    attributes: impl IntoIterator<Item = (&'static str, String)>,
    xml: &mut Xml<'_>,
    inner: impl FnOnce(&mut Xml<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let attributes: Vec<_> = attributes.into_iter().map(|(name, value)| (name, escaped(&value))).collect();
    let attributes = attributes.iter().map(as_it_stands);
    xml.create_element(name).with_attributes(attributes).write_inner_content(inner).map(|_| ())
}

/// Writes an empty element.
fn empty(
    name: &str,
    attributes: impl IntoIterator<Item = (&'static str, String)>,
    xml: &mut Xml<'_>,
) -> io::Result<()> {
    let attributes: Vec<_> = attributes.into_iter().map(|(name, value)| (name, escaped(&value))).collect();
    let attributes = attributes.iter().map(as_it_stands);
    xml.create_element(name).with_attributes(attributes).write_empty().map(|_| ())
}

/// An attribute whose value is escaped already.
fn as_it_stands<'a>((name, value): &'a (&'static str, String)) -> Attribute<'a> {
    Attribute { key: QName(name), value: Cow::Borrowed(value) }
}

/// Text in XML's escapes. One character of each command of a CI runner is a reference, so that the command is in the value
/// and not in the file.
fn escaped(text: &str) -> String {
    let text = shown(text);
    let mut out = String::with_capacity(text.len() + 16);
    for (part, obeyed) in between_marks(&text) {
        out.push_str(&escape(part));
        if let Some(obeyed) = obeyed {
            let _ = write!(out, "&#{};", u32::from(obeyed)); // writing to a String cannot fail
        }
    }
    out
}

/// Text that is valid in XML: the two characters that `visible` keeps and XML forbids are escaped.
fn shown(text: &str) -> Cow<'_, str> {
    let text = visible(text);
    if text.contains(['\u{fffe}', '\u{ffff}']) {
        return Cow::Owned(text.replace('\u{fffe}', "\\u{fffe}").replace('\u{ffff}', "\\u{ffff}"));
    }
    text
}

/// Results of the cases of a move. CI systems show a suite without failures as green, so "nothing was evaluated" is a
/// case of its own.
fn kinds(verdict: &Verdict) -> impl Iterator<Item = CaseResult> {
    let nothing = nothing_evaluated(verdict).then_some(CaseResult::Error);
    nothing.into_iter().chain(verdict.outcomes.iter().map(|judged| kind(judged, verdict.strict)))
}

fn nothing_evaluated(verdict: &Verdict) -> bool {
    verdict.decision == Decision::NoGo(NoGoReason::NothingEvaluated)
}

fn kind(judged: &JudgedOutcome, strict: bool) -> CaseResult {
    let counts =
        judged.effect_now == Some(Effect::Block) || strict && judged.effect_now == Some(Effect::Warn);
    match judged.outcome.status {
        _ if judged.waiver.is_some() => CaseResult::Skipped,
        Status::NotApplicable => CaseResult::Skipped,
        Status::Fail if counts => CaseResult::Failure,
        Status::Unknown if counts => CaseResult::Error,
        Status::Pass | Status::Fail | Status::Unknown => CaseResult::Success,
    }
}

fn suite(verdict: &Verdict, xml: &mut Xml<'_>) -> io::Result<()> {
    let totals = Totals::of(kinds(verdict));
    // CI systems show the name of a suite, and seldom its properties.
    let simulated = words::simulation(verdict).map(|simulated| format!(" ({simulated})"));
    let attributes = [
        ("name", format!("{}{}", words::movement(verdict), simulated.unwrap_or_default())),
        ("timestamp", verdict.evaluated_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
    ];
    element("testsuite", attributes.into_iter().chain(totals.attributes()), xml, |xml| {
        element("properties", [], xml, |xml| {
            properties(verdict).into_iter().try_for_each(|(name, value)| {
                empty("property", [("name", name.to_owned()), ("value", value)], xml)
            })
        })?;
        if nothing_evaluated(verdict) {
            nothing(&words::reason(verdict), xml)?;
        }
        verdict.outcomes.iter().try_for_each(|judged| case(judged, verdict.strict, xml))
    })
}

fn properties(verdict: &Verdict) -> Vec<(&'static str, String)> {
    let mut properties = vec![
        ("decision", verdict.decision.word().to_owned()),
        ("reason", words::reason(verdict)),
        ("evaluated_at", verdict.evaluated_at.to_string()),
        ("expires_at", verdict.expires_at.to_string()),
        ("exit_code", verdict.exit_code().code().to_string()),
    ];
    properties.extend(verdict.simulated.then(|| ("simulated", "true".to_owned())));
    properties.extend(verdict.since.as_ref().map(|since| ("since", words::since(since))));
    properties.extend(words::basis(verdict).into_iter().map(|line| ("basis", line)));
    let digests = &verdict.digests;
    for (name, digest) in [
        ("facts_digest", digests.facts),
        ("rules_digest", digests.rules),
        ("waivers_digest", digests.waivers),
        ("change_digest", digests.change),
    ] {
        properties.extend(digest.map(|digest| (name, digest.to_string())));
    }
    properties
}

/// The case of a move on which nothing was evaluated.
fn nothing(message: &str, xml: &mut Xml<'_>) -> io::Result<()> {
    let attributes = [("name", "something-was-evaluated".to_owned()), ("classname", "vmgate".to_owned())];
    element("testcase", attributes, xml, |xml| {
        empty("error", [("message", message.to_owned()), ("type", "nothing-evaluated".to_owned())], xml)
    })
}

fn case(judged: &JudgedOutcome, strict: bool, xml: &mut Xml<'_>) -> io::Result<()> {
    let outcome = &judged.outcome;
    let subject = outcome.subject.as_ref().map(|subject| format!(": {subject}")).unwrap_or_default();
    let attributes = [
        ("name", format!("{}{subject}", outcome.rule)),
        ("classname", format!("vmgate.{}", outcome.step.word())),
    ];
    let problem = |tag, class: &str, xml: &mut Xml<'_>| {
        let attributes = [("message", outcome.message.to_string()), ("type", class.to_owned())];
        element(tag, attributes, xml, |xml| written(&text(judged), xml))
    };
    match kind(judged, strict) {
        CaseResult::Success if outcome.status == Status::Pass => empty("testcase", attributes, xml),
        CaseResult::Success => element("testcase", attributes, xml, |xml| {
            element("system-out", [], xml, |xml| written(&text(judged), xml))
        }),
        CaseResult::Skipped => element("testcase", attributes, xml, |xml| {
            empty("skipped", [("message", why_skipped(judged))], xml)
        }),
        CaseResult::Failure => {
            element("testcase", attributes, xml, |xml| problem("failure", outcome.severity.word(), xml))
        }
        CaseResult::Error => {
            let cause = outcome.missing.first().map_or("", |missing| words::cause(Some(missing.cause)));
            element("testcase", attributes, xml, |xml| problem("error", cause, xml))
        }
    }
}

fn written(text: &str, xml: &mut Xml<'_>) -> io::Result<()> {
    let lines: Vec<String> = text.split('\n').map(escaped).collect();
    xml.write_event(quick_xml::events::Event::Text(BytesText::from_escaped(lines.join("\n"))))
}

fn why_skipped(judged: &JudgedOutcome) -> String {
    let outcome = &judged.outcome;
    match &judged.waiver {
        Some(waiver) => {
            let by = format!("waived by {} ({}) until {}", waiver.owner, waiver.ticket, waiver.until);
            format!("{by}: {}; {}", waiver.reason, outcome.message)
        }
        None => format!("not applicable: {}", outcome.message),
    }
}

/// Full text of a finding: title, message, fix, missing facts and evidence, one line each.
fn text(judged: &JudgedOutcome) -> String {
    let outcome = &judged.outcome;
    let standing = match judged.effect_now {
        Some(Effect::Warn) => "warning: ",
        Some(Effect::Note) => "note: ",
        Some(Effect::Block) | None => "",
    };
    let mut lines = vec![format!("{standing}{}", outcome.title), words::finding(outcome)];
    lines.extend(outcome.remediation.iter().map(|remediation| format!("Fix: {remediation}")));
    for missing in &outcome.missing {
        let way_out = missing.cause.way_out();
        lines.push(format!("{} is not known: {}. Way out: {way_out}", missing.path, missing.reason));
    }
    lines.extend(outcome.evidence.iter().map(|evidence| format!("{} = {}", evidence.path, evidence.value)));
    let lines: Vec<_> = lines.iter().map(|line| visible(line)).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use vmgate_verdict::{DecisionContext, Waivers, decide, sample};

    use super::*;

    /// Every case of a report as an independent reader sees it: (suite, case, outcome).
    fn cases(verdicts: &[Verdict]) -> Vec<(String, String, &'static str)> {
        let mut out = Vec::new();
        write(verdicts, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let document = vmgate_facts::xml::parse(&text).unwrap();
        assert_eq!(document.root_element().tag_name().name(), "testsuites");
        let mut found = Vec::new();
        for case in document.descendants().filter(|node| node.has_tag_name("testcase")) {
            let has = |name| case.children().any(|child| child.has_tag_name(name));
            let mut kinds = ["failure", "error", "skipped"].into_iter().filter(|kind| has(*kind));
            let suite = case.parent().unwrap().attribute("name").unwrap();
            let kind = kinds.next_back().unwrap_or("success");
            found.push((suite.to_owned(), case.attribute("name").unwrap().to_owned(), kind));
        }
        found
    }

    #[test]
    fn every_outcome_is_a_case_in_junits_own_terms() {
        let kinds: Vec<_> = cases(&[sample::no_go()])
            .into_iter()
            .map(|(_, name, kind)| (name.split(':').next().unwrap().to_owned(), kind))
            .collect();
        let expected = [
            ("destination-memory-fits", "failure"),
            ("tcp-retransmission-budget", "failure"),
            ("tcp-retransmission-budget", "failure"),
            ("memory-sync-survives-blackout", "error"),
            ("migration-nic-dedicated", "success"),
            ("udp-listeners-known", "success"),
            ("no-uninterruptible-process", "success"),
            ("tcp-retransmission-budget", "skipped"),
            ("vm-is-running", "success"),
            ("machine-type-supported", "success"),
            ("no-rdma-or-dpdk", "skipped"),
        ];
        assert_eq!(kinds, expected.map(|(name, kind)| (name.to_owned(), kind)));
    }

    #[test]
    fn warnings_fail_under_strict() {
        let verdict = Verdict { strict: true, ..sample::no_go() };
        let failed =
            cases(&[verdict]).into_iter().filter(|(_, _, kind)| matches!(*kind, "failure" | "error"));
        assert_eq!(failed.count(), 6);
    }

    #[test]
    fn nothing_evaluated_is_not_green() {
        let context = DecisionContext::at(sample::now());
        let empty = decide(vec![], &Waivers::default(), &sample::facts("web1"), &context);
        for verdicts in [vec![], vec![empty]] {
            let cases = cases(&verdicts);
            assert_eq!(cases.len(), 1);
            assert_eq!((cases[0].1.as_str(), cases[0].2), ("something-was-evaluated", "error"));
        }
    }
}
