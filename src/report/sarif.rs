//! SARIF 2.1.0 (OASIS), for code scanning and for viewers of many tools' results.
//!
//! In SARIF's terms: a violation is of kind `fail` with a level; an undecided outcome is `open`; a pass is
//! `pass`; a rule that does not apply is `notApplicable`; a waiver is an accepted external suppression; the change of a
//! finding since a baseline is its baseline state. The location is the
//! line of the change file that asks for the move. Only the parts of SARIF that vmgate writes are modelled here.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Write},
    sync::Arc,
};

use serde::{Serialize, Serializer};
use serde_json::json;
use vmgate_attest::Digest;
use vmgate_verdict::{
    Effect, Evidence, ExitCode, JudgedOutcome, Missing, Move, NameAndUuid, Outcome, Severity, Status, Trend,
    Verdict,
};

use super::{json, visible, words};
use vmgate_facts::Uuid;

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

#[derive(Serialize)]
struct Log<'a> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    version: &'static str,
    runs: [Run<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Run<'a> {
    tool: serde_json::Value,
    automation_details: serde_json::Value,
    invocations: [serde_json::Value; 1],
    column_kind: &'static str,
    results: Results<'a>,
}

/// The results, made one by one while they are written: together they need more memory than the verdicts.
struct Results<'a> {
    verdicts: &'a [Verdict],
    indices: BTreeMap<&'a str, usize>,
}

impl Serialize for Results<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.verdicts.iter().flat_map(|verdict| {
            let found = verdict.outcomes.iter().map(|judged| result(judged, verdict, &self.indices));
            found.chain(gone(verdict, &self.indices))
        }))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SarifResult<'a> {
    rule_id: &'a str,
    /// Absent if the rule has only a fixed finding of the baseline.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule_index: Option<usize>,
    kind: &'static str,
    level: &'static str,
    message: Text,
    locations: [Location; 1],
    partial_fingerprints: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline_state: Option<&'static str>,
    /// An empty list means: not suppressed. Viewers need the list on all results or on none.
    suppressions: Vec<Suppression>,
    properties: Properties<'a>,
}

/// Values without a SARIF field of their own.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Properties<'a> {
    vm: &'a NameAndUuid,
    source: &'a NameAndUuid,
    destination: &'a NameAndUuid,
    /// True if the time of the evaluation was chosen.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    simulated: bool,
    effect_now: Option<Effect>,
    evidence: &'a [Arc<Evidence>],
    missing: &'a [Missing],
}

#[derive(Serialize)]
struct Text {
    text: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Location {
    #[serde(skip_serializing_if = "Option::is_none")]
    physical_location: Option<PhysicalLocation>,
    logical_locations: [LogicalLocation; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PhysicalLocation {
    artifact_location: ArtifactLocation,
    region: Region,
}

#[derive(Serialize)]
struct ArtifactLocation {
    uri: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Region {
    start_line: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LogicalLocation {
    name: String,
    fully_qualified_name: String,
    kind: &'static str,
}

#[derive(Serialize)]
struct Suppression {
    kind: &'static str,
    status: &'static str,
    justification: String,
}

pub(super) fn write(verdicts: &[Verdict], sink: &mut dyn Write) -> io::Result<()> {
    let rules = rules(verdicts);
    let indices: BTreeMap<&str, usize> = rules.keys().enumerate().map(|(index, id)| (*id, index)).collect();
    let run = Run {
        tool: json!({ "driver": {
            "name": "vmgate",
            "semanticVersion": env!("CARGO_PKG_VERSION"),
            "rules": rules.values().map(|outcome| rule(outcome)).collect::<Vec<_>>(),
        }}),
        automation_details: json!({ "id": "vmgate/" }),
        invocations: [invocation(verdicts)],
        column_kind: "unicodeCodePoints",
        results: Results { verdicts, indices },
    };
    json::pretty(&Log { schema: SCHEMA, version: "2.1.0", runs: [run] }, sink)
}

/// One outcome of each rule, for the fields that all share; by id.
fn rules(verdicts: &[Verdict]) -> BTreeMap<&str, &Outcome> {
    let outcomes = verdicts.iter().flat_map(|verdict| &verdict.outcomes).map(|judged| &judged.outcome);
    let mut rules = BTreeMap::new();
    for outcome in outcomes {
        rules.entry(&*outcome.rule).or_insert(outcome);
    }
    rules
}

fn rule(outcome: &Outcome) -> serde_json::Value {
    // GitHub sorts by a number from 0 to 10 (CVSS's scale).
    let number = match outcome.severity {
        Severity::Low => "2.0",
        Severity::Medium => "5.0",
        Severity::High => "8.0",
        Severity::Critical => "9.5",
    };
    json!({
        "id": outcome.rule,
        "shortDescription": { "text": message(&outcome.title) },
        "defaultConfiguration": { "level": level(outcome.effect) },
        "properties": {
            "tags": [format!("step/{}", outcome.step.word())],
            "severity": outcome.severity.word(),
            "security-severity": number,
        },
    })
}

fn invocation(verdicts: &[Verdict]) -> serde_json::Value {
    let code = ExitCode::of_all(verdicts);
    let mut invocation = json!({
        "executionSuccessful": code != ExitCode::NothingEvaluated,
        "exitCode": code.code(),
        "exitCodeDescription": code.meaning(),
    });
    let end = verdicts.iter().map(|verdict| verdict.evaluated_at).max();
    if let (Some(end), Some(fields)) = (end, invocation.as_object_mut()) {
        fields.insert("endTimeUtc".to_owned(), json!(end));
    }
    let notification = |level, verdict: &Verdict, text: &str| {
        let text = format!("{}: {text}", words::movement(verdict));
        json!({ "level": level, "message": { "text": message(&text) } })
    };
    let notifications: Vec<_> = verdicts
        .iter()
        .flat_map(|verdict| {
            let simulated = words::simulation(verdict).map(|text| notification("warning", verdict, &text));
            let basis = words::basis(verdict).into_iter().map(|line| notification("note", verdict, &line));
            simulated.into_iter().chain(basis).collect::<Vec<_>>()
        })
        .collect();
    if let (false, Some(fields)) = (notifications.is_empty(), invocation.as_object_mut()) {
        fields.insert("toolExecutionNotifications".to_owned(), json!(notifications));
    }
    invocation
}

fn result<'a>(
    judged: &'a JudgedOutcome,
    verdict: &'a Verdict,
    indices: &BTreeMap<&str, usize>,
) -> SarifResult<'a> {
    let (outcome, moved) = (&judged.outcome, &verdict.moved);
    let (kind, level) = match outcome.status {
        Status::Fail => ("fail", level(outcome.effect)),
        Status::Unknown => ("open", "none"),
        Status::Pass => ("pass", "none"),
        Status::NotApplicable => ("notApplicable", "none"),
    };
    SarifResult {
        rule_id: &outcome.rule,
        rule_index: indices.get(&*outcome.rule).copied(),
        kind,
        level,
        message: Text { text: text(judged, moved) },
        locations: [location(outcome.subject.as_deref(), moved)],
        partial_fingerprints: fingerprints(&outcome.rule, outcome.subject.as_deref(), moved),
        baseline_state: verdict.since.as_ref().map(|since| match since.trend(judged) {
            Some(Trend::New) => "new",
            Some(Trend::Changed) => "updated",
            Some(Trend::Unchanged) | None => "unchanged",
        }),
        suppressions: suppressions(judged),
        properties: Properties {
            vm: &moved.vm,
            source: &moved.source,
            destination: &moved.destination,
            simulated: verdict.simulated,
            effect_now: judged.effect_now,
            evidence: &outcome.evidence,
            missing: &outcome.missing,
        },
    }
}

fn level(effect: Effect) -> &'static str {
    match effect {
        Effect::Block => "error",
        Effect::Warn => "warning",
        Effect::Note => "note",
    }
}

fn text(judged: &JudgedOutcome, moved: &Move) -> String {
    let outcome = &judged.outcome;
    let mut text = format!("{}: {}", moved.vm.label(), words::finding(outcome));
    if let Some(remediation) = &outcome.remediation {
        text.push_str(". Fix: ");
        text.push_str(remediation);
    } else if let Some(missing) = outcome.missing.first() {
        text.push_str(". Way out: ");
        text.push_str(missing.cause.way_out());
    }
    message(&text)
}

/// Braces are placeholders and `[text](target)` is a link in a SARIF message (3.11.5, 3.11.6).
fn message(text: &str) -> String {
    visible(text).replace('{', "{{").replace('}', "}}").replace("](", "]\u{20}(")
}

fn location(subject: Option<&str>, moved: &Move) -> Location {
    let place = moved.asked_in.as_ref().map(|place| PhysicalLocation {
        artifact_location: ArtifactLocation { uri: uri(&place.file) },
        region: Region { start_line: place.line.max(1) },
    });
    let subject = subject.map(|subject| format!("/{subject}")).unwrap_or_default();
    let name = moved.vm.label();
    let logical = LogicalLocation {
        name: visible(name).into_owned(),
        fully_qualified_name: visible(&format!("{name}{subject}")).into_owned(),
        kind: "resource",
    };
    Location { physical_location: place, logical_locations: [logical] }
}

/// A path as a relative or file URI (RFC 3986): everything but unreserved characters and slashes is escaped.
fn uri(path: &str) -> String {
    let mut uri = if path.starts_with('/') { "file://".to_owned() } else { String::new() };
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                uri.push(byte.into());
            }
            _ => {
                let _ = write!(uri, "%{byte:02X}"); // writing to a String cannot fail
            }
        }
    }
    uri
}

/// The fixed findings: the baseline has them and this verdict does not.
fn gone<'a>(verdict: &'a Verdict, indices: &BTreeMap<&str, usize>) -> impl Iterator<Item = SarifResult<'a>> {
    let moved = &verdict.moved;
    let fixed = verdict.since.iter().flat_map(|since| &since.fixed);
    fixed.map(move |finding| {
        let subject = finding.subject.as_deref();
        let said = words::about(subject, &finding.message);
        SarifResult {
            rule_id: &finding.rule,
            rule_index: indices.get(finding.rule.as_str()).copied(),
            kind: if finding.status == Status::Unknown { "open" } else { "fail" },
            level: match finding.status {
                Status::Unknown => "none",
                // A waived finding has no effect, and a failure has to have a level.
                _ => finding.effect_now.map_or("note", level),
            },
            message: Text { text: message(&format!("{}: {said}", moved.vm.label())) },
            locations: [location(subject, moved)],
            partial_fingerprints: fingerprints(&finding.rule, subject, moved),
            baseline_state: Some("absent"),
            suppressions: Vec::new(),
            properties: Properties {
                simulated: verdict.simulated,
                vm: &moved.vm,
                source: &moved.source,
                destination: &moved.destination,
                effect_now: None,
                evidence: &[],
                missing: &[],
            },
        }
    })
}

/// Fingerprint of a finding: the same for the same finding on the same VM in every run.
fn fingerprints(rule: &str, subject: Option<&str>, moved: &Move) -> BTreeMap<&'static str, String> {
    let vm = moved.vm.uuid.as_ref().map_or(moved.vm.label(), Uuid::as_str);
    let parts = [("rule", rule), ("vm", vm), ("subject", subject.unwrap_or_default())];
    let digest = Digest::of_parts(parts.map(|(name, text)| (name, text.as_bytes())));
    BTreeMap::from([("vmgateFinding/v1", digest.hex())])
}

fn suppressions(judged: &JudgedOutcome) -> Vec<Suppression> {
    let suppression = |waiver: &vmgate_verdict::AppliedWaiver| {
        let by = format!("{} ({}), until {}: {}", waiver.owner, waiver.ticket, waiver.until, waiver.reason);
        Suppression { kind: "external", status: "accepted", justification: visible(&by).into_owned() }
    };
    judged.waiver.iter().map(suppression).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use vmgate_verdict::sample;

    use super::*;

    fn written(verdicts: &[Verdict]) -> Value {
        let mut out = Vec::new();
        write(verdicts, &mut out).unwrap();
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn every_outcome_is_a_result_in_sarifs_own_terms() {
        let log = written(&[sample::no_go()]);
        let results = log["runs"][0]["results"].as_array().unwrap();
        let seen: Vec<_> = results
            .iter()
            .map(|r| {
                (
                    r["kind"].as_str().unwrap(),
                    r["level"].as_str().unwrap(),
                    r["suppressions"].as_array().unwrap().len(),
                )
            })
            .collect();
        let expected = [
            ("fail", "error", 0),
            ("fail", "error", 0),
            ("fail", "error", 0),
            ("open", "none", 0),
            ("fail", "warning", 0),
            ("open", "none", 0),
            ("fail", "note", 0),
            ("fail", "error", 1),
            ("pass", "none", 0),
            ("pass", "none", 0),
            ("notApplicable", "none", 0),
        ];
        assert_eq!(seen, expected);
        let rules = log["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap();
        for result in results {
            let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
            assert_eq!(rules[index]["id"], result["ruleId"]);
        }
        assert_eq!(log["runs"][0]["invocations"][0]["exitCode"], 20);
    }

    #[test]
    fn fingerprints_tell_findings_apart_and_stay_the_same() {
        let log = written(&[sample::no_go(), sample::no_go()]);
        let results = log["runs"][0]["results"].as_array().unwrap();
        let prints: Vec<_> =
            results.iter().map(|r| r["partialFingerprints"]["vmgateFinding/v1"].as_str()).collect();
        let (first, second) = prints.split_at(11);
        assert_eq!(first, second);
        assert_eq!(first.iter().collect::<std::collections::BTreeSet<_>>().len(), 11);
    }

    #[test]
    fn a_message_holds_no_link_and_no_placeholder() {
        assert_eq!(message("[x](http://evil) {0} [::1]:22"), "[x] (http://evil) {{0}} [::1]:22");
        assert_eq!(uri("changes/a b#1.yaml"), "changes/a%20b%231.yaml");
        assert_eq!(uri("/srv/ä.yaml"), "file:///srv/%C3%A4.yaml");
    }
}
