//! Expiry of a verdict: the state of a VM and of its hosts changes, so a verdict is valid for a limited time.

use jiff::{SignedDuration, Timestamp};
use vmgate_attest::CLOCK_SKEW;
use vmgate_facts::Facts;

/// Default validity of a verdict after its oldest volatile fact.
pub const VALID_FOR: SignedDuration = SignedDuration::from_hours(1);

/// Facts that only change by an installation, a reboot or a redefinition. Their age does not make a verdict old.
const STABLE: [&str; 17] = [
    "vm.name",
    "vm.uuid",
    "vm.persistent",
    "vm.accelerator",
    "vm.machine_type",
    "vm.cpu_mode",
    "vm.cpu_model",
    "vm.has_agent_channel",
    "guest.hostname",
    "guest.kernel_release",
    "host.uri",
    "host.hostname",
    "host.uuid",
    "host.cpu_model",
    "host.offers_guest_cpu",
    "host.cpus",
    "host.machine_types",
];

/// Expiry time of a verdict: `valid_for` after the oldest of the evaluation, the start of the collection, and every
/// volatile fact with a known time. A fact from the future has no known age, so the verdict expires at once.
pub(super) fn expires_at(facts: &Facts, now: Timestamp, valid_for: SignedDuration) -> Timestamp {
    let volatile = facts.provenance.iter().filter(|(path, _)| !is_stable(path)).map(|(_, from)| from.at);
    let times: Vec<Timestamp> = volatile.chain([facts.collected_at]).collect();
    if times.iter().any(|at| at.duration_since(now) > CLOCK_SKEW) {
        return now;
    }
    let oldest = times.into_iter().fold(now, Timestamp::min);
    oldest.saturating_add(valid_for).unwrap_or(oldest)
}

fn is_stable(path: &str) -> bool {
    let of_host = ["source.", "destination."].iter().find_map(|host| path.strip_prefix(host));
    let path = of_host.map_or_else(|| path.to_owned(), |field| format!("host.{field}"));
    STABLE.contains(&path.as_str())
}

#[cfg(test)]
mod tests {
    use vmgate_facts::Provenance;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_oldest_volatile_fact_decides() {
        let now = at("2026-11-23T10:00:00Z");
        let mut facts = Facts::empty(at("2026-11-23T09:50:00Z"));
        assert_eq!(expires_at(&facts, now, VALID_FOR), at("2026-11-23T10:50:00Z"));
        let mut see = |path: &str, time| {
            let from = Provenance {
                collector: String::new(),
                method: String::new(),
                at: at(time),
                window_seconds: None,
            };
            facts.provenance.insert(path.into(), from);
            expires_at(&facts, now, VALID_FOR)
        };
        assert_eq!(see("source.machine_types", "2026-11-20T00:00:00Z"), at("2026-11-23T10:50:00Z"));
        assert_eq!(see("vm.dirty_rate", "2026-11-23T09:30:00Z"), at("2026-11-23T10:30:00Z"));
        assert_eq!(
            see("source", "2026-11-23T09:10:00Z"),
            at("2026-11-23T10:10:00Z"),
            "a group has volatile facts"
        );
    }

    #[test]
    fn facts_from_the_future_make_no_verdict_to_act_on() {
        let now = at("2026-11-23T10:00:00Z");
        assert_eq!(expires_at(&Facts::empty(at("2027-01-01T00:00:00Z")), now, VALID_FOR), now);
        let nearly_now = Facts::empty(at("2026-11-23T10:00:30Z"));
        assert_eq!(expires_at(&nearly_now, now, VALID_FOR), at("2026-11-23T11:00:00Z"));
        let mut facts = Facts::empty(now);
        let from = Provenance {
            collector: String::new(),
            method: String::new(),
            at: at("2027-01-01T00:00:00Z"),
            window_seconds: None,
        };
        facts.provenance.insert("vm.dirty_rate".into(), from);
        assert_eq!(expires_at(&facts, now, VALID_FOR), now);
    }
}
