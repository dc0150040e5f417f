//! From a rule and the facts of one move to outcomes, with evidence.

use std::collections::HashSet;

use jiff::Timestamp;

use super::{
    Evidence, Missing, Outcome, Status,
    expr::{Evaluator, Read, Val},
    program::{Each, Program},
    rule::Rule,
    value::Value,
};
use crate::fact::{Cause, Facts, Unknown};

/// Most facts that one outcome names as its evidence.
const MOST_EVIDENCE: usize = 16;

/// The facts of one move, ready to be read by every rule.
pub(crate) struct Subject<'a> {
    pub(crate) facts: &'a Facts,
    pub(crate) root: &'a Value,
    pub(crate) now: Timestamp,
}

/// What a rule says of one move.
pub(crate) fn evaluate(rule: &Rule, params: &[Value], on: &Subject<'_>) -> Vec<Outcome> {
    evaluate_program(rule, &rule.program, params, on)
}

/// As [`evaluate`], with other expressions than the rule's own.
pub(crate) fn evaluate_program(
    rule: &Rule,
    program: &Program,
    params: &[Value],
    on: &Subject<'_>,
) -> Vec<Outcome> {
    let stale = |path: &str| too_old(path, rule.max_age_seconds?, on);
    let lets = program.lets.iter().map(|binding| &binding.expr);
    let stale: Option<&dyn Fn(&str) -> Option<String>> =
        if rule.max_age_seconds.is_some() { Some(&stale) } else { None };
    let evaluator = Evaluator::new(on.root, params, lets, program.slots, stale);
    let mut run = Run { rule, program, on, evaluator, outcomes: Vec::new() };
    run.whole();
    run.outcomes.sort_by(|a, b| a.subject.cmp(&b.subject));
    run.outcomes
}

/// Why the fact at `path` is too old, if it is.
fn too_old(path: &str, max_age_seconds: f64, on: &Subject<'_>) -> Option<String> {
    let at = on.facts.provenance_of(path)?.at;
    let age = on.now.duration_since(at).as_secs_f64();
    (age > max_age_seconds)
        .then(|| format!("measured {} ago; the rule accepts {} at most", span(age), span(max_age_seconds)))
}

/// A span of time in its largest fitting unit.
fn span(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s >= 172_800.0 => (s / 86_400.0, "days"),
        s if s >= 7_200.0 => (s / 3_600.0, "h"),
        s if s >= 120.0 => (s / 60.0, "min"),
        s => (s, "s"),
    };
    format!("{value:.0} {unit}")
}

struct Run<'a> {
    rule: &'a Rule,
    program: &'a Program,
    on: &'a Subject<'a>,
    evaluator: Evaluator<'a>,
    outcomes: Vec<Outcome>,
}

impl<'a> Run<'a> {
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
                    let message = self.undecided("whether this applies");
                    return self.add(Status::Unknown, None, message);
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
            let message = self.undecided(&format!("what `{}` holds", one_line(&first.text)));
            self.add(Status::Unknown, None, message);
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
        let subject = self.program.subject.as_ref().map(|subject| subject.render(&mut self.evaluator));
        let (status, message) = match value {
            // The message tells of a violation; what holds is what the title says.
            Val::Bool(true) => (Status::Pass, self.rule.title.clone()),
            Val::Bool(false) => (Status::Fail, self.program.message.render(&mut self.evaluator)),
            _ => (Status::Unknown, self.undecided("whether this holds")),
        };
        self.add(status, subject, message);
        self.evaluator.forget(mark);
    }

    /// What is missing, in a sentence.
    fn undecided(&self, what: &str) -> String {
        let (_, missing) = self.evidence();
        let mut text = format!("cannot tell {what}: ");
        match missing.first() {
            None => text.push_str("the facts do not suffice"),
            Some(first) => {
                text.push_str(&format!("{} is not known ({})", first.path, first.reason));
                if missing.len() > 1 {
                    text.push_str(&format!(", and {} more", missing.len() - 1));
                }
            }
        }
        text
    }

    /// What was read, each fact once: the known and the missing.
    fn evidence(&self) -> (Vec<Evidence>, Vec<Missing>) {
        let (mut evidence, mut missing) = (Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        for read in self.evaluator.reads(0) {
            let absent =
                |path: String, why: &Unknown| Missing { path, reason: why.reason.clone(), cause: why.cause };
            match read {
                Read::Fact(value, _) if !seen.insert(std::ptr::from_ref::<Value>(value)) => {}
                Read::Fact(Value::Unknown(why), path) => {
                    missing.push(absent(self.evaluator.path(*path), why))
                }
                Read::Fact(value, path) if evidence.len() < MOST_EVIDENCE => {
                    let path = self.evaluator.path(*path);
                    let provenance = self.on.facts.provenance_of(&path);
                    evidence.push(Evidence {
                        source: provenance.map(|from| format!("{}: {}", from.collector, from.method)),
                        at: provenance.map(|from| from.at),
                        value: value.to_json(None),
                        path,
                    });
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

    fn add(&mut self, status: Status, subject: Option<String>, message: String) {
        let (evidence, missing) = self.evidence();
        let rule = self.rule;
        let remediation = match status {
            Status::Fail | Status::Unknown => Some(self.program.remediation.render(&mut self.evaluator)),
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

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
