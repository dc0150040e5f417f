//! Audit of hosts: the possible destinations of every VM, and the obstacles to the others.
//!
//! Pure: verdicts in, a document out. An audit asks no guest and measures nothing, so that many rules of a verdict stay
//! undecided. It finds destinations that are impossible, and destinations without a known obstacle.

mod comparison;
mod document;
mod first_steps;

use std::collections::{BTreeMap, BTreeSet};

pub use comparison::InvalidAudit;
pub use document::{
    Audit, AuditDifferences, AuditSchema, AuditedDestination, AuditedHost, AuditedVm, FirstStep,
    MissingEvidence, MoveAnswer, Obstacle, RuleViolation,
};
use jiff::Timestamp;
use vmgate_facts::Cause;
use vmgate_verdict::{Effect, JudgedOutcome, Status, Verdict};

/// Facts that an audit never collects: their absence is no reason against a destination.
const OUT_OF_SCOPE: [&str; 6] =
    ["guest", "path", "forecast", "vm.dirty_rate", "vm.dirty_windows", "vm.dirty_trace"];

/// A move with its verdict.
#[derive(Debug, Clone)]
pub struct JudgedMove {
    /// Name of the host that the VM runs on.
    pub source: String,
    /// Name of the host that the VM could move to.
    pub destination: String,
    /// Verdict of the rules.
    pub verdict: Verdict,
}

/// Makes the audit of `hosts` from the verdicts on every move between them.
pub fn audit(hosts: Vec<AuditedHost>, moves: &[JudgedMove], at: Timestamp) -> Audit {
    let mut vms: BTreeMap<(String, String, String), Vec<AuditedDestination>> = BTreeMap::new();
    for judged in moves {
        let vm = &judged.verdict.moved.vm;
        let uuid = vm.uuid.as_ref().map(ToString::to_string).unwrap_or_default();
        let key = (judged.source.clone(), vm.name.clone().unwrap_or_default(), uuid);
        vms.entry(key).or_default().push(rate_destination(&judged.destination, &judged.verdict));
    }
    let vms = vms.into_iter().map(|((host, name, uuid), destinations)| AuditedVm {
        name,
        uuid,
        host,
        destinations,
    });
    let vms: Vec<AuditedVm> = vms.collect();
    Audit {
        schema: AuditSchema::V1,
        evaluated_at: at,
        simulated: moves.iter().any(|judged| judged.verdict.simulated),
        hosts,
        first: first_steps::first_steps(&vms),
        vms,
        since: None,
        undecided: undecided(moves),
    }
}

/// Rates a destination by a verdict: a guest that was not asked and a path that was not measured are no reason against
/// the destination.
pub fn rate_destination(host: &str, verdict: &Verdict) -> AuditedDestination {
    let violations = |effect| {
        let outcomes = verdict.outcomes.iter();
        outcomes
            .filter(move |judged| judged.effect_now == Some(effect) && judged.outcome.status == Status::Fail)
            .map(reason)
            .collect::<Vec<_>>()
    };
    let because = violations(Effect::Block);
    let open: BTreeSet<&str> = unknown(verdict)
        .filter(|judged| judged.outcome.missing.iter().any(|missing| is_in_scope(&missing.path)))
        .map(|judged| &*judged.outcome.rule)
        .collect();
    AuditedDestination {
        host: host.to_owned(),
        answer: match (because.is_empty(), open.is_empty()) {
            (false, _) => MoveAnswer::No,
            (true, false) => MoveAnswer::Undecided,
            (true, true) => MoveAnswer::Yes,
        },
        because,
        warnings: violations(Effect::Warn),
        undecided: open.into_iter().map(str::to_owned).collect(),
    }
}

fn reason(judged: &JudgedOutcome) -> RuleViolation {
    let outcome = &judged.outcome;
    RuleViolation {
        rule: outcome.rule.to_string(),
        subject: outcome.subject.clone(),
        message: outcome.message.to_string(),
        remediation: outcome.remediation.clone(),
    }
}

/// Outcomes that block for want of evidence.
fn unknown(verdict: &Verdict) -> impl Iterator<Item = &JudgedOutcome> {
    let outcomes = verdict.outcomes.iter();
    outcomes
        .filter(|judged| judged.effect_now == Some(Effect::Block) && judged.outcome.status == Status::Unknown)
}

/// True if an audit should have collected this fact.
fn is_in_scope(path: &str) -> bool {
    !OUT_OF_SCOPE.iter().any(|group| {
        path.strip_prefix(group).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    })
}

/// Groups the missing evidence of all moves by cause, with one way out for each cause.
fn undecided(moves: &[JudgedMove]) -> Vec<MissingEvidence> {
    let mut groups: BTreeMap<Cause, (BTreeSet<&str>, BTreeSet<&str>, bool)> = BTreeMap::new();
    for judged in moves.iter().flat_map(|judged| unknown(&judged.verdict)) {
        for missing in &judged.outcome.missing {
            let (rules, reasons, counts) = groups.entry(missing.cause).or_default();
            rules.insert(&judged.outcome.rule);
            reasons.insert(&missing.reason);
            *counts |= is_in_scope(&missing.path);
        }
    }
    let owned = |texts: BTreeSet<&str>| texts.into_iter().map(str::to_owned).collect();
    groups
        .into_iter()
        .map(|(cause, (rules, reasons, counts))| MissingEvidence {
            cause,
            by_design: !counts,
            rules: owned(rules),
            reasons: owned(reasons),
            way_out: if counts {
                cause.way_out().to_owned()
            } else {
                "`vmgate check VM --to HOST` asks the guest and measures before the move".to_owned()
            },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use vmgate_facts::Facts;
    use vmgate_judge::{Policy, VerdictRequest};
    use vmgate_rules::{ParamOverrides, RuleSource};

    use super::*;

    fn facts(change: impl FnOnce(&mut serde_yaml::Value)) -> Facts {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/fixtures/idle-vm.yaml");
        let mut document: serde_yaml::Value =
            serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        change(&mut document);
        serde_yaml::from_value(document).unwrap()
    }

    fn judged(destination: &str, facts: Facts) -> JudgedMove {
        let policy = Policy::load(&[RuleSource::Builtin], None, &ParamOverrides::new()).unwrap();
        let now = facts.collected_at;
        JudgedMove {
            source: "hv1".into(),
            destination: destination.into(),
            verdict: policy.judge(facts, now, &VerdictRequest::default()),
        }
    }

    #[test]
    fn a_vm_goes_where_nothing_stands_in_its_way_and_the_others_say_why() {
        let text = |value: &str| serde_yaml::from_str::<serde_yaml::Value>(value).unwrap();
        let not_asked = text("{unknown: an audit asks no guest, cause: not-collected}");
        let moves = [
            judged("hv2", facts(|document| document["guest"] = not_asked.clone())),
            judged("hv3", facts(|document| document["destination"]["maintenance"] = text("new disks"))),
            judged(
                "hv4",
                facts(|document| {
                    document["destination"] = text("{unknown: no route to host, cause: host-unreachable}");
                }),
            ),
        ];
        let audit = audit(Vec::new(), &moves, Timestamp::UNIX_EPOCH);
        assert_eq!(audit.vms.len(), 1);
        let vm = &audit.vms[0];
        assert_eq!((vm.name.as_str(), vm.host.as_str()), ("web1", "hv1"));
        let answers: Vec<_> = vm.destinations.iter().map(|d| (d.host.as_str(), d.answer)).collect();
        assert_eq!(
            answers,
            [("hv2", MoveAnswer::Yes), ("hv3", MoveAnswer::No), ("hv4", MoveAnswer::Undecided)]
        );
        assert_eq!(vm.destinations[1].because[0].rule, "destination-accepts-moves");
        assert!(vm.destinations[1].because[0].message.contains("new disks"));
        let groups: Vec<_> = audit.undecided.iter().map(|group| (group.cause, group.by_design)).collect();
        assert_eq!(groups, [(Cause::NotCollected, true), (Cause::HostUnreachable, false)]);
    }

    #[test]
    fn facts_are_told_apart_by_whole_names() {
        assert!(
            !is_in_scope("guest.tcp") && !is_in_scope("path") && !is_in_scope("vm.dirty_rate.window_seconds")
        );
        assert!(is_in_scope("guests") && is_in_scope("vm.dirty") && is_in_scope("destination.memory"));
    }
}
