//! Outcomes grouped by rule: two hundred connections that break are one entry with one way out.

use vmgate_verdict::{Effect, JudgedOutcome, Status, Verdict};

/// Neighbouring outcomes of one rule, never empty.
#[derive(Debug)]
pub(super) struct RuleGroup<'a> {
    /// The first outcome, for the shared fields: rule, title, step, severity.
    pub(super) first: &'a JudgedOutcome,
    /// All outcomes of the group.
    pub(super) all: Vec<&'a JudgedOutcome>,
}

impl<'a> RuleGroup<'a> {
    /// Remediations of the outcomes, each text once.
    pub(super) fn remediations(&self) -> Vec<&'a str> {
        let mut advice: Vec<&str> = Vec::new();
        for remediation in self.all.iter().filter_map(|judged| judged.outcome.remediation.as_deref()) {
            if !advice.contains(&remediation) {
                advice.push(remediation);
            }
        }
        advice
    }
}

/// Groups outcomes, which the verdict has sorted by rule within their effect.
pub(super) fn by_rule<'a>(outcomes: impl Iterator<Item = &'a JudgedOutcome>) -> Vec<RuleGroup<'a>> {
    let mut groups: Vec<RuleGroup<'a>> = Vec::new();
    for judged in outcomes {
        match groups.last_mut() {
            Some(last) if last.first.outcome.rule == judged.outcome.rule => last.all.push(judged),
            _ => groups.push(RuleGroup { first: judged, all: vec![judged] }),
        }
    }
    groups
}

/// The violations with this effect. Undecided outcomes are not included: reports show them by cause.
pub(super) fn violations(verdict: &Verdict, effect: Effect) -> Vec<RuleGroup<'_>> {
    by_rule(verdict.with_effect(effect).filter(|judged| judged.outcome.status == Status::Fail))
}
