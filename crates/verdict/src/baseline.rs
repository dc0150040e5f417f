//! Comparison with an earlier verdict, the baseline: findings that are new, changed or fixed.
//!
//! A finding is an outcome that is violated or undecided, waived or not. Two findings are the same if rule and subject
//! are the same, on a move of the same VM to the same destination. The source does not count.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Decision, JudgedOutcome, Move, NameAndUuid, Verdict};
use crate::{Effect, Status};

/// Difference between a verdict and an earlier one on the same move.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct BaselineComparison {
    /// Time of the earlier verdict; absent if the earlier report has none on this move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluated_at: Option<Timestamp>,
    /// Decision of the earlier verdict; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// Findings that the earlier verdict does not have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub new: Vec<Finding>,
    /// Findings that the earlier verdict has with another status, effect or values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<ChangedFinding>,
    /// Findings of the earlier verdict that this one does not have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fixed: Vec<Finding>,
    /// Number of unchanged findings.
    pub unchanged: usize,
}

/// A finding, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Finding {
    /// The rule's id.
    pub rule: String,
    /// Subject of the finding; absent for a finding on the move as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Fail or unknown.
    pub status: Status,
    /// Effect on the decision; absent for a waived finding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect_now: Option<Effect>,
    /// Message of the rule, with the values.
    pub message: String,
}

/// A finding that changed since the baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ChangedFinding {
    /// The finding in the baseline.
    pub before: Finding,
    /// The finding now.
    pub after: Finding,
    /// The facts of its evidence whose values differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<ChangedValue>,
}

/// A fact with another value than before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ChangedValue {
    /// Path of the fact, as a rule writes it, without list positions: these differ between collections.
    pub path: String,
    /// Value in the baseline; absent if the rule did not use the fact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// Value now; absent if the rule does not use the fact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// Change of a current finding since the baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trend {
    /// The baseline does not have the finding.
    New,
    /// The baseline has the finding with other values.
    Changed,
    /// The baseline has the same finding.
    Unchanged,
}

/// An earlier report, to compare later verdicts with.
#[derive(Debug, Clone, Default)]
pub struct Baseline {
    earlier: BTreeMap<MoveKey, Verdict>,
}

type MoveKey = (String, String);
type FindingKey<'a> = (&'a str, Option<&'a str>, usize);

impl Baseline {
    /// The verdicts of an earlier report; of two on one move, the last.
    pub fn new(verdicts: Vec<Verdict>) -> Self {
        Self { earlier: verdicts.into_iter().map(|verdict| (key(&verdict.moved), verdict)).collect() }
    }

    /// Sets `verdict.since` to the difference from the earlier verdict on the same move.
    pub fn compare(&self, verdict: &mut Verdict) {
        verdict.since = Some(since(verdict, self.earlier.get(&key(&verdict.moved))));
    }

    /// The moves that the earlier report has and this one does not have.
    pub fn missing_moves(&self, now: &[Verdict]) -> Vec<&Move> {
        let there: std::collections::BTreeSet<MoveKey> =
            now.iter().map(|verdict| key(&verdict.moved)).collect();
        let earlier = self.earlier.iter().filter(|(key, _)| !there.contains(*key));
        earlier.map(|(_, verdict)| &verdict.moved).collect()
    }
}

impl BaselineComparison {
    /// Change of a current finding; `None` for an outcome that is not a finding.
    pub fn trend(&self, judged: &JudgedOutcome) -> Option<Trend> {
        let is = |finding: &Finding| {
            *finding.rule == *judged.outcome.rule && finding.subject == judged.outcome.subject
        };
        match () {
            () if !is_finding(judged) => None,
            () if self.new.iter().any(is) => Some(Trend::New),
            () if self.changed.iter().any(|changed| is(&changed.after)) => Some(Trend::Changed),
            () => Some(Trend::Unchanged),
        }
    }

    /// The findings that have this effect now and did not have it in the baseline.
    pub fn newly_with_effect(&self, effect: Effect) -> impl Iterator<Item = &Finding> {
        let turned =
            self.changed.iter().filter(|changed| changed.before.effect_now != changed.after.effect_now);
        self.new
            .iter()
            .chain(turned.map(|changed| &changed.after))
            .filter(move |finding| finding.effect_now == Some(effect))
    }
}

impl Trend {
    /// The trend in one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
        }
    }
}

fn since(verdict: &Verdict, earlier: Option<&Verdict>) -> BaselineComparison {
    let mut before: BTreeMap<FindingKey<'_>, &JudgedOutcome> = earlier.map(findings).unwrap_or_default();
    let mut since = BaselineComparison {
        evaluated_at: earlier.map(|verdict| verdict.evaluated_at),
        decision: earlier.map(|verdict| verdict.decision),
        new: Vec::new(),
        changed: Vec::new(),
        fixed: Vec::new(),
        unchanged: 0,
    };
    for (key, judged) in findings(verdict) {
        match before.remove(&key) {
            None => since.new.push(finding(judged)),
            Some(earlier) => match changed(earlier, judged) {
                Some(changed) => since.changed.push(changed),
                None => since.unchanged += 1,
            },
        }
    }
    since.fixed = before.into_values().map(finding).collect();
    since
}

/// The findings of a verdict. Several findings of one rule on one subject are distinguished by their order.
fn findings(verdict: &Verdict) -> BTreeMap<FindingKey<'_>, &JudgedOutcome> {
    let mut found = BTreeMap::new();
    for judged in verdict.outcomes.iter().filter(|judged| is_finding(judged)) {
        let (rule, subject) = (&*judged.outcome.rule, judged.outcome.subject.as_deref());
        let nth = (0..=verdict.outcomes.len())
            .find(|nth| !found.contains_key(&(rule, subject, *nth)))
            .unwrap_or_default();
        found.insert((rule, subject, nth), judged);
    }
    found
}

fn is_finding(judged: &JudgedOutcome) -> bool {
    matches!(judged.outcome.status, Status::Fail | Status::Unknown)
}

fn finding(judged: &JudgedOutcome) -> Finding {
    let outcome = &judged.outcome;
    Finding {
        rule: outcome.rule.to_string(),
        subject: outcome.subject.clone(),
        status: outcome.status,
        effect_now: judged.effect_now,
        message: outcome.message.to_string(),
    }
}

fn changed(before: &JudgedOutcome, after: &JudgedOutcome) -> Option<ChangedFinding> {
    let values = values(before, after);
    let (before, after) = (finding(before), finding(after));
    (before != after || !values.is_empty()).then_some(ChangedFinding { before, after, values })
}

fn values(before: &JudgedOutcome, after: &JudgedOutcome) -> Vec<ChangedValue> {
    let of = |judged: &JudgedOutcome| -> BTreeMap<String, Value> {
        let evidence = judged.outcome.evidence.iter();
        evidence.map(|evidence| (without_positions(&evidence.path), evidence.value.clone())).collect()
    };
    let (mut then, now) = (of(before), of(after));
    let mut differ: Vec<ChangedValue> = now
        .into_iter()
        .map(|(path, after)| ChangedValue { before: then.remove(&path), after: Some(after), path })
        .filter(|value| value.before != value.after)
        .collect();
    let left = then.into_iter().map(|(path, value)| ChangedValue { path, before: Some(value), after: None });
    differ.extend(left);
    differ.sort_by(|a, b| a.path.cmp(&b.path));
    differ
}

/// `guest.tcp.connections[3].budget_seconds` without its `3`.
fn without_positions(path: &str) -> String {
    path.split_inclusive('[').map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit())).collect()
}

fn key(moved: &Move) -> MoveKey {
    let name = |named: &NameAndUuid| {
        named.uuid.as_ref().map_or_else(|| named.label().to_owned(), ToString::to_string)
    };
    (name(&moved.vm), name(&moved.destination))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::{DecisionContext, Evidence, Outcome, Waivers, decide, sample};

    fn verdict(outcomes: Vec<Outcome>) -> Verdict {
        decide(outcomes, &Waivers::default(), &sample::facts("web1"), &DecisionContext::at(sample::now()))
    }

    fn compared(before: Vec<Outcome>, after: Vec<Outcome>) -> BaselineComparison {
        let mut now = verdict(after);
        Baseline::new(vec![verdict(before)]).compare(&mut now);
        now.since.unwrap()
    }

    fn on(rule: &str, subject: &str, status: Status) -> Outcome {
        Outcome { subject: Some(subject.into()), ..sample::outcome(rule, status) }
    }

    #[test]
    fn findings_are_new_fixed_or_unchanged() {
        let since = compared(
            vec![on("a", "x", Status::Fail), on("a", "y", Status::Fail), on("b", "x", Status::Pass)],
            vec![on("a", "x", Status::Fail), on("a", "y", Status::Pass), on("b", "x", Status::Unknown)],
        );
        let names = |findings: &[Finding]| findings.iter().map(|f| f.rule.clone()).collect::<Vec<_>>();
        assert_eq!((names(&since.new), names(&since.fixed)), (vec!["b".into()], vec!["a".into()]));
        assert_eq!((since.changed.len(), since.unchanged), (0, 1));
        assert_eq!(since.decision, Some(verdict(vec![on("a", "x", Status::Fail)]).decision));
    }

    #[test]
    fn a_changed_finding_names_the_values_that_differ_wherever_they_stood_in_their_list() {
        let with = |position: usize, budget: f64, other: f64| {
            let evidence = |path: String, value: f64| {
                Arc::new(Evidence { path, value: json!(value), source: None, at: None })
            };
            Outcome {
                evidence: vec![
                    evidence(format!("guest.tcp.connections[{position}].budget_seconds"), budget),
                    evidence("forecast.blackout_seconds.p95".into(), other),
                ],
                ..on("a", "x", Status::Fail)
            }
        };
        assert_eq!(compared(vec![with(3, 1.2, 2.4)], vec![with(7, 1.2, 2.4)]).unchanged, 1);
        let since = compared(vec![with(3, 1.2, 2.4)], vec![with(7, 0.8, 2.4)]);
        let value = &since.changed[0].values[0];
        assert_eq!(since.changed[0].values.len(), 1);
        assert_eq!((value.before.clone(), value.after.clone()), (Some(json!(1.2)), Some(json!(0.8))));
        assert_eq!(value.path, "guest.tcp.connections[].budget_seconds");
    }

    #[test]
    fn a_waiver_that_ran_out_blocks_anew() {
        let waived = decide(
            vec![sample::outcome("a", Status::Fail)],
            &[sample::waiver("a")].into_iter().collect(),
            &sample::facts("web1"),
            &DecisionContext::at(sample::now()),
        );
        let mut now = verdict(vec![sample::outcome("a", Status::Fail)]);
        Baseline::new(vec![waived]).compare(&mut now);
        let since = now.since.unwrap();
        assert_eq!((since.new.len(), since.newly_with_effect(Effect::Block).count()), (0, 1));
        assert_eq!(since.trend(&now.outcomes[0]), Some(Trend::Changed));
    }

    #[test]
    fn a_move_that_was_not_there_is_all_new_and_one_that_is_not_there_any_more_is_named() {
        let mut now = sample::no_go();
        let baseline = Baseline::new(vec![sample::go()]);
        now.moved.vm.uuid = Some("6f0d3c4e-1111-4222-8333-123456789abc".parse().unwrap());
        baseline.compare(&mut now);
        let since = now.since.clone().unwrap();
        assert_eq!((since.evaluated_at, since.new.len(), since.unchanged), (None, 8, 0));
        assert_eq!(baseline.missing_moves(&[now]).len(), 1);
    }
}
