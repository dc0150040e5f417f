//! Missing evidence, grouped by cause: an operator without an agent in the guest must see one way out, not
//! twelve complaints.

use std::collections::{BTreeMap, BTreeSet};

use vmgate_facts::Cause;

use super::{JudgedOutcome, UnknownGroup};
use crate::Status;

/// Groups the undecided outcomes without a waiver; the gravest effect first, then the largest group.
/// An outcome that lacks facts for several causes is counted with each: all of them have to be removed.
pub(super) fn group(outcomes: &[JudgedOutcome]) -> Vec<UnknownGroup> {
    let mut groups: BTreeMap<Option<Cause>, Vec<(&JudgedOutcome, BTreeSet<&str>)>> = BTreeMap::new();
    for judged in outcomes.iter().filter(|judged| judged.outcome.status == Status::Unknown) {
        if judged.effect_now.is_none() {
            continue;
        }
        for (cause, reasons) in reasons_by_cause(judged) {
            groups.entry(cause).or_default().push((judged, reasons));
        }
    }
    let mut groups: Vec<UnknownGroup> =
        groups.into_iter().filter_map(|(cause, members)| one_group(cause, &members)).collect();
    groups.sort_by(|a, b| b.effect.cmp(&a.effect).then(b.count.cmp(&a.count)).then(a.cause.cmp(&b.cause)));
    groups
}

fn reasons_by_cause(judged: &JudgedOutcome) -> BTreeMap<Option<Cause>, BTreeSet<&str>> {
    let mut causes: BTreeMap<_, BTreeSet<&str>> = BTreeMap::new();
    for missing in &judged.outcome.missing {
        causes.entry(Some(missing.cause)).or_default().insert(&missing.reason);
    }
    if causes.is_empty() {
        causes.entry(None).or_default().insert(&judged.outcome.message);
    }
    causes
}

fn one_group(cause: Option<Cause>, members: &[(&JudgedOutcome, BTreeSet<&str>)]) -> Option<UnknownGroup> {
    let rules: BTreeSet<&str> = members.iter().map(|(judged, _)| &*judged.outcome.rule).collect();
    let reasons: BTreeSet<&str> = members.iter().flat_map(|(_, reasons)| reasons.iter().copied()).collect();
    let way_out = cause.map_or(
        "all facts are known, but the rule cannot be evaluated: read the rule's message and correct the rule",
        Cause::way_out,
    );
    Some(UnknownGroup {
        cause,
        effect: members.iter().filter_map(|(judged, _)| judged.effect_now).max()?,
        count: members.len(),
        rules: rules.into_iter().map(str::to_owned).collect(),
        reasons: reasons.into_iter().map(str::to_owned).collect(),
        way_out: way_out.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Effect, Missing, Outcome, sample};

    fn lacking(rule: &str, missing: &[(Cause, &str)], effect: Effect) -> JudgedOutcome {
        let missing = missing.iter().map(|(cause, reason)| Missing {
            path: "guest.tcp".into(),
            reason: (*reason).into(),
            cause: *cause,
        });
        let outcome = Outcome { missing: missing.collect(), ..sample::outcome(rule, Status::Unknown) };
        JudgedOutcome { outcome, effect_now: Some(effect), waiver: None }
    }

    #[test]
    fn twelve_rules_that_lack_the_agent_are_one_group_with_one_way_out() {
        let agent = [(Cause::NoGuestAgent, "no channel")];
        let mut outcomes: Vec<JudgedOutcome> =
            (0..12).map(|n| lacking(&format!("rule-{n}"), &agent, Effect::Block)).collect();
        outcomes.push(lacking("rule-0", &agent, Effect::Block));
        let groups = group(&outcomes);
        assert_eq!(groups.len(), 1);
        assert_eq!((groups[0].count, groups[0].rules.len()), (13, 12));
        assert_eq!(groups[0].reasons, ["no channel"]);
        assert_eq!(groups[0].way_out, Cause::NoGuestAgent.way_out());
    }

    #[test]
    fn what_blocks_comes_first_and_an_outcome_with_two_causes_is_in_both() {
        let outcomes = [
            lacking("a", &[(Cause::TimedOut, "slow")], Effect::Warn),
            lacking("b", &[(Cause::TimedOut, "slow")], Effect::Warn),
            lacking("c", &[(Cause::NoHostProbe, "no ssh"), (Cause::TimedOut, "late")], Effect::Block),
            lacking("d", &[], Effect::Note),
        ];
        let groups = group(&outcomes);
        let seen: Vec<_> = groups.iter().map(|g| (g.cause, g.effect, g.count)).collect();
        assert_eq!(
            seen,
            [
                (Some(Cause::TimedOut), Effect::Block, 3),
                (Some(Cause::NoHostProbe), Effect::Block, 1),
                (None, Effect::Note, 1)
            ]
        );
        assert_eq!(groups[0].reasons, ["late", "slow"]);
    }

    #[test]
    fn a_waived_unknown_is_in_no_group() {
        let waived =
            JudgedOutcome { effect_now: None, ..lacking("a", &[(Cause::TimedOut, "slow")], Effect::Block) };
        assert_eq!(group(&[waived]), []);
    }
}
