//! Variables of `move.html`. Users write templates against these names: new ones may be added, none may change.

use jiff::Timestamp;
use serde::Serialize;
use vmgate_verdict::{
    Alternative, AppliedWaiver, Decision, Effect, JudgedOutcome, Status, UnknownGroup, Verdict, WaiverProblem,
};

use super::{
    super::{
        baseline::{BaselineEntry, baseline_entries},
        by_rule::{RuleGroup, by_rule, violations},
        settings::{self, SettingRow},
        words,
    },
    plot::{Plot, plots},
    timeline::{Timeline, timeline},
};
use vmgate_facts::Uuid;

/// One move.
#[derive(Serialize)]
pub(super) struct MoveView<'a> {
    /// Number of the move in the report, from 1.
    number: usize,
    /// True if the report has no other move: its reader also gets the evidence of what passed.
    alone: bool,
    go: bool,
    warnings: usize,
    word: &'static str,
    vm: &'a str,
    vm_uuid: &'a str,
    source: &'a str,
    destination: &'a str,
    change: Option<&'a str>,
    reason: String,
    /// Notes on the rules and facts for the reader; empty where nothing is unusual.
    basis: Vec<String>,
    evaluated: String,
    expires: String,
    /// True if the evidence was already too old at the evaluation.
    expired: bool,
    plots: Vec<Plot>,
    /// Memory left to send over time; `None` without a replay.
    timeline: Option<Timeline>,
    /// Effect of other migration settings on the forecast, in one sentence.
    advice: Option<&'a str>,
    /// The forecast with each setting; empty without a replay.
    settings: Vec<SettingRow>,
    /// Blocking findings, warnings, notes; empty sections are left out.
    sections: Vec<Section<'a>>,
    /// The other destinations that were judged, best first.
    alternatives: Vec<OtherDestination<'a>>,
    /// Changes since the baseline, in figures; `None` without a baseline.
    since: Option<String>,
    trends: Vec<Trend<'a>>,
    waived: Vec<Group<'a>>,
    waiver_problems: Vec<Problem<'a>>,
    passed: Vec<Group<'a>>,
    not_applicable: Vec<Group<'a>>,
    digests: Vec<(&'static str, String)>,
    tool: &'a str,
    version: &'a str,
}

/// Another destination of the VM.
#[derive(Serialize)]
struct OtherDestination<'a> {
    word: &'static str,
    go: bool,
    /// Its name, with the forecast of a blackout there.
    text: String,
    reasons: &'a [String],
}

/// All findings with one effect.
#[derive(Serialize)]
struct Section<'a> {
    title: &'static str,
    /// block, warn or note.
    effect: &'static str,
    groups: Vec<Group<'a>>,
    missing: Vec<Missing<'a>>,
}

/// Findings of one rule.
#[derive(Serialize)]
struct Group<'a> {
    rule: &'a str,
    title: &'a str,
    severity: &'static str,
    step: &'static str,
    findings: Vec<Finding<'a>>,
    remediations: Vec<&'a str>,
}

/// One finding with its evidence.
#[derive(Serialize)]
struct Finding<'a> {
    text: String,
    evidence: Vec<EvidenceView<'a>>,
    /// Missing facts, each with the reason.
    missing: Vec<(&'a str, &'a str)>,
    waiver: Option<&'a AppliedWaiver>,
}

/// A fact that the rule used.
#[derive(Serialize)]
struct EvidenceView<'a> {
    path: &'a str,
    value: String,
    source: &'a str,
    at: String,
    /// Age of the fact at the evaluation.
    age: String,
}

/// A finding that is new, changed or fixed.
#[derive(Serialize)]
struct Trend<'a> {
    /// new, changed or fixed.
    word: &'static str,
    rule: &'a str,
    lines: Vec<String>,
}

/// Missing evidence with one cause.
#[derive(Serialize)]
struct Missing<'a> {
    cause: &'static str,
    rules: &'a [String],
    reasons: &'a [String],
    way_out: &'a str,
}

/// A waiver with a problem.
#[derive(Serialize)]
pub(super) struct Problem<'a> {
    fault: &'static str,
    rule: &'a str,
    about: String,
    owner: &'a str,
    ticket: &'a str,
    until: String,
    message: &'a str,
}

impl<'a> MoveView<'a> {
    pub(super) fn new(verdict: &'a Verdict, number: usize, alone: bool) -> Self {
        let moved = &verdict.moved;
        let with_status = |status| {
            let outcomes = verdict.outcomes.iter();
            groups(
                by_rule(outcomes.filter(move |judged| judged.outcome.status == status)),
                verdict.evaluated_at,
            )
        };
        let d = &verdict.digests;
        let digests = [("facts", d.facts), ("rules", d.rules), ("waivers", d.waivers), ("change", d.change)];
        Self {
            number,
            alone,
            go: matches!(verdict.decision, Decision::Go(_)),
            warnings: verdict.counts.warnings,
            word: verdict.decision.word(),
            vm: moved.vm.label(),
            vm_uuid: moved.vm.uuid.as_ref().map(Uuid::as_str).unwrap_or_default(),
            source: moved.source.label(),
            destination: moved.destination.label(),
            change: verdict.change.id.as_deref(),
            reason: words::reason(verdict),
            basis: words::basis(verdict).iter().map(|line| words::upper_first(line)).collect(),
            evaluated: words::time(verdict.evaluated_at),
            expires: words::time(verdict.expires_at),
            expired: verdict.expires_at <= verdict.evaluated_at,
            plots: plots(verdict),
            timeline: timeline(verdict),
            advice: verdict
                .forecast
                .as_ref()
                .and_then(|forecast| forecast.advice.known())
                .map(String::as_str),
            settings: settings::rows(verdict),
            sections: sections(verdict),
            alternatives: verdict.alternatives.iter().map(other_destination).collect(),
            since: verdict.since.as_ref().map(words::since),
            trends: verdict.since.iter().flat_map(baseline_entries).map(trend).collect(),
            waived: groups(by_rule(verdict.waived()), verdict.evaluated_at),
            waiver_problems: problems(&verdict.waiver_problems.iter().collect::<Vec<_>>()),
            passed: with_status(Status::Pass),
            not_applicable: with_status(Status::NotApplicable),
            digests: digests
                .into_iter()
                .filter_map(|(name, digest)| Some((name, digest?.to_string())))
                .collect(),
            tool: &verdict.tool.name,
            version: &verdict.tool.version,
        }
    }
}

fn sections(verdict: &Verdict) -> Vec<Section<'_>> {
    [(Effect::Block, "What blocks"), (Effect::Warn, "Warnings"), (Effect::Note, "Notes")]
        .into_iter()
        .map(|(effect, title)| Section {
            title,
            effect: effect.word(),
            groups: groups(violations(verdict, effect), verdict.evaluated_at),
            missing: verdict.unknown.iter().filter(|group| group.effect == effect).map(missing).collect(),
        })
        .filter(|section| !section.groups.is_empty() || !section.missing.is_empty())
        .collect()
}

fn other_destination(other: &Alternative) -> OtherDestination<'_> {
    OtherDestination {
        word: other.decision.word(),
        go: matches!(other.decision, Decision::Go(_)),
        text: words::alternative(other),
        reasons: &other.reasons,
    }
}

fn groups(groups: Vec<RuleGroup<'_>>, now: Timestamp) -> Vec<Group<'_>> {
    groups.into_iter().map(|group| one_group(&group, now)).collect()
}

fn one_group<'a>(group: &RuleGroup<'a>, now: Timestamp) -> Group<'a> {
    let first = &group.first.outcome;
    Group {
        rule: &first.rule,
        title: &first.title,
        severity: first.severity.word(),
        step: first.step.word(),
        findings: group.all.iter().map(|judged| finding(judged, now)).collect(),
        remediations: group.remediations(),
    }
}

fn finding(judged: &JudgedOutcome, now: Timestamp) -> Finding<'_> {
    let outcome = &judged.outcome;
    let evidence = outcome.evidence.iter().map(|evidence| EvidenceView {
        path: &evidence.path,
        value: evidence.value.to_string(),
        source: evidence.source.as_deref().unwrap_or_default(),
        at: evidence.at.map(words::time).unwrap_or_default(),
        age: evidence.at.map(|at| words::age(at, now)).unwrap_or_default(),
    });
    Finding {
        text: words::finding(outcome),
        evidence: evidence.collect(),
        missing: outcome.missing.iter().map(|m| (m.path.as_str(), m.reason.as_str())).collect(),
        waiver: judged.waiver.as_ref(),
    }
}

fn trend(entry: BaselineEntry<'_>) -> Trend<'_> {
    Trend { word: entry.word, rule: entry.rule, lines: entry.lines }
}

fn missing(group: &UnknownGroup) -> Missing<'_> {
    Missing {
        cause: words::cause(group.cause),
        rules: &group.rules,
        reasons: &group.reasons,
        way_out: &group.way_out,
    }
}

pub(super) fn problems<'a>(problems: &[&'a WaiverProblem]) -> Vec<Problem<'a>> {
    let view = |problem: &&'a WaiverProblem| Problem {
        fault: words::fault(problem.fault),
        rule: &problem.rule,
        about: problem.matches.to_string(),
        owner: &problem.owner,
        ticket: &problem.ticket,
        until: problem.until.to_string(),
        message: &problem.message,
    };
    problems.iter().map(view).collect()
}
