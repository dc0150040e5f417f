//! Applies waivers to the outcomes of rules. Pure: the day is an input, and the order of waivers and outcomes has no effect.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Day, Match, Waiver, Waivers};
use crate::{AppliedWaiver, Move, Outcome, Status};

/// A waiver that has no effect, and the reason. A waiver problem changes no decision.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct WaiverProblem {
    /// The rule that the waiver names.
    pub rule: String,
    /// Matchers of the waiver.
    #[serde(rename = "match")]
    pub matches: Match,
    /// Kind of the problem.
    pub fault: WaiverFault,
    /// Person or team responsible for the waiver.
    pub owner: String,
    /// Ticket in which the waiver was agreed.
    pub ticket: String,
    /// The last day on which the waiver holds, UTC.
    pub until: Day,
    /// The problem and the way out, in one sentence.
    pub message: String,
}

/// Problems of a waiver whose file is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WaiverFault {
    /// The last valid day is over: matching findings are not waived.
    Expired,
    /// The first valid day is in the future: matching findings are not waived.
    NotYetValid,
    /// The waiver matches this move, and no finding matches the waiver.
    Unused,
    /// No rule has this id.
    UnknownRule,
    /// The rule may not be waived.
    NotWaivable,
}

/// Outcomes with the waivers that apply to them.
#[derive(Debug, Clone, PartialEq)]
pub struct WaivedOutcomes {
    /// Each outcome, in the order of the input, with the waiver that applies to it.
    pub outcomes: Vec<(Outcome, Option<AppliedWaiver>)>,
    /// Problems of the waivers that match this move, sorted.
    pub problems: Vec<WaiverProblem>,
}

/// Applies `waivers` to `outcomes` on the day `today`. `other_rules` are rules that exist and gave no outcome.
/// Waivers whose vm or host matcher does not fit the move are skipped: they are for other moves.
pub fn apply_waivers(
    outcomes: Vec<Outcome>,
    waivers: &Waivers,
    moved: &Move,
    other_rules: &BTreeSet<String>,
    today: Day,
) -> WaivedOutcomes {
    let mut outcomes: Vec<_> = outcomes.into_iter().map(|outcome| (outcome, None)).collect();
    let mut problems = Vec::new();
    for waiver in waivers.iter().filter(|waiver| waiver.matches.fits_move(moved)) {
        let rules = outcomes.iter().map(|(outcome, _)| &*outcome.rule);
        let mut rules: BTreeSet<&str> = rules.collect();
        rules.extend(other_rules.iter().map(String::as_str));
        if !rules.contains(waiver.rule.as_str()) {
            problems.push(waiver.problem(WaiverFault::UnknownRule, unknown_rule(&waiver.rule, &rules)));
            continue;
        }
        if let Some((fault, message)) = apply_waiver(waiver, &mut outcomes, today) {
            problems.push(waiver.problem(fault, message));
        }
    }
    problems.sort();
    problems.dedup();
    WaivedOutcomes { outcomes, problems }
}

fn apply_waiver(
    waiver: &Waiver,
    outcomes: &mut [(Outcome, Option<AppliedWaiver>)],
    today: Day,
) -> Option<(WaiverFault, String)> {
    let found: Vec<_> = outcomes.iter_mut().filter(|(outcome, _)| waiver.matches_finding(outcome)).collect();
    let count = found.len();
    let findings = if count == 1 { "1 finding".to_owned() } else { format!("{count} findings") };
    let stays = if count == 0 {
        "no finding matches the waiver".to_owned()
    } else {
        format!("{findings} not waived")
    };
    if today > waiver.expires {
        let way_out =
            if count == 0 { "remove the waiver" } else { "fix the cause, or agree on a new waiver" };
        let message = format!("expired: the last valid day was {}; {stays}: {way_out}", waiver.expires);
        return Some((WaiverFault::Expired, message));
    }
    if today < waiver.created {
        let message = format!("not yet valid: the first valid day is {}; {stays}", waiver.created);
        return Some((WaiverFault::NotYetValid, message));
    }
    if count == 0 {
        return Some((
            WaiverFault::Unused,
            "unused: no finding matches the waiver; remove the waiver".to_owned(),
        ));
    }
    let mut refused = false;
    for (outcome, waived) in found {
        if outcome.waivable {
            waived.get_or_insert_with(|| waiver.waived());
        } else {
            refused = true;
        }
    }
    refused.then(|| {
        let message = "this rule cannot be waived (waivable: false): fix the cause and remove the waiver";
        (WaiverFault::NotWaivable, message.to_owned())
    })
}

fn unknown_rule(id: &str, rules: &BTreeSet<&str>) -> String {
    let nearest = rules
        .iter()
        .map(|rule| (strsim::damerau_levenshtein(id, rule), rule))
        .filter(|(distance, _)| *distance <= 1 + id.chars().count() / 4)
        .min();
    match nearest {
        Some((_, rule)) => format!("there is no rule {id}: did you mean {rule}?"),
        None => format!("there is no rule {id}: `vmgate rules list` shows all ids"),
    }
}

impl Waiver {
    fn matches_finding(&self, outcome: &Outcome) -> bool {
        let finding = matches!(outcome.status, Status::Fail | Status::Unknown);
        finding && *outcome.rule == *self.rule && self.matches.fits_subject(outcome.subject.as_deref())
    }

    fn waived(&self) -> AppliedWaiver {
        AppliedWaiver {
            owner: self.owner.clone(),
            reason: self.reason.clone(),
            ticket: self.ticket.clone(),
            until: self.expires,
        }
    }

    fn problem(&self, fault: WaiverFault, message: String) -> WaiverProblem {
        WaiverProblem {
            rule: self.rule.clone(),
            matches: self.matches.clone(),
            fault,
            owner: self.owner.clone(),
            ticket: self.ticket.clone(),
            until: self.expires,
            message,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NameAndUuid, sample};

    fn lay(outcomes: Vec<Outcome>, waiver: Waiver, today: &str) -> WaivedOutcomes {
        let moved = Move {
            vm: NameAndUuid { name: Some("web1".into()), uuid: None },
            source: NameAndUuid { name: Some("hv1".into()), uuid: None },
            ..Move::default()
        };
        apply_waivers(
            outcomes,
            &[waiver].into_iter().collect(),
            &moved,
            &BTreeSet::new(),
            today.parse().unwrap(),
        )
    }

    fn faults(applied: &WaivedOutcomes) -> Vec<WaiverFault> {
        applied.problems.iter().map(|problem| problem.fault).collect()
    }

    fn waived(applied: &WaivedOutcomes) -> bool {
        applied.outcomes.iter().any(|(_, waived)| waived.is_some())
    }

    #[test]
    fn a_waiver_holds_from_its_first_day_to_its_last_and_not_beyond() {
        for (today, holds) in
            [("2026-10-31", false), ("2026-11-01", true), ("2026-11-30", true), ("2026-12-01", false)]
        {
            let applied = lay(vec![sample::outcome("a", Status::Fail)], sample::waiver("a"), today);
            assert_eq!(waived(&applied), holds, "{today}");
            assert_eq!(applied.problems.is_empty(), holds, "{today}");
        }
    }

    #[test]
    fn an_expired_waiver_says_what_it_would_have_waived() {
        let applied = lay(vec![sample::outcome("a", Status::Fail)], sample::waiver("a"), "2026-12-01");
        let expected = "expired: the last valid day was 2026-11-30; 1 finding not waived: \
                        fix the cause, or agree on a new waiver";
        assert_eq!(applied.problems[0].message, expected);
    }

    #[test]
    fn only_what_the_matchers_fit_is_waived() {
        let mut waiver = sample::waiver("a");
        let outcome = || vec![Outcome { subject: Some("eth0".into()), ..sample::outcome("a", Status::Fail) }];
        let mut with = |subject: Option<&str>, vm: Option<&str>, host: Option<&str>| {
            let glob = |text: Option<&str>| text.map(super::super::Glob::new);
            waiver.matches = Match { subject: glob(subject), vm: glob(vm), host: glob(host) };
            let applied = lay(outcome(), waiver.clone(), "2026-11-02");
            (waived(&applied), faults(&applied))
        };
        assert_eq!(with(Some("eth*"), Some("web1"), Some("hv1")), (true, vec![]));
        assert_eq!(with(Some("eno*"), Some("web1"), None), (false, vec![WaiverFault::Unused]));
        assert_eq!(with(Some("eth*"), Some("db*"), None), (false, vec![]), "the waiver is for another move");
        assert_eq!(
            with(Some("eth*"), None, Some("hv2")),
            (false, vec![]),
            "a host that is not known fits none"
        );
    }

    #[test]
    fn an_unknown_is_waived_like_a_violation_a_pass_is_not() {
        let lay_on = |status| lay(vec![sample::outcome("a", status)], sample::waiver("a"), "2026-11-02");
        assert!(waived(&lay_on(Status::Unknown)));
        for status in [Status::Pass, Status::NotApplicable] {
            let applied = lay_on(status);
            assert!(!waived(&applied));
            assert_eq!(faults(&applied), [WaiverFault::Unused]);
        }
    }

    #[test]
    fn what_may_not_be_waived_is_not() {
        let outcome = Outcome { waivable: false, ..sample::outcome("a", Status::Fail) };
        let applied = lay(vec![outcome], sample::waiver("a"), "2026-11-02");
        assert!(!waived(&applied));
        assert_eq!(faults(&applied), [WaiverFault::NotWaivable]);
    }

    #[test]
    fn a_rule_that_does_not_exist_is_named_with_the_nearest_that_does() {
        let applied = lay(
            vec![sample::outcome("forecast-converges", Status::Fail)],
            sample::waiver("forecast-converge"),
            "2026-11-02",
        );
        assert_eq!(faults(&applied), [WaiverFault::UnknownRule]);
        assert_eq!(
            applied.problems[0].message,
            "there is no rule forecast-converge: did you mean forecast-converges?"
        );
    }

    #[test]
    fn of_several_that_fit_the_longest_valid_is_shown_and_none_is_unused() {
        let short = sample::waiver("a");
        let long = Waiver { expires: "2026-12-24".parse().unwrap(), ..short.clone() };
        for waivers in [[short.clone(), long.clone()], [long, short]] {
            let outcomes = vec![sample::outcome("a", Status::Fail)];
            let today = "2026-11-02".parse().unwrap();
            let applied = apply_waivers(
                outcomes,
                &waivers.into_iter().collect(),
                &Move::default(),
                &BTreeSet::new(),
                today,
            );
            let until = applied.outcomes[0].1.as_ref().map(|waived| waived.until.to_string());
            assert_eq!(until.as_deref(), Some("2026-12-24"));
            assert_eq!(applied.problems, []);
        }
    }
}
