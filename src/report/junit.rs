//! JUnit XML, for every CI system's test page: a suite a move, a case an outcome.
//!
//! In JUnit's own terms: a violation that blocks is a failure; missing evidence that blocks is an error, since the
//! test could not be carried out; what is waived or does not apply is skipped, with the reason. Warnings pass with
//! their text as output, and fail under `--strict`.

use std::io::{self, Write};

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::{visible, words};
use crate::{
    rule::{Effect, Status},
    verdict::{Decision, Judged, NoGoReason, Verdict},
};

pub(super) fn write(verdicts: &[Verdict], sink: &mut dyn Write) -> io::Result<()> {
    let mut report = Report::new("vmgate");
    for verdict in verdicts {
        report.add_test_suite(suite(verdict));
    }
    if verdicts.is_empty() {
        let mut suite = TestSuite::new("vmgate");
        suite.add_test_case(nothing("no move was checked"));
        report.add_test_suite(suite);
    }
    report.serialize(sink).map_err(io::Error::other)
}

fn suite(verdict: &Verdict) -> TestSuite {
    let mut suite = TestSuite::new(visible(&words::movement(verdict)).as_ref());
    for (name, value) in [
        ("decision", verdict.decision.word().to_owned()),
        ("reason", words::reason(verdict)),
        ("evaluated_at", verdict.evaluated_at.to_string()),
        ("expires_at", verdict.expires_at.to_string()),
        ("exit_code", verdict.exit_code().code().to_string()),
    ] {
        suite.add_property((name, value.as_str()));
    }
    let digests = &verdict.digests;
    for (name, digest) in [("facts", digests.facts), ("rules", digests.rules), ("waivers", digests.waivers)] {
        if let Some(digest) = digest {
            suite.add_property((format!("{name}_digest").as_str(), digest.to_string().as_str()));
        }
    }
    // A suite in which nothing failed is green everywhere: that nothing was evaluated has to be a case of its own.
    if verdict.decision == Decision::NoGo(NoGoReason::NothingEvaluated) {
        suite.add_test_case(nothing(&words::reason(verdict)));
    }
    suite.add_test_cases(verdict.outcomes.iter().map(|judged| case(judged, verdict.strict)));
    suite
}

fn nothing(message: &str) -> TestCase {
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
    status.set_message(message).set_type("nothing-evaluated");
    TestCase::new("something-was-evaluated", status)
}

fn case(judged: &Judged, strict: bool) -> TestCase {
    let outcome = &judged.outcome;
    let subject = outcome.subject.as_ref().map(|subject| format!(": {subject}")).unwrap_or_default();
    let text = text(judged);
    let mut case =
        TestCase::new(visible(&format!("{}{subject}", outcome.rule)).as_ref(), status(judged, strict));
    case.set_classname(format!("vmgate.{}", outcome.step.word()));
    if matches!(case.status, TestCaseStatus::Success { .. }) && outcome.status != Status::Pass {
        case.set_system_out(text);
    }
    case
}

fn status(judged: &Judged, strict: bool) -> TestCaseStatus {
    let outcome = &judged.outcome;
    if let Some(waiver) = &judged.waiver {
        let by = format!("waived by {} ({}) until {}", waiver.owner, waiver.ticket, waiver.until);
        return skipped(&format!("{by}: {}; {}", waiver.reason, outcome.message));
    }
    let counts =
        judged.effect_now == Some(Effect::Block) || strict && judged.effect_now == Some(Effect::Warn);
    let kind = match outcome.status {
        Status::NotApplicable => return skipped(&format!("not applicable: {}", outcome.message)),
        Status::Fail if counts => NonSuccessKind::Failure,
        Status::Unknown if counts => NonSuccessKind::Error,
        Status::Pass | Status::Fail | Status::Unknown => return TestCaseStatus::success(),
    };
    let mut status = TestCaseStatus::non_success(kind);
    let cause = outcome.missing.first().map_or("", |missing| words::cause(Some(missing.cause)));
    let class = if outcome.status == Status::Unknown { cause } else { outcome.severity.word() };
    status.set_message(visible(&outcome.message).as_ref()).set_type(class).set_description(text(judged));
    status
}

fn skipped(message: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::skipped();
    status.set_message(visible(message).as_ref());
    status
}

/// All there is to say of a finding, a line each.
fn text(judged: &Judged) -> String {
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
    let shown: Vec<_> = lines.iter().map(|line| visible(line)).collect();
    shown.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::{Context, Waivers, decide, sample};

    /// What a reader that knows nothing of quick-junit finds: (suite, case, outcome) of every case.
    fn cases(verdicts: &[Verdict]) -> Vec<(String, String, &'static str)> {
        let mut out = Vec::new();
        write(verdicts, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let document = roxmltree::Document::parse(&text).unwrap();
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
        let context = Context::at(sample::now());
        let empty = decide(vec![], &Waivers::default(), &sample::facts("web1"), &context);
        for verdicts in [vec![], vec![empty]] {
            let cases = cases(&verdicts);
            assert_eq!(cases.len(), 1);
            assert_eq!((cases[0].1.as_str(), cases[0].2), ("something-was-evaluated", "error"));
        }
    }
}
