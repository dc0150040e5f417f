//! The decision on one move: GO or NO-GO from outcomes, waivers and facts.

use std::{cmp::Reverse, collections::BTreeSet};

use jiff::{SignedDuration, Timestamp};
use vmgate_attest::Basis;
use vmgate_facts::{Fact, Facts, Forecast, Uri};

use super::{
    Counts, Decision, Digests, FileLine, GoReason, JudgedOutcome, Move, NameAndUuid, NoGoReason, Tool,
    VALID_FOR, Verdict, VerdictSchema, Waivers, expiry, unknown,
    waiver::{Day, apply_waivers},
};
use crate::{Effect, Outcome, Status};

/// Inputs of a decision besides outcomes, waivers and facts.
#[derive(Debug, Clone)]
pub struct DecisionContext {
    /// Time of the evaluation; waivers and the expiry are compared with it.
    pub now: Timestamp,
    /// True if somebody chose that time: the verdict then permits nothing.
    pub simulated: bool,
    /// Validity of the verdict after the oldest volatile fact.
    pub valid_for: SignedDuration,
    /// True if warnings count as a failure of the check.
    pub strict: bool,
    /// Digests of the inputs: facts, rules, waivers, change file.
    pub digests: Digests,
    /// Rules that exist and gave no outcome here; a waiver for one of them is not a mistake.
    pub other_rules: BTreeSet<String>,
    /// Line of the change file that asks for the move.
    pub asked_in: Option<FileLine>,
    /// Forecast of the migration, for the report.
    pub forecast: Option<Forecast>,
    /// Rules and facts that the verdict rests on.
    pub basis: Option<Basis>,
}

impl DecisionContext {
    /// A context with the defaults: valid for one hour, not strict, no digests.
    pub fn at(now: Timestamp) -> Self {
        Self {
            now,
            simulated: false,
            valid_for: VALID_FOR,
            strict: false,
            digests: Digests::default(),
            other_rules: BTreeSet::new(),
            asked_in: None,
            forecast: None,
            basis: None,
        }
    }
}

/// Decides on one move. The order of `outcomes` has no effect: the verdict sorts them.
pub fn decide(
    outcomes: Vec<Outcome>,
    waivers: &Waivers,
    facts: &Facts,
    context: &DecisionContext,
) -> Verdict {
    let moved = moved(facts, context.asked_in.clone());
    let applied = apply_waivers(outcomes, waivers, &moved, &context.other_rules, Day::of(context.now));
    let mut outcomes: Vec<JudgedOutcome> = applied.outcomes.into_iter().map(judge).collect();
    // The texts only make the sort order total, so that the order of evaluation has no influence.
    outcomes.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| text(a).cmp(&text(b))));
    let digests =
        Digests { waivers: context.digests.waivers.or_else(|| waivers.digest()), ..context.digests.clone() };
    Verdict {
        schema: VerdictSchema::V1,
        tool: Tool { name: "vmgate".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() },
        evaluated_at: context.now,
        simulated: context.simulated,
        expires_at: expiry::expires_at(facts, context.now, context.valid_for),
        decision: decision(&outcomes, &moved),
        moved,
        change: facts.change.clone(),
        strict: context.strict,
        counts: count(&outcomes),
        unknown: unknown::group(&outcomes),
        outcomes,
        waiver_problems: applied.problems,
        forecast: context.forecast.clone(),
        since: None,
        alternatives: Vec::new(),
        digests,
        basis: context.basis.clone(),
    }
}

fn judge((outcome, waiver): (Outcome, Option<super::AppliedWaiver>)) -> JudgedOutcome {
    let effect_now = if waiver.is_some() { None } else { outcome.effect_now() };
    JudgedOutcome { outcome, effect_now, waiver }
}

/// True if decision, effects and counts follow from the outcomes. False for a file that was edited by hand.
pub(super) fn is_consistent(verdict: &Verdict) -> bool {
    let effects = verdict.outcomes.iter().all(|judged| {
        let effect = if judged.waiver.is_some() { None } else { judged.outcome.effect_now() };
        judged.effect_now == effect && (judged.waiver.is_none() || judged.outcome.waivable)
    });
    effects
        && decision(&verdict.outcomes, &verdict.moved) == verdict.decision
        && count(&verdict.outcomes) == verdict.counts
}

/// Sort key of an outcome in the document.
fn rank(judged: &JudgedOutcome) -> impl Ord + use<'_> {
    let JudgedOutcome { outcome, effect_now, waiver } = judged;
    let standing = match (effect_now, waiver, outcome.status) {
        (Some(Effect::Block), ..) => 0,
        (Some(Effect::Warn), ..) => 1,
        (Some(Effect::Note), ..) => 2,
        (None, Some(_), _) => 3,
        (None, None, Status::NotApplicable) => 5,
        (None, None, _) => 4,
    };
    let violated_first = outcome.status != Status::Fail;
    let place = (outcome.step, Reverse(outcome.severity), &outcome.rule, &outcome.subject);
    (standing, violated_first, place, &outcome.message)
}

fn text(judged: &JudgedOutcome) -> Option<String> {
    serde_json::to_string(judged).ok()
}

fn decision(outcomes: &[JudgedOutcome], moved: &Move) -> Decision {
    let blocked_by =
        |status| outcomes.iter().any(|j| j.effect_now == Some(Effect::Block) && j.outcome.status == status);
    if outcomes.iter().all(|judged| judged.outcome.status == Status::NotApplicable) {
        Decision::NoGo(NoGoReason::NothingEvaluated)
    } else if blocked_by(Status::Fail) {
        Decision::NoGo(NoGoReason::RuleViolated)
    } else if blocked_by(Status::Unknown) {
        Decision::NoGo(NoGoReason::EvidenceMissing)
    } else if moved.destination.uuid.is_none() {
        // Whatever the rules ask: no move may go to a host that nobody has seen.
        Decision::NoGo(NoGoReason::NothingEvaluated)
    } else if outcomes.iter().any(|judged| judged.effect_now == Some(Effect::Warn)) {
        Decision::Go(GoReason::WithWarnings)
    } else {
        Decision::Go(GoReason::AllClear)
    }
}

fn count(outcomes: &[JudgedOutcome]) -> Counts {
    let rules: BTreeSet<&str> = outcomes.iter().map(|judged| &*judged.outcome.rule).collect();
    let mut counts = Counts { rules: rules.len(), ..Counts::default() };
    for judged in outcomes {
        *match judged.outcome.status {
            Status::Pass => &mut counts.pass,
            Status::Fail => &mut counts.fail,
            Status::Unknown => &mut counts.unknown,
            Status::NotApplicable => &mut counts.not_applicable,
        } += 1;
        counts.waived += usize::from(judged.waiver.is_some());
        match judged.effect_now {
            Some(Effect::Block) => counts.blocking += 1,
            Some(Effect::Warn) => counts.warnings += 1,
            Some(Effect::Note) => counts.notes += 1,
            None => {}
        }
    }
    counts
}

fn moved(facts: &Facts, asked_in: Option<FileLine>) -> Move {
    let host = |host: &Fact<vmgate_facts::Host>| {
        host.known().map_or_else(NameAndUuid::default, |host| {
            // A host that did not answer is called as it was asked for.
            let asked = || Uri::from_operator(host.uri.known()?).ok()?.host;
            NameAndUuid {
                name: host.hostname.known().cloned().or_else(asked),
                uuid: host.uuid.known().cloned(),
            }
        })
    };
    let vm = facts.vm.known();
    Move {
        vm: vm.map_or_else(NameAndUuid::default, |vm| NameAndUuid {
            name: vm.name.known().cloned(),
            uuid: vm.uuid.known().cloned(),
        }),
        source: host(&facts.source),
        destination: host(&facts.destination),
        migrate_address: facts.path.known().and_then(|path| path.destination_address.known().cloned()),
        asked_in,
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};

    use super::*;
    use crate::{ExitCode, WaiverFault, sample, waiver::Waiver};

    fn decide_on(outcomes: Vec<Outcome>) -> Verdict {
        decide(outcomes, &Waivers::default(), &sample::facts("web1"), &DecisionContext::at(sample::now()))
    }

    #[test]
    fn no_move_goes_to_a_host_that_was_not_seen() {
        let to = |change: fn(&mut vmgate_facts::Host)| {
            let mut facts = sample::facts("web1");
            let Fact::Known(host) = &mut facts.destination else { panic!("no destination") };
            change(host);
            let outcomes = vec![outcome(Status::Pass, Effect::Block)];
            decide(outcomes, &Waivers::default(), &facts, &DecisionContext::at(sample::now()))
        };
        assert_eq!(to(|_| {}).decision, Decision::Go(GoReason::AllClear));
        let lost = to(|host| {
            host.uri = Fact::Known("qemu+ssh://root@hv7/system".to_owned());
            (host.hostname, host.uuid) = (Fact::default(), Fact::default());
        });
        assert_eq!(lost.decision, Decision::NoGo(NoGoReason::NothingEvaluated));
        assert_eq!(lost.moved.destination.label(), "hv7");
    }

    fn outcome(status: Status, effect: Effect) -> Outcome {
        Outcome { effect, on_unknown: effect, ..sample::outcome("a", status) }
    }

    #[test]
    fn a_violation_outweighs_missing_evidence_and_that_outweighs_warnings() {
        use Effect::{Block, Note, Warn};
        use Status::{Fail, NotApplicable, Pass, Unknown};
        for (found, code, strict_code) in [
            (vec![], ExitCode::NothingEvaluated, ExitCode::NothingEvaluated),
            (vec![(NotApplicable, Block)], ExitCode::NothingEvaluated, ExitCode::NothingEvaluated),
            (vec![(Pass, Block), (NotApplicable, Block)], ExitCode::Go, ExitCode::Go),
            (vec![(Fail, Note)], ExitCode::Go, ExitCode::Go),
            (vec![(Pass, Block), (Fail, Warn)], ExitCode::Go, ExitCode::GoWithWarnings),
            (vec![(Pass, Block), (Unknown, Warn)], ExitCode::Go, ExitCode::GoWithWarnings),
            (vec![(Unknown, Block), (Fail, Warn)], ExitCode::EvidenceMissing, ExitCode::EvidenceMissing),
            (vec![(Unknown, Block), (Fail, Block)], ExitCode::RuleViolated, ExitCode::RuleViolated),
        ] {
            let mut verdict = decide_on(found.iter().map(|(s, e)| outcome(*s, *e)).collect());
            assert_eq!(verdict.exit_code(), code, "{found:?}");
            verdict.strict = true;
            assert_eq!(verdict.exit_code(), strict_code, "{found:?} strict");
        }
    }

    #[test]
    fn the_effect_of_missing_evidence_is_its_own() {
        let unknown = Outcome {
            effect: Effect::Block,
            on_unknown: Effect::Note,
            ..sample::outcome("a", Status::Unknown)
        };
        assert_eq!(decide_on(vec![unknown]).decision, Decision::Go(GoReason::AllClear));
    }

    #[test]
    fn a_gate_lets_go_pass_until_it_expires() {
        let mut verdict = decide_on(vec![outcome(Status::Fail, Effect::Warn)]);
        assert!(verdict.permits_migration(sample::now()));
        assert!(!verdict.permits_migration(verdict.expires_at));
        verdict.strict = true;
        assert!(!verdict.permits_migration(sample::now()));
        assert!(!decide_on(vec![]).permits_migration(sample::now()), "nothing evaluated is never GO");
    }

    #[test]
    fn names_that_are_not_known_are_absent() {
        let facts = Facts::empty(sample::now());
        let verdict = decide(vec![], &Waivers::default(), &facts, &DecisionContext::at(sample::now()));
        assert_eq!(verdict.moved, Move::default());
    }

    #[test]
    fn the_sample_holds_something_of_everything() {
        let verdict = sample::no_go();
        assert_eq!(verdict.decision, Decision::NoGo(NoGoReason::RuleViolated));
        let faults: Vec<_> = verdict.waiver_problems.iter().map(|problem| problem.fault).collect();
        assert_eq!(faults, [WaiverFault::Expired, WaiverFault::Unused]);
        assert_eq!(verdict.waived().count(), 1);
        let c = verdict.counts;
        assert_eq!((c.blocking, c.warnings, c.notes, c.pass, c.not_applicable), (4, 2, 1, 2, 1));
        assert_eq!(verdict.unknown.len(), 1);
    }

    fn outcomes() -> impl Strategy<Value = Vec<Outcome>> {
        let statuses = vec![Status::Pass, Status::Fail, Status::Unknown, Status::NotApplicable];
        let effects = vec![Effect::Note, Effect::Warn, Effect::Block];
        let one = (select(vec!["a", "b"]), "[xy]?", select(statuses), select(effects), any::<bool>());
        let one = one.prop_map(|(rule, subject, status, effect, waivable)| Outcome {
            subject: Some(subject),
            waivable,
            ..Outcome { effect, on_unknown: effect, ..sample::outcome(rule, status) }
        });
        prop::collection::vec(one, 0..6)
    }

    fn waivers() -> impl Strategy<Value = Vec<Waiver>> {
        let one = (select(vec!["a", "b", "c"]), select(vec!["*", "x", "y"]), -120..30_i32, 0..90_i32);
        let one = one.prop_map(|(rule, subject, start, days)| {
            let created = sample::day("2026-11-23").plus(start);
            let mut waiver = Waiver { created, expires: created.plus(days), ..sample::waiver(rule) };
            waiver.matches.subject = Some(crate::waiver::Glob::new(subject));
            waiver
        });
        prop::collection::vec(one, 0..5)
    }

    fn decide_with(outcomes: Vec<Outcome>, waivers: Vec<Waiver>) -> Verdict {
        let context = DecisionContext::at(sample::now());
        decide(outcomes, &waivers.into_iter().collect(), &sample::facts("web1"), &context)
    }

    fn bytes(verdict: &Verdict) -> String {
        serde_json::to_string(verdict).unwrap()
    }

    proptest! {
        #[test]
        fn the_order_of_outcomes_and_waivers_means_nothing(
            (o, shuffled_o) in outcomes().prop_flat_map(|o| (Just(o.clone()), Just(o).prop_shuffle())),
            (w, shuffled_w) in waivers().prop_flat_map(|w| (Just(w.clone()), Just(w).prop_shuffle())),
        ) {
            prop_assert_eq!(bytes(&decide_with(o, w)), bytes(&decide_with(shuffled_o, shuffled_w)));
        }

        #[test]
        fn an_expired_waiver_changes_neither_decision_nor_outcomes(o in outcomes(), w in waivers()) {
            let expired = w.iter().cloned().map(|w| {
                let expires = sample::day("2026-11-22");
                Waiver { created: expires.plus(-1), expires, ..w }
            });
            let with: Vec<Waiver> = w.iter().cloned().chain(expired).collect();
            let (with, without) = (decide_with(o.clone(), with), decide_with(o, w));
            prop_assert_eq!(with.decision, without.decision);
            prop_assert_eq!(with.outcomes, without.outcomes);
        }

        #[test]
        fn a_waiver_more_never_turns_go_into_no_go_and_never_hides_an_outcome(
            o in outcomes(), w in waivers(), more in waivers(),
        ) {
            let before = decide_with(o.clone(), w.clone());
            let after = decide_with(o, w.into_iter().chain(more).collect());
            let go = |verdict: &Verdict| matches!(verdict.decision, Decision::Go(_));
            prop_assert!(!go(&before) || go(&after));
            prop_assert_eq!(before.outcomes.len(), after.outcomes.len());
            prop_assert!(after.counts.blocking <= before.counts.blocking);
        }

        #[test]
        fn what_may_not_be_waived_blocks_under_any_waivers(o in outcomes(), w in waivers()) {
            let bound = o.iter().any(|o| !o.waivable && o.effect_now() == Some(Effect::Block));
            prop_assert!(!bound || matches!(decide_with(o, w).decision, Decision::NoGo(_)));
        }

        #[test]
        fn go_means_that_nothing_blocks_and_something_was_evaluated(o in outcomes(), w in waivers()) {
            let verdict = decide_with(o, w);
            let evaluated = verdict.counts.pass + verdict.counts.fail + verdict.counts.unknown;
            let go = matches!(verdict.decision, Decision::Go(_));
            prop_assert_eq!(go, verdict.counts.blocking == 0 && evaluated > 0);
        }
    }
}
