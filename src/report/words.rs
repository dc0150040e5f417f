//! Words and number formats that several report formats share.

use std::collections::BTreeSet;

use jiff::Timestamp;
use vmgate_attest::{FactsBasis, FactsOrigin, RulesOrigin};
use vmgate_facts::{Cause, Forecast, ManagedEndAction, ManagedMigration};
use vmgate_verdict::{
    Alternative, BaselineComparison, Counts, Decision, Effect, GoReason, JudgedOutcome, NoGoReason, Outcome,
    Status, Verdict, WaiverFault,
};

/// Cause of missing evidence in words; `None` stands for a rule that cannot be evaluated although its facts are known.
pub(super) fn cause(cause: Option<Cause>) -> &'static str {
    match cause {
        None => "rule error",
        Some(Cause::NotCollected) => "not collected",
        Some(Cause::NoGuestAgent) => "no guest agent",
        Some(Cause::AgentForbids) => "agent forbids it",
        Some(Cause::GuestNotRunning) => "guest not running",
        Some(Cause::HostUnreachable) => "host unreachable",
        Some(Cause::NoLogin) => "no login",
        Some(Cause::NoHostProbe) => "no host probe",
        Some(Cause::NoGuestProbe) => "no guest probe",
        Some(Cause::TimedOut) => "timed out",
        Some(Cause::PermissionDenied) => "permission denied",
        Some(Cause::NotSupported) => "not supported",
        Some(Cause::NotListed) => "not listed",
        Some(Cause::NotAllowed) => "not allowed",
        Some(Cause::ForeignGuest) => "no Linux guest",
        Some(Cause::TooOld) => "too old",
        Some(Cause::NotRehearsed) => "not rehearsed",
        Some(Cause::NotOnTheWire) => "not on the wire",
        Some(Cause::NoLibvirt) => "no libvirt",
        Some(Cause::NoDestination) => "no destination",
        Some(Cause::NetworkNotMeasured) => "not measured",
        Some(Cause::NetworkNotConnected) => "not connected",
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

/// Number of rounds of a forecast, as every report says it; `None` where it is not known.
pub(super) fn rounds(forecast: &Forecast) -> Option<String> {
    let rounds = format!("{:.0}", forecast.rounds.known()?.p50);
    Some(format!("{rounds} round{}", if rounds == "1" { "" } else { "s" }))
}

/// Another destination, with its forecast.
pub(super) fn alternative(other: &Alternative) -> String {
    let blackout = other.blackout_seconds.map(|p95| format!(" (blackout at most {}, p95)", seconds(p95)));
    format!("{}{}", other.destination.label(), blackout.unwrap_or_default())
}

/// `1 rule`, `2 rules`.
pub(crate) fn number(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// An amount of memory, with two digits.
pub(super) fn bytes(bytes: f64) -> String {
    let units =
        [(1_099_511_627_776.0, "TiB"), (1_073_741_824.0, "GiB"), (1_048_576.0, "MiB"), (1024.0, "KiB")];
    let unit = units.into_iter().find(|(size, _)| bytes >= *size);
    let (size, name) = unit.unwrap_or((1.0, "bytes"));
    let amount = bytes / size;
    if amount < 10.0 { format!("{amount:.1} {name}") } else { format!("{amount:.0} {name}") }
}

/// A duration, with two or three digits: milliseconds below a tenth of a second.
pub(crate) fn seconds(seconds: f64) -> String {
    match seconds {
        ..0.1 => format!("{:.0} ms", seconds * 1000.0),
        ..1.0 => format!("{} s", (seconds * 100.0).round() / 100.0),
        ..100.0 => format!("{} s", (seconds * 10.0).round() / 10.0),
        _ => format!("{seconds:.0} s"),
    }
}

/// A time to the second, UTC, for people.
pub(crate) fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// Age of `at` at the time `now`, in the two largest units.
pub(super) fn age(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(at).as_secs();
    let two = |large: i64, large_unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{large} {large_unit}"),
        _ => format!("{large} {large_unit} {small} {small_unit}"),
    };
    match seconds {
        ..0 => "later than the evaluation".to_owned(),
        0..60 => format!("{seconds} s"),
        60..3600 => two(seconds / 60, "min", seconds % 60, "s"),
        3600..86400 => two(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        86400.. => two(seconds / 86400, "d", seconds % 86400 / 3600, "h"),
    }
}

/// VM, source, destination and change id of a move, in one text.
pub(super) fn movement(verdict: &Verdict) -> String {
    let moved = &verdict.moved;
    let change = verdict.change.id.as_ref().map(|id| format!(" (change {id})")).unwrap_or_default();
    format!("{}: {} -> {}{change}", moved.vm.label(), moved.source.label(), moved.destination.label())
}

/// The reason of the decision with its figures, in one sentence without a full stop. Of a simulated verdict the time comes
/// first, because every report for people shows the reason.
pub(super) fn reason(verdict: &Verdict) -> String {
    match simulation(verdict) {
        Some(simulated) => format!("{simulated}; {}", counted_reason(verdict)),
        None => counted_reason(verdict),
    }
}

/// Warning of a simulated verdict, without a full stop; `None` for one of the machine's clock.
pub(super) fn simulation(verdict: &Verdict) -> Option<String> {
    verdict.simulated.then(|| format!("simulated for {}, permits nothing", time(verdict.evaluated_at)))
}

/// Text with a capital letter at its beginning.
pub(super) fn upper_first(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

/// Notes on the basis for the reader: facts that were not measured live, and rules that are not those that are shipped.
/// Empty where there is nothing to say.
pub(super) fn basis(verdict: &Verdict) -> Vec<String> {
    let Some(basis) = &verdict.basis else { return Vec::new() };
    let mut lines = Vec::new();
    let other = basis.facts.iter().filter(|facts| facts.origin != FactsOrigin::Live);
    let mut origins: Vec<String> = other.map(FactsBasis::in_words).collect();
    origins.dedup();
    if !origins.is_empty() {
        lines.push(format!("facts {}", origins.join(", ")));
    }
    let folders = basis.rules.iter().filter(|pack| pack.origin != RulesOrigin::Builtin);
    lines.extend(folders.map(|pack| format!("judged by {}{}", pack.title(), pack.replaced())));
    if !basis.rules.is_empty() && !basis.rules.iter().any(|pack| pack.origin == RulesOrigin::Builtin) {
        lines.push("the shipped rules were left out".to_owned());
    }
    lines
}

fn counted_reason(verdict: &Verdict) -> String {
    let Counts { blocking, warnings, rules, .. } = verdict.counts;
    let is_unknown = |judged: &&JudgedOutcome| judged.outcome.status == Status::Unknown;
    let violated = blocking - verdict.with_effect(Effect::Block).filter(is_unknown).count().min(blocking);
    let unknown = verdict.outcomes.iter().filter(is_unknown);
    let undecided = |least: Effect| {
        let effects = unknown.clone().filter(|judged| judged.effect_now >= Some(least));
        effects.map(|judged| &*judged.outcome.rule).collect::<BTreeSet<&str>>().len()
    };
    // The table of what is missing lists rules of every effect.
    let (all, blocks) = (undecided(Effect::Note), undecided(Effect::Block));
    let some = if blocks < all { format!(" ({blocks} blocking)") } else { String::new() };
    let missing = format!("{} cannot be decided{some}", number(all, "rule"));
    match verdict.decision {
        Decision::Go(GoReason::AllClear) => format!("no rule objects ({} evaluated)", number(rules, "rule")),
        Decision::Go(GoReason::WithWarnings) => format!("no rule blocks; {}", number(warnings, "warning")),
        Decision::NoGo(NoGoReason::RuleViolated) if blocks > 0 => {
            format!("{}; evidence is missing: {missing}", number(violated, "violation"))
        }
        Decision::NoGo(NoGoReason::RuleViolated) => number(violated, "violation"),
        Decision::NoGo(NoGoReason::EvidenceMissing) => format!("evidence is missing: {missing}"),
        Decision::NoGo(NoGoReason::NothingEvaluated) if rules == 0 => {
            "no rule was evaluated: no rules were loaded".to_owned()
        }
        Decision::NoGo(NoGoReason::NothingEvaluated) if verdict.counts.pass + verdict.counts.fail > 0 => {
            "the destination was not seen: name it with --to, and see that its libvirt answers".to_owned()
        }
        Decision::NoGo(NoGoReason::NothingEvaluated) => {
            format!("no rule was evaluated: none of {} applies", number(rules, "rule"))
        }
    }
}

/// Changes since the earlier verdict, in figures.
pub(super) fn since(since: &BaselineComparison) -> String {
    let (new, changed, fixed) = (since.new.len(), since.changed.len(), since.fixed.len());
    match since.evaluated_at.zip(since.decision) {
        None => format!("this move is not in the baseline: {new} new"),
        Some((at, decision)) => format!(
            "since {} ({}): {new} new, {changed} changed, {fixed} fixed, {} unchanged",
            time(at),
            decision.word(),
            since.unchanged
        ),
    }
}

/// Subject and message of an outcome, without repeating the subject.
pub(super) fn finding(outcome: &Outcome) -> String {
    about(outcome.subject.as_deref(), &outcome.message)
}

/// Subject and message, without repeating the subject.
pub(super) fn about(subject: Option<&str>, message: &str) -> String {
    match subject {
        Some(subject) if !message.contains(subject) => format!("{subject}: {message}"),
        _ => message.to_owned(),
    }
}

/// A manager's migration in a sentence: its limits, its end, and where its settings are from.
pub(super) fn managed(migration: &ManagedMigration) -> String {
    let mut parts = Vec::new();
    match (migration.downtime_limits.first(), migration.downtime_limits.last()) {
        (Some(first), Some(last)) if last.at_seconds > 0.0 => parts.push(format!(
            "downtime limit {}, raised to {} by {}",
            seconds(first.limit_seconds),
            seconds(last.limit_seconds),
            seconds(last.at_seconds)
        )),
        (Some(only), _) => parts.push(format!("downtime limit {}", seconds(only.limit_seconds))),
        (None, _) => {}
    }
    if let Some(limit) = migration.bandwidth_limit_bytes_per_second {
        parts.push(format!("at most {} MiB/s", limit >> 20));
    }
    let named = [
        (migration.auto_converge, "auto-converge"),
        (migration.xbzrle, "XBZRLE"),
        (migration.post_copy, "post-copy"),
        (migration.tls, "TLS"),
        (migration.tunnelled, "tunnelled"),
    ];
    parts.extend(named.into_iter().filter(|(on, _)| *on).map(|(_, name)| name.to_owned()));
    if let Some(end) = migration.end {
        let action = match end.action {
            ManagedEndAction::Abort => "aborted",
            ManagedEndAction::Pause => "forced by a pause",
            ManagedEndAction::PostCopy => "switched to post-copy",
        };
        parts.push(format!("{action} after {}", seconds(end.at_seconds)));
    }
    if let Some(at_once) = migration.parallel_moves {
        parts.push(format!("{at_once} at a time from a host"));
    }
    let own = migration.settings.iter().filter(|one| one.origin.starts_with('/'));
    let own: Vec<String> = own.map(|one| format!("{} = {} ({})", one.name, one.value, one.origin)).collect();
    parts.push(if own.is_empty() { "all settings are defaults".to_owned() } else { own.join(", ") });
    parts.extend(migration.not_replayed.iter().map(|what| format!("not replayed: {what}")));
    format!("{}: {}", migration.title, parts.join("; "))
}

#[cfg(test)]
mod tests {
    use vmgate_verdict::sample;

    use super::*;

    #[test]
    fn an_age_has_its_two_largest_units() {
        let before = |seconds: i64| {
            let now = sample::now();
            age(Timestamp::from_second(now.as_second() - seconds).unwrap(), now)
        };
        assert_eq!(before(0), "0 s");
        assert_eq!(before(116), "1 min 56 s");
        assert_eq!(before(7200), "2 h");
        assert_eq!(before(90_061), "1 d 1 h");
        assert_eq!(before(-1), "later than the evaluation");
    }

    #[test]
    fn amounts_and_lengths_have_the_figures_that_matter() {
        assert_eq!([0.0, 5.2e9, 4.3e8].map(bytes), ["0.0 bytes", "4.8 GiB", "410 MiB"]);
        assert_eq!([0.043, 0.2345, 34.04, 600.3].map(seconds), ["43 ms", "0.23 s", "34 s", "600 s"]);
    }

    #[test]
    fn the_reason_counts_what_is_violated_and_what_is_undecided() {
        assert_eq!(
            reason(&sample::no_go()),
            "3 violations; evidence is missing: 2 rules cannot be decided (1 blocking)"
        );
        assert_eq!(reason(&sample::go()), "no rule objects (3 rules evaluated)");
    }
}
