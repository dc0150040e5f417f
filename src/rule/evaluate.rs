//! From a rule and the facts of one move to outcomes, with evidence.

use std::{collections::HashMap, ptr, sync::Arc};

use jiff::Timestamp;

use super::{
    Evidence, Missing, Outcome, Status,
    expr::{Evaluator, Freshness, Read, Val},
    program::{Each, Program},
    rule::Rule,
    value::Value,
};
use crate::fact::{Cause, Facts, Provenance, Unknown};

/// Most facts that one outcome names as its evidence.
const MOST_EVIDENCE: usize = 16;

/// The facts of one move, ready to be read by every rule.
pub(crate) struct Subject<'a> {
    facts: &'a Facts,
    root: &'a Value,
    now: Timestamp,
    /// When the oldest of the facts was obtained.
    oldest: Option<Timestamp>,
    /// What is said of where facts come from.
    sources: Vec<(&'a Provenance, String)>,
}

impl<'a> Subject<'a> {
    pub(crate) fn new(facts: &'a Facts, root: &'a Value, now: Timestamp) -> Self {
        let all = || facts.provenance.values();
        Self {
            facts,
            root,
            now,
            oldest: all().map(|from| from.at).min(),
            sources: all().map(|from| (from, format!("{}: {}", from.collector, from.method))).collect(),
        }
    }

    /// A fact with where it comes from.
    fn evidence(&self, path: String, value: &Value) -> Evidence {
        let provenance = self.facts.provenance_of(&path);
        let source = |from: &Provenance| self.sources.iter().find(|(known, _)| ptr::eq(*known, from));
        Evidence {
            source: provenance.and_then(source).map(|(_, text)| text.clone()),
            at: provenance.map(|from| from.at),
            value: value.to_json(None),
            path,
        }
    }

    /// What a rule needs to refuse facts that are too old; nothing where none is.
    fn freshness(&self, max_age_seconds: Option<f64>) -> Option<Freshness<'a>> {
        let max_age_seconds = max_age_seconds?;
        let oldest = self.now.duration_since(self.oldest?).as_secs_f64();
        (oldest > max_age_seconds).then_some(Freshness { facts: self.facts, now: self.now, max_age_seconds })
    }
}

/// The evidence that facts of one move have been in so far, by their place in memory: many rules read the same facts.
type Known = HashMap<*const Value, Arc<Evidence>>;

/// What rules say of one move, each with the values of its parameters.
pub(crate) fn evaluate<'a>(
    rules: impl IntoIterator<Item = (&'a Rule, &'a [Value])>,
    on: &'a Subject<'a>,
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut evaluator = Evaluator::new(on.root);
    let mut known = Known::new();
    for (rule, params) in rules {
        program(rule, &rule.program, params, on, &mut evaluator, &mut known, &mut outcomes);
    }
    outcomes
}

/// What a rule says with other expressions than its own.
pub(crate) fn evaluate_program<'a>(
    rule: &'a Rule,
    changed: &'a Program,
    params: &'a [Value],
    on: &'a Subject<'a>,
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    program(rule, changed, params, on, &mut Evaluator::new(on.root), &mut Known::new(), &mut outcomes);
    outcomes
}

fn program<'a>(
    rule: &'a Rule,
    program: &'a Program,
    params: &'a [Value],
    on: &'a Subject<'a>,
    evaluator: &mut Evaluator<'a>,
    known: &mut Known,
    outcomes: &mut Vec<Outcome>,
) {
    let first = outcomes.len();
    let lets = program.lets.iter().map(|binding| &binding.expr);
    evaluator.begin(params, lets, program.slots, on.freshness(rule.max_age_seconds));
    Run { rule, program, on, evaluator, known, outcomes }.whole();
    if let Some(added) = outcomes.get_mut(first..) {
        added.sort_by(|a, b| a.subject.cmp(&b.subject));
    }
}

struct Run<'a, 'r> {
    rule: &'a Rule,
    program: &'a Program,
    on: &'a Subject<'a>,
    evaluator: &'r mut Evaluator<'a>,
    known: &'r mut Known,
    outcomes: &'r mut Vec<Outcome>,
}

impl<'a> Run<'a, '_> {
    fn whole(&mut self) {
        if let Some(when) = &self.program.when {
            match self.evaluator.eval(when) {
                Val::Bool(true) => {}
                Val::Bool(false) => {
                    let text = self.rule.texts.when.as_deref().unwrap_or_default();
                    let message = format!("does not apply here: it is for moves where {}", one_line(text));
                    return self.add(Status::NotApplicable, None, message);
                }
                _ => {
                    return self.add(Status::Unknown, None, "whether this applies".to_owned());
                }
            }
        }
        self.evaluator.forget(0);
        self.each(&self.program.each);
    }

    /// Binds the variables of `foreach` one by one and judges every combination.
    fn each(&mut self, each: &'a [Each]) {
        let Some((first, rest)) = each.split_first() else { return self.judge() };
        let mark = self.evaluator.mark();
        let list = self.evaluator.eval(&first.list);
        let Some(items) = self.evaluator.items(&list) else {
            let what = format!("what `{}` holds", one_line(&first.text));
            self.add(Status::Unknown, None, what);
            return self.evaluator.forget(mark);
        };
        if items.is_empty() {
            self.evaluator.consume(&list);
            let message = format!("nothing to check: `{}` is empty", one_line(&first.text));
            self.add(Status::NotApplicable, None, message);
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
        let (status, message) = match value {
            // The message tells of a violation; what holds is what the title says.
            Val::Bool(true) => (Status::Pass, self.rule.title.clone()),
            Val::Bool(false) => (Status::Fail, self.program.message.render(self.evaluator)),
            _ => (Status::Unknown, "whether this holds".to_owned()),
        };
        self.add(status, subject, message);
        self.evaluator.forget(mark);
    }

    /// What was read, each fact once: the known and the missing.
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
                    let told = || Arc::new(self.on.evidence(self.evaluator.path(*path), value));
                    evidence.push(Arc::clone(self.known.entry(ptr::from_ref(*value)).or_insert_with(told)));
                }
                Read::Fact(..) => {}
                Read::Stale(reason, path) => {
                    let path = self.evaluator.path(*path);
                    missing.push(absent(path, &Unknown::new(Cause::TooOld, reason.clone())));
                }
                Read::Fault(reason) => {
                    missing
                        .push(absent(self.rule.id.clone(), &Unknown::new(Cause::Malformed, reason.clone())));
                }
            }
        }
        missing.sort();
        missing.dedup();
        (evidence, missing)
    }

    /// Adds an outcome. Of an unknown one `message` says what could not be told.
    fn add(&mut self, status: Status, subject: Option<String>, message: String) {
        let (evidence, missing) = self.evidence();
        let message = if status == Status::Unknown { undecided(&message, &missing) } else { message };
        let rule = self.rule;
        let remediation = match status {
            Status::Fail | Status::Unknown => Some(self.program.remediation.render(self.evaluator)),
            Status::Pass | Status::NotApplicable => None,
        };
        self.outcomes.push(Outcome {
            rule: rule.id.clone(),
            title: rule.title.clone(),
            step: rule.step,
            severity: rule.severity,
            effect: rule.effect,
            on_unknown: rule.on_unknown,
            status,
            subject,
            message: message.trim().to_owned(),
            remediation: remediation.map(|text| text.trim().to_owned()),
            evidence,
            missing: if status == Status::Unknown { missing } else { Vec::new() },
            waivable: rule.waivable,
        });
    }
}

/// What is missing, in a sentence.
fn undecided(what: &str, missing: &[Missing]) -> String {
    match missing {
        [] => format!("cannot tell {what}: the facts do not suffice"),
        [only] => format!("cannot tell {what}: {} is not known ({})", only.path, only.reason),
        [first, rest @ ..] => {
            format!(
                "cannot tell {what}: {} is not known ({}), and {} more",
                first.path,
                first.reason,
                rest.len()
            )
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
