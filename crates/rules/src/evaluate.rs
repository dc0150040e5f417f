//! Evaluation of rules on the facts of one move: outcomes with their evidence.

use std::{cmp::Reverse, collections::HashMap, ptr, sync::Arc};

use jiff::Timestamp;
use vmgate_facts::{Cause, Facts, Provenance, TrialAnswer, Unknown};
use vmgate_verdict::{Evidence, Missing, Outcome, Status};

use super::{
    document::SettledBy,
    expr::{Evaluator, Freshness, Read, Val},
    program::{ForeachList, Program},
    rule::Rule,
    value::Value,
};

/// Limit on the facts that one outcome names as its evidence.
const MOST_EVIDENCE: usize = 16;

/// Fact with the answer to a trial.
const TRIAL: &str = "trial.answer";
/// Way out of every unknown outcome that a trial settles.
const TRY_IT: &str =
    "Or let both hosts say it: check again with `--trial`, which begins the migration and takes it back.";

/// Facts of one move, prepared for every rule.
pub(crate) struct MoveFacts<'a> {
    facts: &'a Facts,
    root: &'a Value,
    now: Timestamp,
    /// Time at which the oldest fact was obtained.
    oldest: Option<Timestamp>,
    /// Provenance by the path of a fact or of a group above it; longest paths first.
    origins: Vec<FactOrigin<'a>>,
}

/// Provenance of the facts at and below a path.
struct FactOrigin<'a> {
    path: &'a str,
    source: Arc<str>,
    at: Timestamp,
}

impl FactOrigin<'_> {
    fn covers(&self, path: &str) -> bool {
        path.strip_prefix(self.path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    }
}

impl<'a> MoveFacts<'a> {
    pub(crate) fn new(facts: &'a Facts, root: &'a Value, now: Timestamp) -> Self {
        let origin = |(path, from): (&'a String, &'a Provenance)| FactOrigin {
            path,
            source: format!("{}: {}", from.collector, from.method).into(),
            at: from.at,
        };
        let mut origins: Vec<_> = facts.provenance.iter().map(origin).collect();
        origins.sort_by_key(|origin| Reverse(origin.path.len()));
        Self { facts, root, now, oldest: origins.iter().map(|origin| origin.at).min(), origins }
    }

    /// Evidence for an outcome: a fact, its value and its provenance.
    fn evidence(&self, path: String, value: &Value) -> Evidence {
        let origin = self.origins.iter().find(|origin| origin.covers(&path));
        Evidence {
            source: origin.map(|origin| Arc::clone(&origin.source)),
            at: origin.map(|origin| origin.at),
            value: value.to_json(None),
            path,
        }
    }

    /// Age limit of a rule, if any fact is older than it.
    fn freshness(&self, max_age_seconds: Option<f64>) -> Option<Freshness<'a>> {
        let max_age_seconds = max_age_seconds?;
        let oldest = self.now.duration_since(self.oldest?).as_secs_f64();
        (oldest > max_age_seconds).then_some(Freshness { facts: self.facts, now: self.now, max_age_seconds })
    }
}

/// Evidence made so far for the facts of one move, by the address of the value: many rules read the same facts.
type EvidenceCache = HashMap<*const Value, Arc<Evidence>>;

/// Outcomes of rules on one move. Each rule comes with the values of its parameters.
pub(crate) fn evaluate<'a>(
    rules: impl ExactSizeIterator<Item = (&'a Rule, &'a [Value])>,
    on: &'a MoveFacts<'a>,
) -> Vec<Outcome> {
    // Most rules have one outcome for a move, a few have one for each connection or disk.
    let mut outcomes = Vec::with_capacity(rules.len() * 3 / 2);
    let mut evaluator = Evaluator::new(on.root);
    let mut cache = EvidenceCache::with_capacity(rules.len() * 2);
    for (rule, params) in rules {
        evaluate_into(rule, &rule.program, params, on, &mut evaluator, &mut cache, &mut outcomes);
    }
    outcomes
}

/// Outcomes of a rule whose expressions are replaced by those of `changed`.
pub(crate) fn evaluate_program<'a>(
    rule: &'a Rule,
    changed: &'a Program,
    params: &'a [Value],
    on: &'a MoveFacts<'a>,
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    evaluate_into(
        rule,
        changed,
        params,
        on,
        &mut Evaluator::new(on.root),
        &mut EvidenceCache::new(),
        &mut outcomes,
    );
    outcomes
}

fn evaluate_into<'a>(
    rule: &'a Rule,
    program: &'a Program,
    params: &'a [Value],
    on: &'a MoveFacts<'a>,
    evaluator: &mut Evaluator<'a>,
    cache: &mut EvidenceCache,
    outcomes: &mut Vec<Outcome>,
) {
    let first = outcomes.len();
    let lets = program.lets.iter().map(|binding| &binding.expr);
    evaluator.start_rule(params, lets, program.slots, on.freshness(rule.max_age_seconds));
    RuleEvaluation { rule, program, on, evaluator, cache, outcomes }.evaluate_rule();
    if let Some(added) = outcomes.get_mut(first..) {
        added.sort_by(|a, b| a.subject.cmp(&b.subject));
    }
}

struct RuleEvaluation<'a, 'r> {
    rule: &'a Rule,
    program: &'a Program,
    on: &'a MoveFacts<'a>,
    evaluator: &'r mut Evaluator<'a>,
    cache: &'r mut EvidenceCache,
    outcomes: &'r mut Vec<Outcome>,
}

impl<'a> RuleEvaluation<'a, '_> {
    fn evaluate_rule(&mut self) {
        if let Some(when) = &self.program.when {
            match self.evaluator.eval(when) {
                Val::Bool(true) => {}
                Val::Bool(false) => {
                    return self.add(
                        Status::NotApplicable,
                        None,
                        Arc::clone(&self.program.not_applicable_message),
                    );
                }
                _ => return self.undecided(None, "whether the rule applies"),
            }
        }
        self.evaluator.forget(0);
        self.each(&self.program.foreach);
    }

    /// Binds the variables of `foreach` one by one and judges every combination.
    fn each(&mut self, each: &'a [ForeachList]) {
        let Some((first, rest)) = each.split_first() else { return self.judge() };
        let mark = self.evaluator.mark();
        let list = self.evaluator.eval(&first.list);
        let Some(items) = self.evaluator.items(&list) else {
            self.undecided(None, &format!("the items of `{}`", first.text));
            return self.evaluator.forget(mark);
        };
        if items.is_empty() {
            self.evaluator.note_list(&list);
            self.add(Status::NotApplicable, None, Arc::clone(&first.empty_message));
            return self.evaluator.forget(mark);
        }
        self.evaluator.forget(mark);
        for item in items {
            self.evaluator.bind(first.slot, item);
            self.each(rest);
        }
    }

    fn judge(&mut self) {
        let mark = self.evaluator.mark();
        let value = self.evaluator.eval(&self.program.assert);
        let subject = self.program.subject.as_ref().map(|subject| subject.render(self.evaluator));
        match value {
            // The rule's message describes a violation; a pass is described by the title.
            Val::Bool(true) => self.add(Status::Pass, subject, Arc::clone(&self.rule.title)),
            Val::Bool(false) => {
                // What is shown beside the facts that decided may be unknown.
                let message = self.program.message.render_known(self.evaluator);
                let message =
                    message.unwrap_or_else(|| format!("this does not hold: {}", self.rule.title)).into();
                self.add(Status::Fail, subject, message);
            }
            _ => self.undecided(subject, "whether the rule is met"),
        }
        self.evaluator.forget(mark);
    }

    /// Facts that were read, each once: known facts as evidence, unknown facts as missing.
    fn evidence(&mut self) -> (Vec<Arc<Evidence>>, Vec<Missing>) {
        let reads = self.evaluator.reads(0);
        let mut evidence = Vec::with_capacity(reads.len().min(MOST_EVIDENCE));
        let mut missing = Vec::new();
        let absent =
            |path: String, why: &Unknown| Missing { path, reason: why.reason.clone(), cause: why.cause };
        for (at, read) in reads.iter().enumerate() {
            match read {
                // The same fact read twice is the same value.
                Read::Fact(value, _)
                    if reads
                        .iter()
                        .take(at)
                        .rev()
                        .take(64)
                        .any(|before| matches!(before, Read::Fact(other, _) if ptr::eq(*other, *value))) => {}
                Read::Fact(Value::Unknown(why), path) => {
                    missing.push(absent(self.evaluator.path(*path), why));
                }
                Read::Fact(value, path) if evidence.len() < MOST_EVIDENCE => {
                    let new_evidence = || Arc::new(self.on.evidence(self.evaluator.path(*path), value));
                    evidence.push(Arc::clone(
                        self.cache.entry(ptr::from_ref(*value)).or_insert_with(new_evidence),
                    ));
                }
                Read::Fact(..) => {}
                Read::Stale(reason, path) => {
                    let path = self.evaluator.path(*path);
                    missing.push(absent(path, &Unknown::new(Cause::TooOld, reason.clone())));
                }
                Read::Fault(reason) => {
                    missing.push(absent(
                        self.rule.id.to_string(),
                        &Unknown::new(Cause::Malformed, reason.clone()),
                    ));
                }
            }
        }
        missing.sort();
        missing.dedup();
        (evidence, missing)
    }

    /// Adds an outcome that the facts decided.
    fn add(&mut self, status: Status, subject: Option<String>, message: Arc<str>) {
        let (evidence, _) = self.evidence();
        self.push(status, subject, message, evidence, Vec::new());
    }

    /// Adds an outcome with the status unknown; `what` names the question that stays open.
    fn undecided(&mut self, subject: Option<String>, what: &str) {
        let (mut evidence, missing) = self.evidence();
        if let Some((message, accepted)) = self.settled() {
            evidence.insert(0, Arc::new(accepted));
            return self.push(Status::Pass, subject, message.into(), evidence, Vec::new());
        }
        let message = unknown_message(what, &missing).trim().into();
        self.push(Status::Unknown, subject, message, evidence, missing);
    }

    /// Message and evidence if a trial that both hosts accepted settles what the facts leave unknown.
    fn settled(&self) -> Option<(String, Evidence)> {
        let SettledBy::Trial = self.rule.settled_by?;
        let trial = self.on.facts.trial.known()?.as_ref()?;
        if trial.answer != TrialAnswer::Accepted {
            return None;
        }
        let message = format!("{}: both hosts took the start of a trial at {}", self.rule.title, trial.at);
        let origin = self.on.origins.iter().find(|origin| origin.covers(TRIAL));
        let accepted = Evidence {
            path: TRIAL.to_owned(),
            value: serde_json::json!("accepted"),
            source: origin.map(|origin| Arc::clone(&origin.source)),
            at: Some(trial.at),
        };
        Some((message, accepted))
    }

    /// Way out of an outcome, with the trial where one would settle it.
    fn remediation(&mut self, status: Status) -> Option<String> {
        let text = match status {
            Status::Fail | Status::Unknown => self.program.remediation.render(self.evaluator),
            Status::Pass | Status::NotApplicable => return None,
        };
        let text = text.trim().to_owned();
        let by_trial = status == Status::Unknown && self.rule.settled_by == Some(SettledBy::Trial);
        Some(if by_trial { format!("{text}\n{TRY_IT}") } else { text })
    }

    fn push(
        &mut self,
        status: Status,
        subject: Option<String>,
        message: Arc<str>,
        evidence: Vec<Arc<Evidence>>,
        missing: Vec<Missing>,
    ) {
        let rule = self.rule;
        let remediation = self.remediation(status);
        self.outcomes.push(Outcome {
            rule: Arc::clone(&rule.id),
            title: Arc::clone(&rule.title),
            step: rule.step,
            severity: rule.severity,
            effect: rule.effect,
            on_unknown: rule.on_unknown,
            status,
            subject,
            message,
            remediation,
            evidence,
            missing,
            waivable: rule.waivable,
        });
    }
}

/// Message of an outcome that is unknown: the open question and the missing facts.
fn unknown_message(what: &str, missing: &[Missing]) -> String {
    match missing {
        [] => format!("cannot tell {what}: too few facts are known"),
        [only] => format!("cannot tell {what}: {} is not known ({})", only.path, only.reason),
        [first, _] => {
            format!(
                "cannot tell {what}: {} is not known ({}), and one more fact is missing",
                first.path, first.reason
            )
        }
        [first, rest @ ..] => {
            format!(
                "cannot tell {what}: {} is not known ({}), and {} more facts are missing",
                first.path,
                first.reason,
                rest.len()
            )
        }
    }
}
