//! The words that several formats share, so that they say the same.

use jiff::Timestamp;

use crate::{
    fact::Cause,
    rule::{Effect, Outcome, Severity, Status, Step},
    verdict::{Counts, Decision, GoReason, NoGoReason, Verdict, WaiverFault},
};

pub(super) fn step(step: Step) -> &'static str {
    match step {
        Step::Prepare => "prepare",
        Step::Precopy => "precopy",
        Step::Stop => "stop",
        Step::Switch => "switch",
        Step::Resume => "resume",
        Step::Policy => "policy",
    }
}

pub(super) fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Low => "low",
        Severity::Medium => "medium",
        Severity::High => "high",
        Severity::Critical => "critical",
    }
}

pub(super) fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::Note => "note",
        Effect::Warn => "warn",
        Effect::Block => "block",
    }
}

pub(super) fn status(status: Status) -> &'static str {
    match status {
        Status::Pass => "pass",
        Status::Fail => "fail",
        Status::Unknown => "unknown",
        Status::NotApplicable => "not-applicable",
    }
}

/// The obstacle in words; none stands for a rule that fails on facts which are there.
pub(super) fn cause(cause: Option<Cause>) -> &'static str {
    match cause {
        None => "the rule fails",
        Some(Cause::NotCollected) => "not collected",
        Some(Cause::NoGuestAgent) => "no guest agent",
        Some(Cause::AgentForbids) => "agent forbids it",
        Some(Cause::GuestNotRunning) => "guest not running",
        Some(Cause::HostUnreachable) => "host unreachable",
        Some(Cause::NoHostProbe) => "no host probe",
        Some(Cause::TimedOut) => "timed out",
        Some(Cause::PermissionDenied) => "permission denied",
        Some(Cause::NotSupported) => "not supported",
        Some(Cause::NotAllowed) => "not allowed",
        Some(Cause::Malformed) => "malformed answer",
    }
}

pub(super) fn fault(fault: WaiverFault) -> &'static str {
    match fault {
        WaiverFault::Expired => "expired",
        WaiverFault::NotYetValid => "not yet valid",
        WaiverFault::Unused => "unused",
        WaiverFault::UnknownRule => "unknown rule",
        WaiverFault::NotWaivable => "not waivable",
    }
}

/// `1 rule`, `2 rules`.
pub(super) fn number(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// A time to the second, UTC, for people.
pub(super) fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// Who moves from where to where, and for which change.
pub(super) fn movement(verdict: &Verdict) -> String {
    let moved = &verdict.moved;
    let change = moved.change.as_ref().map(|id| format!(" (change {id})")).unwrap_or_default();
    format!("{}: {} -> {}{change}", moved.vm.label(), moved.source.label(), moved.destination.label())
}

/// The reason of the decision with its figures, in one sentence without a full stop.
pub(super) fn reason(verdict: &Verdict) -> String {
    let Counts { blocking, warnings, rules, .. } = verdict.counts;
    let undecided =
        verdict.with_effect(Effect::Block).filter(|j| j.outcome.status == Status::Unknown).count();
    let violated = blocking - undecided.min(blocking);
    match verdict.decision {
        Decision::Go(GoReason::AllClear) => format!("nothing speaks against it in {}", number(rules, "rule")),
        Decision::Go(GoReason::WithWarnings) => format!("nothing blocks; {}", number(warnings, "warning")),
        Decision::NoGo(NoGoReason::RuleViolated) if undecided > 0 => {
            format!("{}, and {undecided} undecided for want of evidence", number(violated, "violation"))
        }
        Decision::NoGo(NoGoReason::RuleViolated) => number(violated, "violation"),
        Decision::NoGo(NoGoReason::EvidenceMissing) => {
            format!("evidence is missing: {undecided} undecided")
        }
        Decision::NoGo(NoGoReason::NothingEvaluated) if rules == 0 => {
            "no rule was evaluated: no rules were loaded".to_owned()
        }
        Decision::NoGo(NoGoReason::NothingEvaluated) => {
            format!("no rule was evaluated: of {} none applies", number(rules, "rule"))
        }
    }
}

/// The subject and the message, without saying the subject twice.
pub(super) fn finding(outcome: &Outcome) -> String {
    match &outcome.subject {
        Some(subject) if !outcome.message.contains(subject.as_str()) => {
            format!("{subject}: {}", outcome.message)
        }
        _ => outcome.message.clone(),
    }
}
