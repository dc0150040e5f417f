//! Steps of a manager against a migration that makes no progress: it looks at the memory left every so often, and acts on what it saw.
//!
//! oVirt and Proxmox VE count the looks at which more is left than at the one before; KubeVirt measures the time since the least
//! was left.

use serde::{Deserialize, Serialize};

use super::schedule::ScheduledAction;

/// Rule of a manager on migrations that make no progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StallRule {
    /// Time between two looks.
    pub look_seconds: f64,
    /// Steps, in their order; each look takes one at most.
    pub steps: Vec<StallStep>,
}

/// One step: an action, and the evidence on which it is taken.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StallStep {
    /// Evidence.
    pub after: StallEvidence,
    /// Action.
    pub action: ScheduledAction,
}

/// Evidence that a migration makes no progress.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StallEvidence {
    /// More was left than a look before, this many times.
    Rises(u32),
    /// Time since the least was left, in seconds.
    Seconds(f64),
}

impl StallRule {
    /// Time that a migration without progress may take until the last step, about.
    pub(super) fn longest_seconds(&self) -> f64 {
        let of = |step: &StallStep| match step.after {
            StallEvidence::Rises(times) => 2.0 * f64::from(times) * self.look_seconds,
            StallEvidence::Seconds(seconds) => seconds + self.look_seconds,
        };
        self.steps.iter().map(of).fold(0.0, f64::max)
    }
}

/// A manager that watches one simulated migration.
#[derive(Debug, Clone)]
pub(super) struct StallWatch<'a> {
    rule: Option<&'a StallRule>,
    taken: usize,
    next_look: f64,
    rises: u32,
    last: f64,
    least: f64,
    least_at: f64,
}

impl<'a> StallWatch<'a> {
    pub(super) fn new(rule: Option<&'a StallRule>) -> Self {
        let next_look = rule.map_or(f64::INFINITY, |rule| rule.look_seconds);
        let none_yet = f64::INFINITY;
        Self { rule, taken: 0, next_look, rises: 0, last: none_yet, least: none_yet, least_at: 0.0 }
    }

    /// Looks if it is time to; returns the action to take.
    pub(super) fn look(&mut self, now: f64, left: f64) -> Option<ScheduledAction> {
        let rule = self.rule.filter(|_| now >= self.next_look)?;
        while self.next_look <= now {
            self.next_look += rule.look_seconds.max(1e-3);
        }
        self.rises += u32::from(left > self.last);
        self.last = left;
        if left < self.least {
            (self.least, self.least_at) = (left, now);
        }
        let step = rule.steps.get(self.taken)?;
        let is_due = match step.after {
            StallEvidence::Rises(times) => self.rises >= times,
            StallEvidence::Seconds(seconds) => now - self.least_at > seconds,
        };
        if !is_due {
            return None;
        }
        self.taken += 1;
        Some(step.action)
    }

    /// True while something may still be done.
    pub(super) fn may_act(&self) -> bool {
        self.rule.is_some_and(|rule| self.taken < rule.steps.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABORT: ScheduledAction = ScheduledAction::Abort;

    fn rule(look_seconds: f64, steps: &[(StallEvidence, ScheduledAction)]) -> StallRule {
        let steps = steps.iter().map(|&(after, action)| StallStep { after, action });
        StallRule { look_seconds, steps: steps.collect() }
    }

    #[test]
    fn rises_are_counted_from_look_to_look_and_each_look_takes_one_step() {
        let limit = ScheduledAction::DowntimeLimit(0.15);
        let rule = rule(10.0, &[(StallEvidence::Rises(2), limit), (StallEvidence::Rises(2), ABORT)]);
        let mut watch = StallWatch::new(Some(&rule));
        assert_eq!(watch.look(5.0, 9.0), None, "between two looks");
        let left = [9.0, 5.0, 6.0, 6.0, 7.0, 3.0];
        let taken: Vec<_> =
            (1..).zip(left).map(|(look, left)| watch.look(10.0 * f64::from(look), left)).collect();
        assert_eq!(taken, [None, None, None, None, Some(limit), Some(ABORT)]);
        assert!(!watch.may_act());
    }

    #[test]
    fn time_runs_from_the_least_that_was_left() {
        let rule = rule(1.0, &[(StallEvidence::Seconds(3.0), ABORT)]);
        let mut watch = StallWatch::new(Some(&rule));
        let left = [9.0, 4.0, 5.0, 4.0, 3.9, 5.0, 5.0, 4.0];
        let taken: Vec<_> = (1..).zip(left).map(|(look, left)| watch.look(f64::from(look), left)).collect();
        assert_eq!(taken.iter().filter(|action| action.is_some()).count(), 0);
        assert_eq!(watch.look(9.0, 4.5), Some(ABORT));
    }

    #[test]
    fn without_a_rule_nothing_is_done() {
        assert_eq!(StallWatch::new(None).look(1e9, 1.0), None);
    }
}
